//! Moves the spread of activations into the weights, channel by channel.
//!
//! # Problem
//!
//! A layer computes `x W`. With one scale for all K channels of `x`, the widest channel sets the step of all. Since
//! `x W = (x / d) (diag(d) W)` for any positive `d`, wide channels can be made narrow at the price of larger weights
//! in their rows. Which `d` leaves the least error?
//!
//! # Shapes and units
//!
//! `d`: K factors, geometric mean 1. Ranges and weights in their own units.
//!
//! # Method
//!
//! For each exponent `a` of a grid, `d_k = range_k^a / weight_k^(1 - a)` with the largest magnitudes of the channel and
//! of its row of weights. Of all and of `d = 1` the one with the least expected squared error of the output,
//!
//! ```text
//! mean_s step_s^2 / 12 * sum_k d_k^2 |W_k|^2   +   sum_m step_m^2 / 12 * sum_k E[x_k^2] / d_k^2
//! ```
//!
//! where `step_s` is the range of sample `s` over all channels by 255 and `step_m` the largest weight of output `m` by
//! 127: rounding errors of activations and of weights, each uniform and independent.
//!
//! # Cost
//!
//! O((S K + K M) A) for S samples, M outputs and A exponents.
//!
//! # References
//!
//! Xiao et al., *SmoothQuant*, arXiv 2211.10438 (the form of `d`); Nagel et al., *Data-free quantization through weight
//! equalization and bias correction*, arXiv 1906.04721.

use ndarray::{ArrayD, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// The axis of a value whose indices are its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChannelAxis {
    /// Inputs of MatMul and Gemm.
    Last,
    /// Inputs of Conv.
    Second,
}

/// The channels of one value over the calibration samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct ChannelRanges {
    /// Smallest value of each channel or 0, sample by sample.
    lowest: Vec<Vec<f32>>,
    /// Largest value of each channel or 0, sample by sample.
    highest: Vec<Vec<f32>>,
    /// Sum of squares of each channel.
    squares: Vec<f64>,
    rows: usize,
}

impl ChannelRanges {
    /// Takes in the values of one sample, whose channels stand along `axis`; other numbers of channels than before are
    /// left out.
    pub fn push(&mut self, sample: &ArrayD<f32>, axis: ChannelAxis) {
        let axis = match axis {
            ChannelAxis::Last => sample.ndim().checked_sub(1),
            ChannelAxis::Second => Some(1).filter(|&axis| axis < sample.ndim()),
        };
        let Some(axis) = axis.map(Axis) else { return };
        let channels = sample.len_of(axis);
        if self.rows > 0 && channels != self.squares.len() {
            return;
        }
        let (mut lowest, mut highest) = (vec![0.0f32; channels], vec![0.0f32; channels]);
        self.squares.resize(channels, 0.0);
        for (k, values) in sample.axis_iter(axis).enumerate() {
            for &x in values {
                lowest[k] = lowest[k].min(x);
                highest[k] = highest[k].max(x);
                self.squares[k] += f64::from(x) * f64::from(x);
            }
        }
        self.rows += sample.len() / channels.max(1);
        self.lowest.push(lowest);
        self.highest.push(highest);
    }

    /// Number of channels.
    pub(crate) fn channels(&self) -> usize {
        self.squares.len()
    }

    /// Mean square of each channel.
    pub(crate) fn mean_squares(&self) -> Vec<f64> {
        self.squares.iter().map(|square| square / self.rows.max(1) as f64).collect()
    }

    /// The step of one scale for all samples and channels divided by `factors`.
    pub(crate) fn step(&self, factors: &[f64]) -> f64 {
        let end = |ends: &[Vec<f32>], pick: fn(f64, f64) -> f64| {
            let of_sample = |ends: &Vec<f32>| ends.iter().zip(factors).map(|(&x, d)| f64::from(x) / d).fold(0.0, pick);
            ends.iter().map(of_sample).fold(0.0, pick)
        };
        (end(&self.highest, f64::max) - end(&self.lowest, f64::min)) / 255.0
    }

    /// The largest magnitude of each channel.
    pub(crate) fn magnitudes(&self) -> Vec<f64> {
        let of = |k: usize| {
            let largest = self.lowest.iter().zip(&self.highest).map(|(low, high)| high[k].max(-low[k]));
            f64::from(largest.fold(0.0, f32::max))
        };
        (0..self.squares.len()).map(of).collect()
    }

    /// The mean over samples of the squared step of one scale for all channels divided by `factors`.
    fn mean_square_step(&self, factors: &[f64]) -> f64 {
        let step = |low: &Vec<f32>, high: &Vec<f32>| {
            let end = |ends: &Vec<f32>, pick: fn(f64, f64) -> f64| {
                ends.iter().zip(factors).map(|(&x, d)| f64::from(x) / d).fold(0.0, pick)
            };
            (end(high, f64::max) - end(low, f64::min)) / 255.0
        };
        let steps = self.lowest.iter().zip(&self.highest).map(|(low, high)| step(low, high).powi(2));
        steps.sum::<f64>() / self.lowest.len().max(1) as f64
    }
}

/// As JSON: sums as bits, so that what is read back equals what was written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    lowest: Vec<Vec<f32>>,
    highest: Vec<Vec<f32>>,
    squares_bits: Vec<u64>,
    rows: usize,
}

impl From<ChannelRanges> for Stored {
    fn from(ranges: ChannelRanges) -> Stored {
        let squares_bits = ranges.squares.iter().map(|square| square.to_bits()).collect();
        Stored { lowest: ranges.lowest, highest: ranges.highest, squares_bits, rows: ranges.rows }
    }
}

impl TryFrom<Stored> for ChannelRanges {
    type Error = String;

    fn try_from(stored: Stored) -> Result<ChannelRanges, String> {
        let squares: Vec<f64> = stored.squares_bits.into_iter().map(f64::from_bits).collect();
        let fits = |ends: &Vec<f32>| ends.len() == squares.len() && ends.iter().all(|x| x.is_finite());
        let ends = stored.lowest.iter().chain(&stored.highest);
        let sums = squares.iter().all(|square| square.is_finite() && *square >= 0.0);
        if stored.lowest.len() != stored.highest.len() || !ends.into_iter().all(fits) || !sums {
            return Err("the ranges of channels do not have one finite number a channel".to_owned());
        }
        Ok(ChannelRanges { lowest: stored.lowest, highest: stored.highest, squares, rows: stored.rows })
    }
}

/// Exponents that are tried.
const EXPONENTS: [f64; 9] = [0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0];
/// Factors must leave at most this part of the error: they may cost a multiplication at run time.
const WORTHWHILE: f64 = 0.6;

/// The factors `d` for the layers with these weights `[K, M]`, which all read the value; `None` where none is worth it.
pub fn migration_factors(ranges: &ChannelRanges, weights: &[ArrayView2<'_, f32>]) -> Option<Vec<f32>> {
    let k = ranges.squares.len();
    if k == 0 || weights.iter().any(|weights| weights.nrows() != k) {
        return None;
    }
    let magnitudes = ranges.magnitudes();
    let rows: Vec<f64> = (0..k).map(|k| largest(weights.iter().flat_map(|weights| weights.row(k)))).collect();
    let error = |factors: &[f64]| expected_error(ranges, weights, factors);
    let plain = error(&vec![1.0; k]);
    let tried = EXPONENTS.map(|exponent| {
        let factors = factors(&magnitudes, &rows, exponent);
        (error(&factors), factors)
    });
    let (least, factors) = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    (least < WORTHWHILE * plain).then(|| factors.into_iter().map(|d| d as f32).collect())
}

fn largest<'a>(numbers: impl Iterator<Item = &'a f32>) -> f64 {
    f64::from(numbers.fold(0.0f32, |largest, x| largest.max(x.abs())))
}

/// `range^a / weight^(1 - a)`, geometric mean 1; channels that are never used keep 1.
pub(crate) fn factors(magnitudes: &[f64], rows: &[f64], exponent: f64) -> Vec<f64> {
    let logarithm =
        |(x, w): (&f64, &f64)| (*x > 0.0 && *w > 0.0).then(|| exponent * x.ln() - (1.0 - exponent) * w.ln());
    let logarithms: Vec<Option<f64>> = magnitudes.iter().zip(rows).map(logarithm).collect();
    let used = logarithms.iter().flatten().count().max(1);
    let mean = logarithms.iter().flatten().sum::<f64>() / used as f64;
    // Far beyond what real channels need, and safe in f32.
    logarithms.iter().map(|log| log.map_or(1.0, |log| (log - mean).clamp(-12.0, 12.0).exp())).collect()
}

fn expected_error(ranges: &ChannelRanges, weights: &[ArrayView2<'_, f32>], factors: &[f64]) -> f64 {
    let mean_squares: f64 =
        ranges.squares.iter().zip(factors).map(|(square, d)| square / ranges.rows.max(1) as f64 / (d * d)).sum();
    let (mut gain, mut steps) = (0.0, 0.0);
    for weights in weights {
        let mut largest = vec![0.0f64; weights.ncols()];
        for (row, d) in weights.rows().into_iter().zip(factors) {
            for (largest, &w) in largest.iter_mut().zip(row) {
                let scaled = f64::from(w) * d;
                gain += scaled * scaled;
                *largest = largest.max(scaled.abs());
            }
        }
        steps += largest.iter().map(|largest| (largest / 127.0).powi(2)).sum::<f64>();
    }
    (ranges.mean_square_step(factors) * gain + steps * mean_squares) / 12.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gaussian_rows;
    use ndarray::Array2;

    fn ranges(rows: &Array2<f32>) -> ChannelRanges {
        let mut ranges = ChannelRanges::default();
        rows.axis_chunks_iter(Axis(0), 10)
            .for_each(|sample| ranges.push(&sample.to_owned().into_dyn(), ChannelAxis::Last));
        ranges
    }

    /// Squared error of `x W` with 8-bit codes for x (per sample of 10 rows) and W (per output).
    fn measured(rows: &Array2<f32>, weights: &Array2<f32>, factors: &[f32]) -> f64 {
        let round = |values: &mut [f32], step: f32| values.iter_mut().for_each(|x| *x = (*x / step).round() * step);
        let mut scaled = Array2::from_shape_fn(weights.dim(), |(k, m)| weights[[k, m]] * factors[k]);
        for mut column in scaled.columns_mut() {
            let step = column.iter().fold(0.0f32, |largest, w| largest.max(w.abs())) / 127.0;
            column.mapv_inplace(|w| (w / step).round() * step);
        }
        let mut error = 0.0;
        for sample in rows.axis_chunks_iter(Axis(0), 10) {
            let mut x = Array2::from_shape_fn(sample.dim(), |(i, k)| sample[[i, k]] / factors[k]);
            let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), x| (low.min(*x), high.max(*x)));
            round(x.as_slice_mut().unwrap(), (high - low) / 255.0);
            error += (x.dot(&scaled) - sample.dot(weights)).iter().map(|e| f64::from(*e).powi(2)).sum::<f64>();
        }
        error
    }

    #[test]
    fn an_outlier_channel_is_moved_into_the_weights() {
        let mut rows = gaussian_rows(200, 24, 1);
        rows.column_mut(5).mapv_inplace(|x| 60.0 * x);
        let weights = gaussian_rows(24, 16, 2);
        let factors = migration_factors(&ranges(&rows), &[weights.view()]).unwrap();
        let product: f64 = factors.iter().map(|d| f64::from(d.ln())).sum();
        assert!(product.abs() < 1e-3 && factors[5] > 4.0 * factors[4]);
        let (before, after) = (measured(&rows, &weights, &[1.0; 24]), measured(&rows, &weights, &factors));
        assert!(after < 0.3 * before, "{after} {before}");
    }

    #[test]
    fn the_expected_error_is_the_measured_one() {
        let rows = gaussian_rows(400, 32, 3);
        let weights = gaussian_rows(32, 20, 4);
        let expected = expected_error(&ranges(&rows), &[weights.view()], &[1.0; 32]) * 400.0;
        let ratio = measured(&rows, &weights, &[1.0; 32]) / expected;
        assert!((0.8..1.25).contains(&ratio), "{ratio}");
    }

    #[test]
    fn ranges_read_back_are_those_written_and_others_are_refused() {
        let ranges = ranges(&gaussian_rows(50, 6, 9));
        let json = serde_json::to_string(&ranges).unwrap();
        assert_eq!(serde_json::from_str::<ChannelRanges>(&json).unwrap(), ranges);
        for bad in [json.replacen("rows", "lines", 1), json.replacen("squares_bits\":[", "squares_bits\":[1,", 1)] {
            assert!(serde_json::from_str::<ChannelRanges>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn channels_of_the_second_axis_are_those_of_the_last_one_turned() {
        let rows = gaussian_rows(40, 6, 11);
        let mut turned = ChannelRanges::default();
        for sample in rows.axis_chunks_iter(Axis(0), 10) {
            turned.push(&sample.t().to_owned().insert_axis(Axis(0)).into_dyn(), ChannelAxis::Second);
        }
        assert_eq!(turned, ranges(&rows));
    }

    #[test]
    fn even_channels_dead_channels_and_no_data_are_left_alone() {
        let weights = gaussian_rows(12, 8, 6);
        assert!(migration_factors(&ranges(&gaussian_rows(100, 12, 5)), &[weights.view()]).is_none());
        assert!(migration_factors(&ranges(&Array2::zeros((20, 12))), &[weights.view()]).is_none());
        assert!(migration_factors(&ChannelRanges::default(), &[weights.view()]).is_none());
    }
}
