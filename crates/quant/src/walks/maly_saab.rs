//! Maly and Saab's quantization (`maly-saab`): saturate, then round.
//!
//! # Problem
//!
//! Replace a neuron `w` with `|w_i| <= c` by weights that act on the data in the
//! same way and are `+c` or `-c` but for at most rank(X) of them; these ends are
//! levels already, so that only the few others suffer from rounding.
//!
//! # Shapes and units
//!
//! `c` in units of the weights: the largest |w| of the layer, the neuron or the
//! block, as the granularity says; the walls are the real numbers of the grid's
//! first and last code (not symmetric for a grid that is not).
//!
//! # Method
//!
//! [`Saturation::Max`]: the kernel walk ([`crate::walks::walk`]) from `w`.
//! [`Saturation::Min`]: the smallest factor on `c` for which the data can still
//! be reproduced is found first ([`crate::walks::min_norm`]); the walk starts from that
//! solution. Blocks shrink by a common factor per neuron; per tensor the largest
//! factor of all neurons counts. Then the nearest level.
//!
//! # Guarantee
//!
//! With `I` the unsaturated weights, `|I| <= rank(X)`:
//!
//! ```text
//! |X w - X q| <= sigma_max(X_I) * sqrt(|I|) * step / 2
//! ```
//!
//! For Gaussian data the relative error falls like sqrt(m log N / N) with N
//! inputs and m rows, with `Saturation::Min` like m / N.
//!
//! # Cost
//!
//! O(K r^2) a neuron; `Saturation::Min` a few times r steps of O(K r) more.
//!
//! # Failure
//!
//! As [`crate::walks::walk`]. New data lie outside the guarantee: weights move by up to 2c, so let held-out rows judge.
//!
//! # References
//!
//! arXiv 2209.03487; see [`crate::walks::walk`].

use crate::error::QuantError;
use crate::layer::grid::Affine;
use crate::layer::method::Saturation;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::scale_type::Rounding;
use crate::layer::solution::{LayerSolution, Note};
use crate::layer::spec::{Granularity, ScaleRule};
use crate::walks::kernel::Kernel;
use crate::walks::min_norm;
use crate::walks::preprocess;
use crate::walks::walls::Walls;

/// Keeps the least-norm solution inside the walls after `f32` has rounded them.
const ROOM: f64 = 1.0 + 4.0 * f32::EPSILON as f64;

pub(crate) fn solve(
    problem: &LayerProblem<'_>,
    saturation: Saturation,
    kernels: &[Kernel],
) -> Result<LayerSolution, QuantError> {
    let table = ScaleTable::fit(problem, ScaleRule::Max);
    let mut solution = match saturation {
        Saturation::Max => saturate(problem, kernels, &table, |g, m| preprocess::neuron(problem, g, m)),
        Saturation::Min => saturate_least(problem, kernels, &table),
    }?;
    if problem.spec().scale_rule() != ScaleRule::Max {
        solution.notes.push(Note::ScaleRuleUnused);
    }
    Ok(solution)
}

fn saturate(
    problem: &LayerProblem<'_>,
    kernels: &[Kernel],
    table: &ScaleTable,
    start: impl Fn(usize, usize) -> Vec<f64> + Sync,
) -> Result<LayerSolution, QuantError> {
    let walls = |g, m| ends(problem, table, g, m);
    preprocess::walk_and_round(problem, kernels, table, start, walls)
}

fn saturate_least(
    problem: &LayerProblem<'_>,
    kernels: &[Kernel],
    table: &ScaleTable,
) -> Result<LayerSolution, QuantError> {
    let least = problem.map_neurons(|g, m| {
        let start = preprocess::neuron(problem, g, m);
        let walls = ends(problem, table, g, m)?;
        match &kernels[g] {
            Kernel::Trivial { .. } => Ok((start, 1.0)),
            Kernel::Walkable(directions) => Ok(min_norm::shrink(directions, &start, &walls)),
        }
    });
    let least = least.into_iter().collect::<Result<Vec<_>, QuantError>>()?;
    let largest = least.iter().fold(0.0f64, |largest, (_, factor)| largest.max(*factor));
    let shrunk = |(index, (_, factor)): (usize, &(Vec<f64>, f64))| {
        let (g, m) = (index / problem.outputs(), index % problem.outputs());
        let factor = match problem.spec().granularity() {
            Granularity::Tensor => largest,
            _ => *factor,
        };
        let blocks = table.blocks(g, m);
        let shrink = |affine: Affine| {
            problem.spec().affine(factor * ROOM * f64::from(affine.scale()), affine.zero_point(), Rounding::Up)
        };
        blocks.into_iter().map(shrink).collect()
    };
    let columns: Vec<Vec<Affine>> = least.iter().enumerate().map(shrunk).collect();
    let table = ScaleTable::from_columns(problem, &columns);
    saturate(problem, kernels, &table, |g, m| least[g * problem.outputs() + m].0.clone())
}

/// The grid's two ends for every input; a block of zeros stays where it is.
fn ends(problem: &LayerProblem<'_>, table: &ScaleTable, g: usize, m: usize) -> Result<Walls, QuantError> {
    let grid = problem.spec().grid();
    let weights = problem.neuron(g, m);
    let (mut lower, mut upper) = (Vec::new(), Vec::new());
    for (block, weights) in weights.chunks(table.block_size()).enumerate() {
        let affine = table.at(g, block * table.block_size(), m);
        let (least, greatest) = if weights.iter().all(|w| *w == 0.0) { (0.0, 0.0) } else { affine.ends(grid) };
        lower.extend(weights.iter().map(|_| f64::from(least)));
        upper.extend(weights.iter().map(|_| f64::from(greatest)));
    }
    Walls::new(lower, upper)
}
