//! The weights that a layer should have in the partly quantized network.
//!
//! # Problem
//!
//! Once earlier layers are quantized, a layer sees `X~ = X - D` instead of `X`. Which real weights reproduce `X W`,
//! and how far should the layer follow them, given that its calibration data are few?
//!
//! # Method
//!
//! ```text
//! W* = W + a A^-1 B' W,      A = H' + damping * mean(diag) * I
//! ```
//!
//! with `H'` and `B'` the moments of [`crate::stats::paired`], less those of the means where the bias takes these off
//! (`H' = H - mu mu^T`, `B' = B - mu d^T`; `mu`, `d` the means of X~ and D). `a = 1` minimises
//! `|X W - X~ W*|^2 / n + damping * mean(diag) * |W - W*|^2`; a smaller share a follows the data less. Cutting the damping
//! has the same aim, for the target and for the rounding that follows.
//!
//! Share and damping are chosen on held-out rows where there are any: some neurons are rounded with error feedback,
//! for each of [`SHARES`] with the usual damping, then for each of [`OTHER_DAMPINGS`] with the best of these. What leaves
//! the least error ([`corrected_error`](crate::corrected_error)) is kept. Without held-out rows: a = 1/2 and the usual damping. Without drift
//! there is nothing to follow and a = 0.
//!
//! # Cost
//!
//! One factorization for each damping; `2 K^2` multiply-adds a neuron for the chosen target.
//!
//! # Failure
//!
//! As [`crate::lattice::quadratic`].
//!
//! # References
//!
//! S. Zhang, H. Zhang, I. Colbert, R. Saab, *Qronos*, arXiv 2505.11695 (a = 1); Y. Arai, Y. Ichikawa,
//! *Quantization error propagation*, arXiv 2504.09629 (a < 1).

use crate::certify::bias::Remaining;
use crate::error::QuantError;
use crate::lattice::quadratic::{Factor, Quadratic};
use crate::lattice::recipe::{self, Forms, Lattice, Recipe, Start};
use crate::layer::problem::LayerProblem;
use crate::layer::spec::ScaleRule;
use crate::linalg;
use crate::stats::gram::GramStats;
use crate::stats::layer_error::chunk_image;
use faer::Mat;
use ndarray::{Array2, Array3, ArrayView2, Axis, Slice};
use rayon::prelude::*;
use std::borrow::Cow;

/// Shares of the way to the target; the first of equals wins.
const SHARES: [f64; 5] = [0.5, 0.75, 1.0, 0.25, 0.0];
/// Dampings that held-out rows choose from, besides the first.
const OTHER_DAMPINGS: [f64; 4] = [0.003, 0.03, 0.1, 0.3];
/// Neurons on which they are tried.
const TRIED_NEURONS: usize = 64;
/// Elements of a layer's factors up to which all dampings are tried at once.
const MOST_TOGETHER: usize = 1 << 22;
/// Neurons whose targets are formed in one matrix product.
const CHUNK: usize = 64;

/// What is to be rounded, and in which metric.
pub(crate) struct Target<'f> {
    /// `W*`, `[groups, K, M]`.
    pub(crate) weights: Array3<f32>,
    pub(crate) factors: Cow<'f, [Factor]>,
    pub(crate) share: f64,
    pub(crate) damping: f64,
    /// Whether held-out rows had the choice.
    pub(crate) judged: bool,
}

/// Chooses share and damping, and forms the target.
pub(crate) fn retarget<'f>(problem: &LayerProblem<'_>, forms: &'f Forms) -> Result<Target<'f>, QuantError> {
    let first = problem.damping();
    let drifted = problem.stats().is_some_and(|stats| stats.iter().any(|stats| stats.drift().is_some()));
    let shares = if drifted { &SHARES[..] } else { &[0.0] };
    let Some(held_out) = problem.held_out() else {
        let weights = moved(problem, forms, &forms.factors, shares[0]);
        let factors = Cow::Borrowed(&forms.factors[..]);
        return Ok(Target { weights, factors, share: shares[0], damping: first, judged: false });
    };
    let trial = Trial::new(problem, held_out)?;
    let mut factors = Cow::Borrowed(&forms.factors[..]);
    let (mut damping, (mut least, share)) = (first, trial.best_share(forms, &factors, shares)?);
    let others = if problem.options().damping().is_some() { &[] } else { &OTHER_DAMPINGS[..] };
    let tried = |other: &f64| {
        let damped = recipe::factors(&forms.forms, *other)?;
        let (error, _) = trial.best_share(forms, &damped, &[share])?;
        Ok((error, *other, damped))
    };
    // Large factors one after the other: each takes all threads, and much memory.
    let elements: usize = forms.forms.iter().map(|form| form.inputs.len().pow(2)).sum();
    for others in others.chunks(if elements > MOST_TOGETHER { 1 } else { others.len().max(1) }) {
        for found in others.par_iter().map(tried).collect::<Vec<Result<_, QuantError>>>() {
            let (error, other, damped) = found?;
            if error < least {
                (least, damping, factors) = (error, other, Cow::Owned(damped));
            }
        }
    }
    let weights = moved(problem, forms, &factors, share);
    Ok(Target { weights, factors, share, damping, judged: true })
}

/// A few neurons of a layer.
struct Trial<'p> {
    problem: LayerProblem<'p>,
    weights: Array3<f32>,
    held_out: &'p [GramStats],
}

impl<'p> Trial<'p> {
    fn new(problem: &LayerProblem<'p>, held_out: &'p [GramStats]) -> Result<Trial<'p>, QuantError> {
        let outputs = problem.outputs();
        let few = (TRIED_NEURONS / problem.groups()).clamp(1, outputs);
        let chosen: Vec<usize> = (0..few).map(|i| i * outputs / few).collect();
        Ok(Trial { problem: *problem, weights: problem.weights().select(Axis(2), &chosen), held_out })
    }

    /// The least error and the share that leaves it.
    fn best_share(&self, forms: &Forms, factors: &[Factor], shares: &[f64]) -> Result<(f64, f64), QuantError> {
        let few = self.problem.with_weights(self.weights.view())?;
        let shifts = shifts(&few, forms, factors);
        let remaining = Remaining::new(&few, self.held_out);
        let error = |share: &f64| {
            let target = add(&few, &shifts, *share);
            let aimed = few.with_weights(target.view())?;
            let recipe = Recipe {
                scale_rule: ScaleRule::LeastSquares,
                multiples: &[1.0],
                start: Start::FeedBack,
                refits: 0,
                sweeps: 0,
            };
            let (solution, _) = Lattice::new(&aimed, &forms.forms, factors).codes(&recipe);
            remaining.error(solution.dequantize().view())
        };
        let errors = shares.par_iter().map(error).collect::<Vec<_>>().into_iter().collect::<Result<Vec<f64>, _>>()?;
        let best = (1..errors.len()).fold(0, |best, i| if errors[i] < errors[best] { i } else { best });
        Ok((errors[best], shares[best]))
    }
}

/// `W + share * A^-1 B' W`.
fn moved(problem: &LayerProblem<'_>, forms: &Forms, factors: &[Factor], share: f64) -> Array3<f32> {
    if share == 0.0 {
        return problem.weights().to_owned();
    }
    add(problem, &shifts(problem, forms, factors), share)
}

fn add(problem: &LayerProblem<'_>, shifts: &[Option<Array2<f32>>], share: f64) -> Array3<f32> {
    let mut target = problem.weights().to_owned();
    for (mut target, shift) in target.outer_iter_mut().zip(shifts) {
        if let Some(shift) = shift {
            target.zip_mut_with(shift, |w, shift| *w += share as f32 * shift);
        }
    }
    target
}

/// `A^-1 B' W` of every group with drift, `[K, M]`; 0 for inputs that are not in the form.
fn shifts(problem: &LayerProblem<'_>, forms: &Forms, factors: &[Factor]) -> Vec<Option<Array2<f32>>> {
    let stats = problem.stats().unwrap_or_default();
    let weights = problem.weights();
    let groups = weights.outer_iter().zip(stats).zip(forms.forms.iter().zip(factors)).collect::<Vec<_>>();
    groups
        .into_par_iter()
        .map(|((weights, stats), (form, factor))| shift(weights, stats, form, factor, problem.corrects_bias()))
        .collect()
}

fn shift(
    weights: ArrayView2<'_, f32>,
    stats: &GramStats,
    form: &Quadratic,
    factor: &Factor,
    centred: bool,
) -> Option<Array2<f32>> {
    let drift = stats.drift()?;
    let mut shift = Array2::zeros(weights.dim());
    let chunks: Vec<usize> = (0..weights.ncols()).step_by(CHUNK).collect();
    let solved: Vec<Mat<f32>> = chunks
        .par_iter()
        .map(|first| {
            let end = weights.ncols().min(first + CHUNK);
            let weights = weights.slice_axis(Axis(1), Slice::from(*first..end));
            let cross = chunk_image(drift.cross(), weights);
            let means = drift.mean().dot(&weights.mapv(f64::from));
            let entry = |i: usize, m: usize| {
                let input = form.inputs[i];
                cross[[input, m]] - if centred { (stats.mean()[input] * means[m]) as f32 } else { 0.0 }
            };
            let mut right = Mat::from_fn(form.inputs.len(), end - first, entry);
            linalg::solve_factored_in_place(factor.lower.as_ref(), right.as_mut());
            right
        })
        .collect();
    for (first, solved) in chunks.into_iter().zip(solved) {
        for m in 0..solved.ncols() {
            for (i, input) in form.inputs.iter().enumerate() {
                shift[[*input, first + m]] = solved[(i, m)];
            }
        }
    }
    Some(shift)
}

#[cfg(test)]
#[path = "retarget_tests.rs"]
mod tests;
