//! Bias correction: what rounding adds to a layer's mean output is taken off its bias.
//!
//! # Problem
//!
//! Rounding changes `X W` to `X~ Q`, where `X~` are the layer's inputs once the layers before it are quantized
//! (or `X` itself, see [`crate::stats::paired`]). Part of the change is the same for every row, and a bias can absorb it. How
//! large that part is, only the calibration rows tell, and a mean over few of them is a guess: in a deep network the
//! layers before have left an error that has no mean, and to take off at every layer what looks like one adds noise at
//! every layer.
//!
//! # Shapes and units
//!
//! The correction is `[groups, M]`, in units of the layer's output.
//!
//! # Method
//!
//! ```text
//! m = mean(X W - X~ Q) = mean(X)^T W - mean(X~)^T Q
//! c = m max(0, 1 - sum_j v_j / (s sum_j m_j^2)),      b' = b + c
//! ```
//!
//! over all neurons j of the layer, where `v_j` is the variance of what a neuron loses and `s` the number of samples:
//! rows of one sample err alike, so that `v_j / s` is what the square of a mean may well be by chance. This is the factor
//! of James and Stein for many means, cut at 0.
//!
//! Where the layers before have changed the outputs by more than these are, offsets apart, there is nothing left that a
//! mean could mend: then c = 0. Corrections of layer after layer would only make the ruin grow.
//!
//! # Guarantee
//!
//! On the calibration rows the squared error does not grow, and where the factor is 1 it falls by `n |m|^2`. With any
//! correction c, and `R = X W - X~ Q`,
//!
//! ```text
//! |R - 1 c^T|_F^2 / n  =  |R|_F^2 / n - 2 <c, mean(R)> + |c|^2
//! ```
//!
//! # Cost
//!
//! That of the error itself, see [`crate::stats::layer_error`].
//!
//! # References
//!
//! Nagel, van Baalen, Blankevoort, Welling: Data-free quantization through weight
//! equalization and bias correction, arXiv 1906.04721, section 4.2. James, Stein: Estimation with quadratic loss,
//! Proc. 4th Berkeley Symposium, 1961.

use crate::error::QuantError;
use crate::error::shape_error;
use crate::layer::problem::LayerProblem;
use crate::stats::gram::GramStats;
use crate::stats::layer_error::{Yardstick, ratio};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3};

/// What is added to the bias of each output, `[groups, M]`; zeros where there is no bias to correct, or no statistics.
pub fn bias_correction(
    problem: &LayerProblem<'_>,
    dequantized: ArrayView3<'_, f32>,
) -> Result<Array2<f64>, QuantError> {
    match problem.stats().filter(|_| problem.corrects_bias()) {
        Some(stats) => mean_correction(problem.weights(), dequantized, stats),
        None => Ok(Array2::zeros((problem.groups(), problem.outputs()))),
    }
}

/// The mean of what each output loses, as far as that is more than chance.
pub(crate) fn mean_correction(
    weights: ArrayView3<'_, f32>,
    dequantized: ArrayView3<'_, f32>,
    stats: &[GramStats],
) -> Result<Array2<f64>, QuantError> {
    let errors = errors(weights, dequantized, stats)?;
    let yardstick = Yardstick::new(stats, weights.mapv(f64::from));
    let is_ruined = yardstick.drifted() > yardstick.output();
    Ok(Lost::new(&yardstick, &errors).correction(stats, is_ruined))
}

/// What a solution loses on some rows.
struct Lost {
    /// `|X w - X~ q|^2 / n` by group and neuron.
    squares: Vec<Vec<f64>>,
    /// `[groups, M]`.
    means: Array2<f64>,
}

impl Lost {
    fn new(yardstick: &Yardstick<'_>, errors: &Array3<f64>) -> Self {
        Self { squares: yardstick.lost_by_neuron(errors), means: yardstick.mean_lost(errors) }
    }

    /// The correction of the bias that these rows, behind `stats`, ask for, unless the inputs are ruined.
    fn correction(&self, stats: &[GramStats], is_ruined: bool) -> Array2<f64> {
        let (mut chance, mut power) = (0.0, 0.0);
        for ((means, squares), stats) in self.means.outer_iter().zip(&self.squares).zip(stats) {
            for (mean, square) in means.into_iter().zip(squares) {
                chance += (square - mean * mean).max(0.0) / stats.n_samples() as f64;
                power += mean * mean;
            }
        }
        &self.means * if is_ruined { 0.0 } else { trusted(power, chance) }
    }

    /// `|X W - X~ Q|_F^2 / n` about the mean.
    fn spread(&self) -> f64 {
        let neurons = self.squares.iter().flatten().zip(&self.means);
        neurons.map(|(square, mean)| (square - mean * mean).max(0.0)).sum()
    }

    /// `|mean(X W - X~ Q) - c|^2`, what a correction leaves of the mean.
    fn kept(&self, correction: ArrayView2<'_, f64>) -> f64 {
        correction.iter().zip(&self.means).map(|(c, mean)| (mean - c).powi(2)).sum()
    }

    /// `|X W - X~ Q - 1 c^T|_F^2 / n`.
    fn after(&self, correction: ArrayView2<'_, f64>) -> Result<f64, QuantError> {
        if correction.dim() != self.means.dim() {
            let expected = format!("{:?}", self.means.shape());
            return Err(shape_error("bias correction", correction.shape(), expected));
        }
        let shift: f64 = correction.iter().zip(&self.means).map(|(c, mean)| c * (c - 2.0 * mean)).sum();
        Ok((self.squares.iter().flatten().sum::<f64>() + shift).max(0.0))
    }
}

/// How much of means with this sum of squares is no chance, where chance alone has the sum `chance`.
fn trusted(power: f64, chance: f64) -> f64 {
    if chance < power { 1.0 - chance / power } else { 0.0 }
}

/// `|X W - X~ Q - 1 c^T|_F / |X W|_F` on the rows behind `stats` (one entry per group).
pub fn corrected_error(
    weights: ArrayView3<'_, f32>,
    dequantized: ArrayView3<'_, f32>,
    correction: ArrayView2<'_, f64>,
    stats: &[GramStats],
) -> Result<f64, QuantError> {
    let errors = errors(weights, dequantized, stats)?;
    let yardstick = Yardstick::new(stats, weights.mapv(f64::from));
    Ok(ratio(Lost::new(&yardstick, &errors).after(correction)?, yardstick.output()))
}

/// What remains of one solution's error, see [`Remaining`].
pub(crate) struct Measured {
    /// The error relative to the output.
    pub(crate) error: f64,
    /// What is added to the bias, `[groups, M]`.
    pub(crate) correction: Array2<f64>,
    /// The part of `|X W - X~ Q - 1 c^T|_F^2 / n` that is a mean, where the layer has a bias to correct: what the correction
    /// leaves of it, for it may be chance.
    pub(crate) kept: f64,
}

/// What remains of the errors of a problem's solutions on some rows once the bias is corrected, if it can be.
pub(crate) struct Remaining<'a> {
    problem: LayerProblem<'a>,
    rows: &'a [GramStats],
    yardstick: Yardstick<'a>,
    /// `|X W|_F^2 / n` over all groups.
    pub(crate) output: f64,
    /// The calibration rows, where these are others.
    calibration: Option<Yardstick<'a>>,
    /// The layers before have changed the outputs on the calibration rows by more than these are.
    is_ruined: bool,
}

impl<'a> Remaining<'a> {
    pub(crate) fn new(problem: &LayerProblem<'a>, rows: &'a [GramStats]) -> Self {
        let yardstick = |rows: &'a [GramStats]| Yardstick::new(rows, problem.weights().mapv(f64::from));
        let others = problem.stats().filter(|stats| problem.corrects_bias() && !std::ptr::eq(*stats, rows));
        let (on_rows, calibration) = (yardstick(rows), others.map(yardstick));
        let output = on_rows.output();
        let is_ruined = calibration.as_ref().unwrap_or(&on_rows).drifted() > output;
        Self { problem: *problem, rows, output, yardstick: on_rows, calibration, is_ruined }
    }

    /// The error relative to the output.
    pub(crate) fn error(&self, dequantized: ArrayView3<'_, f32>) -> Result<f64, QuantError> {
        Ok(self.measure(dequantized)?.error)
    }

    /// `|X W - X~ Q|_F^2 / n`, about the mean where the layer has a bias to correct: the error that solvers see.
    pub(crate) fn spread(&self, dequantized: ArrayView3<'_, f32>) -> Result<f64, QuantError> {
        let lost = Lost::new(&self.yardstick, &errors(self.problem.weights(), dequantized, self.rows)?);
        Ok(if self.problem.corrects_bias() { lost.spread() } else { lost.squares.iter().flatten().sum() })
    }

    /// The error with what it is made of.
    pub(crate) fn measure(&self, dequantized: ArrayView3<'_, f32>) -> Result<Measured, QuantError> {
        let errors = errors(self.problem.weights(), dequantized, self.rows)?;
        let lost = Lost::new(&self.yardstick, &errors);
        let correction = match (self.problem.stats().filter(|_| self.problem.corrects_bias()), &self.calibration) {
            (None, _) => Array2::zeros(lost.means.dim()),
            (Some(stats), None) => lost.correction(stats, self.is_ruined),
            (Some(stats), Some(calibration)) => Lost::new(calibration, &errors).correction(stats, self.is_ruined),
        };
        let error = ratio(lost.after(correction.view())?, self.output);
        let kept = if self.problem.corrects_bias() { lost.kept(correction.view()) } else { 0.0 };
        Ok(Measured { error, correction, kept })
    }
}

fn errors(
    weights: ArrayView3<'_, f32>,
    dequantized: ArrayView3<'_, f32>,
    stats: &[GramStats],
) -> Result<Array3<f64>, QuantError> {
    if dequantized.dim() != weights.dim() {
        return Err(shape_error("dequantized weights", dequantized.shape(), format!("{:?}", weights.shape())));
    }
    let (groups, k, _) = weights.dim();
    let inputs: Vec<usize> = stats.iter().map(GramStats::k).collect();
    if inputs != vec![k; groups] {
        return Err(shape_error("statistics", &inputs, format!("{groups} groups of {k} inputs")));
    }
    let mut errors = weights.mapv(f64::from);
    errors.zip_mut_with(&dequantized, |error, level| *error -= f64::from(*level));
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gaussian_rows;
    use ndarray::Axis;

    #[test]
    fn with_drift_the_error_is_that_between_both_networks() {
        let seen = gaussian_rows(50, 6, 3) + 1.0;
        let reference = &seen + &(gaussian_rows(50, 6, 4) * 0.2 + 0.1);
        let mut accumulator = crate::PairedAccumulator::new(6).unwrap();
        accumulator.push(seen.view(), reference.view()).unwrap();
        let stats = [accumulator.finish().unwrap()];
        let weights = Array3::from_shape_fn((1, 6, 2), |(_, k, m)| (k as f32 - 2.5) * 0.3 + m as f32);
        let rounded = weights.mapv(f32::round);
        let correction = mean_correction(weights.view(), rounded.view(), &stats).unwrap();
        let found = corrected_error(weights.view(), rounded.view(), correction.view(), &stats).unwrap();
        let apply =
            |rows: &Array2<f32>, w: &Array3<f32>| rows.mapv(f64::from).dot(&w.index_axis(Axis(0), 0).mapv(f64::from));
        let whole = apply(&reference, &weights);
        let left: Array2<f64> = &whole - &apply(&seen, &rounded) - &correction;
        let norm = |a: &Array2<f64>| a.iter().map(|v| v * v).sum::<f64>().sqrt();
        assert!((found - norm(&left) / norm(&whole)).abs() < 1e-5, "{found}");
        check(&correction, &(left + &correction), 50.0);
    }

    /// The correction is the mean of what is lost, less what may be chance.
    fn check(correction: &Array2<f64>, lost: &Array2<f64>, samples: f64) {
        let means: Vec<f64> = lost.columns().into_iter().map(|lost| lost.mean().unwrap()).collect();
        let power: f64 = means.iter().map(|mean| mean * mean).sum();
        let chance: f64 = lost.columns().into_iter().map(|lost| lost.var(0.0) / samples).sum();
        for (found, mean) in correction.iter().zip(means) {
            let wanted = mean * (1.0 - chance / power).max(0.0);
            assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        }
    }

    #[test]
    fn a_mean_that_may_be_chance_is_left_alone() {
        assert_eq!([trusted(2.0, 0.0), trusted(2.0, 1.0)], [1.0, 0.5]);
        assert_eq!([trusted(1.0, 1.0), trusted(0.0, 0.0), trusted(0.0, 1.0)], [0.0; 3]);
        // Rows of one sample are one observation.
        let rows = gaussian_rows(40, 6, 3);
        let weights = Array3::from_shape_fn((1, 6, 2), |(_, k, m)| (k as f32 - 2.5) * 0.3 + m as f32);
        let corrected = |samples: usize| {
            let stats = [GramStats::from_rows(rows.view()).unwrap().with_samples(samples)];
            mean_correction(weights.view(), weights.mapv(f32::round).view(), &stats).unwrap()
        };
        assert!(corrected(1).iter().zip(&corrected(40)).all(|(one, many)| one.abs() <= many.abs()));
        assert!(corrected(1).iter().all(|c| *c == 0.0));
    }

    #[test]
    fn ruined_inputs_have_no_mean_to_correct() {
        let reference = gaussian_rows(40, 6, 3);
        let weights = Array3::from_shape_fn((1, 6, 2), |(_, k, m)| (k as f32 - 2.5) * 0.3 + m as f32);
        let corrected = |seen: Array2<f32>| {
            let mut accumulator = crate::PairedAccumulator::new(6).unwrap();
            accumulator.push(seen.view(), reference.view()).unwrap();
            mean_correction(weights.view(), weights.view(), &[accumulator.finish().unwrap()]).unwrap()
        };
        // An offset is a mean and no more; noise of nine times the power is.
        assert!(corrected(&reference + 5.0).iter().any(|c| c.abs() > 1.0));
        assert!(corrected(&gaussian_rows(40, 6, 4) * 3.0 + 5.0).iter().all(|c| *c == 0.0));
    }

    #[test]
    fn correction_leaves_the_error_that_the_rows_themselves_give() {
        let rows = gaussian_rows(40, 6, 3).mapv(|x| x + 2.0);
        let weights = Array3::from_shape_fn((1, 6, 2), |(_, k, m)| (k as f32 - 2.5) * 0.3 + m as f32);
        let rounded = weights.mapv(f32::round);
        let stats = [GramStats::from_rows(rows.view()).unwrap()];
        let correction = mean_correction(weights.view(), rounded.view(), &stats).unwrap();
        let found = corrected_error(weights.view(), rounded.view(), correction.view(), &stats).unwrap();

        let x = rows.mapv(f64::from);
        let difference = (&weights - &rounded).index_axis(Axis(0), 0).mapv(f64::from);
        let left: Array2<f64> = x.dot(&difference) - &correction;
        let whole = x.dot(&weights.index_axis(Axis(0), 0).mapv(f64::from));
        let norm = |a: &Array2<f64>| a.iter().map(|v| v * v).sum::<f64>().sqrt();
        assert!((found - norm(&left) / norm(&whole)).abs() < 1e-6);
        check(&correction, &(left + &correction), 40.0);
    }
}
