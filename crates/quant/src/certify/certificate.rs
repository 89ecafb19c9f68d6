//! Checks a solution without trusting the solver.
//!
//! # Problem
//!
//! Given a layer problem and a solution of it, say how large the layer's error
//! is on the calibration data, and whether the method's bound holds for it.
//!
//! # Method
//!
//! Everything is recomputed from the moments of [`crate::stats::layer_error`], the weights, the codes and
//! what they mean; no number of the solver is used except its claim. Per layer, over all neurons and groups:
//!
//! ```text
//! achieved = |X W - X~ Q - 1 c^T|_F / |X W|_F        c: the correction of the bias, where there is one
//! ```
//!
//! A walk claims `w^`, the weights it says it rounded:
//!
//! ```text
//! bound = sqrt(sum_j b_j^2) / |X W|_F
//! b_j   = |D w| + |X~ (w - w^)| + sigma_max(X~_I) * |half steps on I|
//! ```
//!
//! Error feedback promises ([`Promise`](crate::Promise)) that rounding its target W* adds no more than the bound of the
//! nearest plane, for the scales from which it started; later steps only lower what it adds:
//!
//! ```text
//! bound^2 = ((t + r + u)^2 + n |m - c|^2) / |X W|_F^2
//! t       = |P (X W - X~ W*)|_F
//! r       = sqrt(n sum_j sum_i (step_ij / 2)^2 L_ii^2)
//! u       = sqrt(n sum_j (sum_k |P x~_k| |w*_kj - q_kj|)^2)      over inputs k that are in no form
//! ```
//!
//! Where the layer has a bias to correct, P takes the mean off, for the solver does so: of the mean m of `X W - X~ Q` it
//! promises nothing. The bias takes off c, as much as is no chance ([`crate::bias`]), and what stays is counted as it is.
//! Where the bias is fixed, P changes nothing and the term in `m - c` is not there.
//!
//! For the same scales there are codes that leave at most this once the bias takes off the whole mean:
//!
//! ```text
//! attainable = (t + a + u) / |X W|_F,      a = sqrt(n sum_j (max_i step_ij / 2)^2 (max_i H_ii + l) d(l))
//! ```
//!
//! where step ij is the wider gap beside the level of a weight and `d(l)` is the effective dimension of the data with damping l (Harshaw et al., arXiv 1911.03071).
//!
//! `X~` are the inputs once earlier layers are quantized and `D = X - X~`; where statistics were gathered in one
//! network only, `X~ = X` and `D = 0`. In the formulas, `H = X~^T X~ / n`. Here
//! `I` are the inputs of neuron j at which `w^` is not the level that its
//! code means. With one scale per neuron and equidistant levels the last factor is `sqrt(|I|) step / 2`.
//!
//! # Guarantee
//!
//! `achieved <= bound` in exact arithmetic. The bound is given only if every
//! [`HypothesisKind`] holds.
//!
//! # Numerics
//!
//! `f64`; the levels are those the runtime computes in `f32`. `sigma_max` is the
//! root of the largest eigenvalue of `H` restricted to I (of all of `H` where I is
//! more than half of the inputs, which can only make the bound larger). An error seen through
//! `H` is a root of a difference: relative errors below about 1e-8 are noise.
//!
//! # Cost
//!
//! O(K^2 M) for the error, O(|I|^3) a neuron for the bound.
//!
//! # Failure
//!
//! A solution of the wrong shape, with a code off the grid or with an unusable
//! scale is rejected with an error. Without a Gram matrix `achieved` is `None`.

use crate::certify::bias::{Measured, Remaining, bias_correction};
use crate::error::QuantError;
use crate::layer::grid::Affine;
use crate::layer::pairs::PairRule;
use crate::layer::problem::LayerProblem;
use crate::layer::solution::{LayerSolution, Promise};
use crate::linalg;
use crate::stats::gram::GramStats;
use crate::stats::layer_error::{drift_energies, energies, ratio};
use crate::stats::live::dead_inputs;
use faer::Mat;
use ndarray::{Array2, Array3, Axis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest relative change of `X W` by pre-processing that still counts as none.
const PRESERVED: f64 = 1e-6;
/// How far beyond the grid's end, in steps, a weight may lie by rounding alone.
const OUTSIDE: f64 = 1e-6;
/// Half a step, and what `f32` adds to it.
const HALF_STEP: f64 = 0.5 + 1e-4;

/// What the bound rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HypothesisKind {
    /// The pre-processed weights act on the data as the original ones;
    /// value: `|X (W^ - W)|_F / |X W|_F`.
    OutputPreserved,
    /// They lie inside the grid; value: steps beyond its end.
    InsideGrid,
    /// Each was rounded to a nearest level; value: steps to its level.
    NearestLevel,
    /// Error feedback left no neuron beyond the bound of the nearest plane, as clipped codes may;
    /// value: neurons beyond it.
    NearestPlane,
    /// No neuron has more weights off their levels than the data can have rank;
    /// value: the largest number.
    FewUnsaturated,
}

/// One hypothesis, as found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hypothesis {
    /// Which.
    pub kind: HypothesisKind,
    /// What was found.
    pub value: f64,
    /// The largest value with which it holds.
    pub limit: f64,
    /// Whether it holds.
    pub holds: bool,
}

/// What is certain about a quantized layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// Relative error of the layer's output on the calibration data.
    pub achieved: Option<f64>,
    /// What it cannot exceed by what the method promises; no promise is about other rows than these.
    pub bound: Option<f64>,
    /// Relative error that some codes are known not to exceed, on the scales that were fitted first, where no weight lies
    /// beyond its grid and the bias takes off the whole mean: rows as many as they may, it is the effective dimension of the
    /// data that counts.
    pub attainable: Option<f64>,
    /// How many dimensions the data have, in the sense of `attainable`, over all groups.
    pub effective_dimension: Option<f64>,
    /// The hypotheses of the bound; empty if the method claims none.
    pub hypotheses: Vec<Hypothesis>,
    /// The largest number of weights of a neuron that were off their levels.
    pub max_unsaturated: Option<usize>,
    /// Calibration rows behind all this.
    pub n_rows: Option<usize>,
    /// The largest change of a weight, from the original to what the codes mean.
    pub max_abs_change: f64,
}

/// A solution that was measured.
#[derive(Clone, Debug)]
pub struct Certified {
    /// What is certain about it.
    pub certificate: Certificate,
    /// What is added to the bias of each output, `[groups, M]`; zeros where the problem has no bias to correct
    /// ([`bias_correction`]).
    pub correction: Array2<f64>,
}

/// Checks `solution` against `problem`.
pub fn certify(problem: &LayerProblem<'_>, solution: &LayerSolution) -> Result<Certified, QuantError> {
    check(problem, solution)?;
    let decoded = solution.dequantize();
    let most = |most: f64, (w, level): (&f32, &f32)| most.max((f64::from(*w) - f64::from(*level)).abs());
    let mut certificate = Certificate {
        achieved: None,
        bound: None,
        attainable: None,
        effective_dimension: None,
        hypotheses: Vec::new(),
        max_unsaturated: None,
        n_rows: problem.stats().map(|stats| stats[0].n_rows()),
        max_abs_change: problem.weights().iter().zip(&decoded).fold(0.0, most),
    };
    let Some(stats) = problem.stats().filter(|stats| stats.iter().all(|s| s.gram().is_some())) else {
        let correction = bias_correction(problem, decoded.view())?;
        return Ok(Certified { certificate, correction });
    };
    let remaining = Remaining::new(problem, stats);
    let whole = remaining.output;
    let Measured { error, correction, kept } = remaining.measure(decoded.view())?;
    certificate.achieved = Some(error);
    if let Some(promise) = &solution.promise {
        let holds = promise.broken == 0;
        let (kind, value) = (HypothesisKind::NearestPlane, promise.broken as f64);
        certificate.hypotheses.push(Hypothesis { kind, value, limit: 0.0, holds });
        certificate.effective_dimension = Some(promise.effective_dimension);
        if holds || promise.attainable.is_finite() {
            let target = remaining.spread(promise.target.view())?.sqrt() + unseen(problem, promise, &decoded).sqrt();
            let within = |rounding: f64, kept: f64| ratio((target + rounding.sqrt()).powi(2) + kept, whole);
            certificate.bound = holds.then(|| within(promise.rounding, kept));
            certificate.attainable = promise.attainable.is_finite().then(|| within(promise.attainable, 0.0));
        }
    }
    if let Some(claim) = &solution.preprocessed {
        let moved = problem.weights().mapv(f64::from) - claim;
        let claim = Claim { problem, solution, stats, levels: &decoded.mapv(f64::from), moved, weights: claim };
        claim.check(whole, &mut certificate)?;
    }
    Ok(Certified { certificate, correction })
}

/// What rounding the target adds through inputs that are in no form, as a mean square over all neurons; at most.
fn unseen(problem: &LayerProblem<'_>, promise: &Promise, decoded: &Array3<f32>) -> f64 {
    let of_group = |(group, stats): (usize, &GramStats)| {
        let dead = dead_inputs(stats, problem.corrects_bias());
        let change = |k: usize, m: usize| f64::from(promise.target[[group, k, m]]) - f64::from(decoded[[group, k, m]]);
        let of_neuron = |m: usize| dead.iter().map(|&(k, size)| size * change(k, m).abs()).sum::<f64>().powi(2);
        (0..problem.outputs()).map(of_neuron).sum::<f64>()
    };
    problem.stats().into_iter().flatten().enumerate().map(of_group).sum()
}

/// The claim of a solver that rounds other weights than the original ones.
struct Claim<'a, 'p> {
    problem: &'a LayerProblem<'p>,
    solution: &'a LayerSolution,
    stats: &'a [GramStats],
    /// What the codes mean.
    levels: &'a Array3<f64>,
    /// The weights that were rounded.
    weights: &'a Array3<f64>,
    /// How far they are from the original ones.
    moved: Array3<f64>,
}

impl Claim<'_, '_> {
    fn check(&self, output: f64, certificate: &mut Certificate) -> Result<(), QuantError> {
        let grid = self.problem.spec().grid();
        let (mut outside, mut off) = (0.0f64, 0.0f64);
        for ((g, k, m), w) in self.weights.indexed_iter() {
            let affine = affine_at(self.solution, g, k, m)?;
            let step = self.step(g, k, m);
            let (least, greatest) = affine.ends(grid);
            let beyond = (f64::from(least) - w).max(w - f64::from(greatest));
            outside = outside.max(beyond / step);
            off = off.max((w - self.levels[[g, k, m]]).abs() / step);
        }
        let unsaturated = self.unsaturated();
        let most = unsaturated.iter().map(Vec::len).max().unwrap_or(0);
        let rank = self.stats.iter().map(|s| s.n_rows().min(s.k())).max().unwrap_or(0);
        certificate.max_unsaturated = Some(most);
        let preserved = ratio(self.moved_energies().iter().sum(), output);
        let found = [
            (HypothesisKind::OutputPreserved, preserved, PRESERVED),
            (HypothesisKind::InsideGrid, outside, OUTSIDE),
            (HypothesisKind::NearestLevel, off, HALF_STEP),
            (HypothesisKind::FewUnsaturated, most as f64, rank as f64),
        ];
        certificate.hypotheses =
            found.map(|(kind, value, limit)| Hypothesis { kind, value, limit, holds: value <= limit }).to_vec();
        if certificate.hypotheses.iter().all(|hypothesis| hypothesis.holds) {
            let rounding = self.neuron_bounds(&unsaturated)?;
            certificate.bound = Some(ratio(self.combine(&rounding), output));
        }
        Ok(())
    }

    /// `|X~ (w - w^)|^2 / n` of every neuron.
    fn moved_energies(&self) -> Vec<f64> {
        let groups = self.moved.axis_iter(Axis(0)).zip(self.stats);
        groups.flat_map(|(moved, stats)| energies(stats, moved)).collect()
    }

    /// Energies of `b_j = |D w| + |X~ (w - w^)| + rounding_j`, summed.
    fn combine(&self, rounding: &[f64]) -> f64 {
        let weights = self.problem.weights();
        let groups = weights.axis_iter(Axis(0)).zip(self.stats);
        let drifted = groups.flat_map(|(weights, stats)| drift_energies(stats, weights));
        let parts = rounding.iter().zip(self.moved_energies()).zip(drifted);
        parts.map(|((rounding, moved), drifted)| (rounding + moved.sqrt() + drifted.sqrt()).powi(2)).sum()
    }

    /// The wider gap beside the level of a weight.
    fn step(&self, g: usize, k: usize, m: usize) -> f64 {
        let scale = self.solution.scales[[g, k / self.solution.block_size, m]];
        let half_cell = self.problem.spec().grid().half_cell(self.solution.codes[[g, k, m]]);
        f64::from(scale) * 2.0 * f64::from(half_cell)
    }

    /// For every neuron the inputs at which it was off its level.
    fn unsaturated(&self) -> Vec<Vec<usize>> {
        self.problem.map_neurons(|g, m| {
            let off = |k: &usize| self.weights[[g, *k, m]] != self.levels[[g, *k, m]];
            (0..self.problem.inputs()).filter(off).collect()
        })
    }

    /// `sigma_max(X_I) / sqrt(n)` times the norm of the half steps, per neuron.
    /// A neuron with most inputs in I gets `sigma_max(X)` instead, which is no
    /// smaller and the same for all: one eigenvalue problem a group, not one a neuron.
    fn neuron_bounds(&self, unsaturated: &[Vec<usize>]) -> Result<Vec<f64>, QuantError> {
        let most = self.problem.inputs() / 2;
        let all: Vec<usize> = (0..self.problem.inputs()).collect();
        let whole = self.stats.iter().zip(unsaturated.chunks(self.problem.outputs()));
        let whole = whole.map(|(stats, neurons)| {
            let needed = neurons.iter().any(|inputs| inputs.len() > most);
            largest_root(stats, if needed { &all } else { &[] })
        });
        let whole = whole.collect::<Result<Vec<f64>, QuantError>>()?;
        let bounds = self.problem.map_neurons(|g, m| {
            let inputs = &unsaturated[g * self.problem.outputs() + m];
            let halves = inputs.iter().map(|k| (HALF_STEP * self.step(g, *k, m)).powi(2));
            let halves = halves.sum::<f64>().sqrt();
            let root = if inputs.len() > most { whole[g] } else { largest_root(&self.stats[g], inputs)? };
            Ok(halves * root)
        });
        bounds.into_iter().collect()
    }
}

fn largest_root(stats: &GramStats, inputs: &[usize]) -> Result<f64, QuantError> {
    let Some(gram) = stats.gram().filter(|_| !inputs.is_empty()) else {
        return Ok(0.0);
    };
    let part = Mat::from_fn(inputs.len(), inputs.len(), |i, j| gram[[inputs[i], inputs[j]]]);
    let (values, _) = linalg::eigen(part.as_ref(), false)?;
    Ok(values.last().map_or(0.0, |value| value.max(0.0).sqrt()))
}

fn check(problem: &LayerProblem<'_>, solution: &LayerSolution) -> Result<(), QuantError> {
    let reject = |reason: String| Err(QuantError::Rejected(reason));
    let (g, k, m) = problem.weights().dim();
    let block_size = problem.spec().block_size(k);
    let blocks = (g, k.div_ceil(block_size), m);
    let claim = solution.preprocessed.as_ref().map_or((g, k, m), |claim| claim.dim());
    let shapes = [
        ("codes", solution.codes.dim(), (g, k, m)),
        ("scales", solution.scales.dim(), blocks),
        ("zero points", solution.zero_points.dim(), blocks),
        ("pre-processed weights", claim, (g, k, m)),
    ];
    for (what, found, expected) in shapes {
        if found != expected {
            return reject(format!("{what} have shape {found:?}, expected {expected:?}"));
        }
    }
    if solution.block_size != block_size {
        let found = solution.block_size;
        return reject(format!("block size is {found}, expected {block_size}"));
    }
    let grid = problem.spec().grid();
    if solution.alphabet != grid.alphabet() {
        return reject(format!("codes are those of {:?}, expected {:?}", solution.alphabet, grid.alphabet()));
    }
    if let Some((index, code)) = solution.codes.indexed_iter().find(|(_, c)| !grid.contains(**c)) {
        return reject(format!("code {code} at {index:?} is not on the grid"));
    }
    for (first, second) in problem.pairs() {
        for ((g, m), code) in solution.codes.index_axis(Axis(1), first).indexed_iter() {
            let other = solution.codes[[g, second, m]];
            if !PairRule::allows(*code, other) {
                let places = format!("inputs {first} and {second} of group {g}, output {m}");
                return reject(format!("codes {code} and {other} of {places} saturate side by side"));
            }
        }
    }
    for ((g, b, m), zero_point) in solution.zero_points.indexed_iter() {
        let scale = affine_at(solution, g, b * block_size, m)?.scale();
        let scale_type = problem.spec().scale_type();
        if !scale_type.holds(scale) {
            return reject(format!("scale {scale} at {:?} is not a number of type {scale_type:?}", [g, b, m]));
        }
        let codes = grid.min_code()..=grid.max_code();
        let fits = codes.contains(zero_point) && (grid.alphabet().is_integers() || *zero_point == 0);
        if !fits {
            return reject(format!("zero point {zero_point} at {:?} is not on the grid", [g, b, m]));
        }
    }
    let claim = solution.preprocessed.iter().flat_map(|claim| claim.iter());
    if claim.into_iter().any(|w| !w.is_finite()) {
        return reject("pre-processed weights are not finite".into());
    }
    Ok(())
}

fn affine_at(solution: &LayerSolution, g: usize, k: usize, m: usize) -> Result<Affine, QuantError> {
    let block = [g, k / solution.block_size, m];
    Ok(Affine::new(solution.scales[block], solution.zero_points[block])?.with_alphabet(solution.alphabet))
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
