//! What a solver returns.

use crate::layer::alphabet::Alphabet;
use crate::layer::grid::Affine;
use crate::layer::method::Method;
use crate::layer::outcome::Outcome;
use crate::layer::pairs::{self, PairRule};
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use ndarray::{Array3, Axis};
use rayon::prelude::*;
use serde::Serialize;
use std::fmt;

/// Codes of one layer, what they mean, and what the solver claims about them.
#[derive(Clone, Debug)]
pub struct LayerSolution {
    /// `[groups, K, M]`.
    pub codes: Array3<i16>,
    /// `[groups, blocks, M]`; per tensor all equal.
    pub scales: Array3<f32>,
    /// `[groups, blocks, M]`.
    pub zero_points: Array3<i16>,
    /// Inputs per block: K unless the granularity is `Block`.
    pub block_size: usize,
    /// What codes stand for.
    pub alphabet: Alphabet,
    /// Weights `[groups, K, M]` that act on the data as the original ones do and
    /// were rounded instead of them, if the method made such; the certificate
    /// checks the claim.
    pub preprocessed: Option<Array3<f64>>,
    /// What the method says of its error, if it can.
    pub promise: Option<Promise>,
    /// What a reader of the report should know.
    pub notes: Vec<Note>,
}

/// What a method knew of its error before it chose the last codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    /// The real weights that were rounded, `[groups, K, M]`.
    pub target: Array3<f32>,
    /// Bound of the nearest plane for what rounding them adds, over all neurons:
    /// `sum_i (step_i / 2)^2 L_ii^2`, with `A = L L^T` and step i the wider gap beside the level that was chosen.
    pub rounding: f64,
    /// Neurons that are beyond it because codes were clipped.
    pub broken: usize,
    /// What some codes would leave of the same target at most, over all neurons, as a square; infinite where weights lie
    /// beyond their grids. See [`crate::Certificate::attainable`].
    pub attainable: f64,
    /// Of the data with the damping that was used, over all groups.
    pub effective_dimension: f64,
}

impl LayerSolution {
    /// Rounds `values(group, k, output)` on the scales of `table`.
    pub(crate) fn round(
        problem: &LayerProblem<'_>,
        table: &ScaleTable,
        values: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> LayerSolution {
        let grid = problem.spec().grid();
        let code = |g, k, m| table.at(g, k, m).quantize(values(g, k, m), grid);
        let mut codes = by_rows(problem.weights().dim(), |g, k, row| {
            row.iter_mut().enumerate().for_each(|(m, slot)| *slot = code(g, k, m));
        });
        for (first, second) in problem.pairs() {
            for (g, m) in (0..problem.groups()).flat_map(|g| (0..problem.outputs()).map(move |m| (g, m))) {
                if PairRule::allows(codes[[g, first, m]], codes[[g, second, m]]) {
                    continue;
                }
                let steps = |k| values(g, k, m) / table.at(g, k, m).scale();
                let cost = |k: usize| problem.stats().map_or(1.0, |stats| stats[g].mean_square()[k]);
                let nearest = pairs::nearest([steps(first), steps(second)], [cost(first), cost(second)]);
                [codes[[g, first, m]], codes[[g, second, m]]] = nearest;
            }
        }
        LayerSolution {
            codes,
            scales: table.affine().mapv(|affine| affine.scale()),
            zero_points: table.affine().mapv(|affine| affine.zero_point()),
            block_size: table.block_size(),
            alphabet: grid.alphabet(),
            preprocessed: None,
            promise: None,
            notes: Vec::new(),
        }
    }

    /// The weights the runtime will use, `[groups, K, M]`.
    pub fn dequantize(&self) -> Array3<f32> {
        let block_size = self.block_size.max(1);
        by_rows(self.codes.dim(), |g, k, row| {
            let scales = self.scales.index_axis(Axis(0), g);
            let zero_points = self.zero_points.index_axis(Axis(0), g);
            let codes = self.codes.index_axis(Axis(0), g);
            let block = scales.row(k / block_size).into_iter().zip(zero_points.row(k / block_size));
            let affine = block.map(|(scale, zero_point)| Affine::new(*scale, *zero_point));
            for ((weight, affine), code) in row.iter_mut().zip(affine).zip(codes.row(k)) {
                *weight = affine.map_or(f32::NAN, |affine| affine.with_alphabet(self.alphabet).dequantize(*code));
            }
        })
    }
}

/// Rows that one thread fills at least.
const ROWS_TOGETHER: usize = 32;

/// An array `[groups, K, M]` of which `fill` fills every row of M elements, in parallel.
fn by_rows<T: Clone + Default + Send>(
    (groups, inputs, outputs): (usize, usize, usize),
    fill: impl Fn(usize, usize, &mut [T]) + Sync,
) -> Array3<T> {
    let mut elements = vec![T::default(); groups * inputs * outputs];
    let rows = elements.par_chunks_mut(outputs.max(1)).enumerate().with_min_len(ROWS_TOGETHER);
    rows.for_each(|(row, slots)| fill(row / inputs, row % inputs, slots));
    Array3::from_shape_vec((groups, inputs, outputs), elements).expect("as many elements as the shape has")
}

/// A fact about a solution that is not an error.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Note {
    /// The data leave no direction in which the weights could move.
    KernelTrivial {
        /// Group of the layer.
        group: usize,
        /// Rank of the data.
        rank: usize,
        /// K.
        inputs: usize,
    },
    /// The walk ran.
    Walked {
        /// Group of the layer.
        group: usize,
        /// Rank of the data.
        rank: usize,
        /// K.
        inputs: usize,
    },
    /// The method fixes the scale itself; the rule that was asked for is not used.
    ScaleRuleUnused,
    /// Weights beyond the grid's ends were cut to them before the walk.
    Clipped {
        /// How many.
        weights: usize,
    },
    /// The method that was asked for does worse than rounding on rows that it has not seen.
    FellBack {
        /// The method.
        method: Method,
        /// What became of it.
        outcome: Outcome,
    },
    /// What the codes were fitted to.
    Retargeted {
        /// How far the weights were moved towards those that reproduce the float network's outputs: 0 not at all, 1 all
        /// the way.
        share: f64,
        /// The damping, as a fraction of the mean diagonal.
        damping: f64,
        /// Whether both were chosen on held-out rows.
        judged: bool,
    },
    /// The Gram matrix was not positive definite with the damping that was asked for.
    DampingRaised {
        /// Group of the layer.
        group: usize,
        /// What was needed, as a fraction of the mean diagonal.
        damping: f64,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::KernelTrivial { group, rank, inputs } => {
                write!(f, "group {group}: kernel trivial: rank {rank} of {inputs}; rounded without pre-processing")
            }
            Note::Walked { group, rank, inputs } => {
                write!(f, "group {group}: walked in a kernel of {} of {inputs} dimensions", inputs - rank)
            }
            Note::ScaleRuleUnused => f.write_str("the method fixes the scale itself; the scale rule was not used"),
            Note::Clipped { weights } => {
                write!(f, "{weights} weights beyond the grid were cut to its ends before the walk")
            }
            Note::FellBack { method, outcome } => write!(f, "rounded instead of {method}: {outcome}"),
            Note::Retargeted { share, damping, judged } => {
                let chosen = if *judged { ", chosen on held-out rows" } else { "" };
                write!(f, "fitted to {share} of the way to the float network's outputs, damping {damping}{chosen}")
            }
            Note::DampingRaised { group, damping } => {
                write!(f, "group {group}: the Gram matrix needed damping {damping:.0e} to be factored")
            }
        }
    }
}
