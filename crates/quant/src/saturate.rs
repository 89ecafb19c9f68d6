//! Saturation in the metric of the data (`saturate`): pin what lies beyond the grid, move the rest, then round.
//!
//! # Problem
//!
//! On a narrow grid some weights lie beyond its ends. Wherever the others end, those will be at an end; what that costs
//! can be paid before any rounding, and as cheaply as the data allow. It is the kernel walk's idea (saturated weights
//! are levels already) where the data leave no kernel.
//!
//! # Method
//!
//! With `F` the weights of a neuron beyond the ends of their grid, `c` these ends, and `V = A^-1`,
//!
//! ```text
//! z = w* + V_:F (V_FF)^-1 (c - w*_F)
//! ```
//!
//! is the point of least cost `(z - w*)^T A (z - w*)` with `z_F = c`. Error feedback rounds z instead of w*, for every
//! multiple of the scale, and is scored against w*; a neuron starts from it where that costs less than error feedback
//! from w* itself. Target and all other steps are those of [`crate::feedback`].
//!
//! # Guarantee
//!
//! Before the descent no neuron costs more than with error feedback on the same scales. The cost of pinning,
//! `d^T (V_FF)^-1 d` with `d = c - w*_F`, is what any codes with these ends must pay.
//!
//! # Cost
//!
//! Two passes of feedback and `K^2` for each multiple, and `|F|^3 / 3 + K |F|` a neuron; neurons with more than
//! [`MOST_PINNED`] such weights are not pinned. One inverse a group.
//!
//! # Failure
//!
//! As [`crate::feedback`].

use crate::error::QuantError;
use crate::feedback;
use crate::lattice::{Forms, Start};
use crate::linalg;
use crate::panel::{Panel, PanelScales, Rounded};
use crate::problem::LayerProblem;
use crate::quadratic::Factor;
use crate::retarget::retarget;
use crate::solution::LayerSolution;
use faer::Mat;
use rayon::prelude::*;

/// More pinned weights of one neuron would cost more than they gain.
const MOST_PINNED: usize = 600;
/// Columns of the inverse that are solved for together.
const CHUNK: usize = 64;

/// `A^-1`.
pub(crate) struct Inverse(Mat<f32>);

pub(crate) fn solve(problem: &LayerProblem<'_>, forms: &Forms) -> Result<LayerSolution, QuantError> {
    let target = retarget(problem, forms)?;
    let inverses: Vec<Inverse> = target.factors.par_iter().map(Inverse::new).collect();
    feedback::solve_from(problem, forms, &target, Start::Saturated(&inverses))
}

impl Inverse {
    fn new(factor: &Factor) -> Inverse {
        let n = factor.lower.nrows();
        let mut inverse = Mat::<f32>::identity(n, n);
        let columns = inverse.par_col_chunks_mut(CHUNK);
        columns.for_each(|columns| linalg::solve_factored_in_place(factor.lower.as_ref(), columns));
        Inverse(inverse)
    }
}

/// The better of error feedback from `z` and from `w*`, and what it costs.
pub(crate) fn start(panel: &Panel<'_>, inverse: &Inverse, scales: &PanelScales) -> (Rounded, Vec<f64>) {
    let (mut best, mut costs) = panel.feed_back(scales);
    let Some(pinned) = pinned(panel, inverse, scales) else {
        return (best, costs);
    };
    let moved = &panel.weights - &pinned;
    let (mut rounded, _) = Panel { weights: pinned, ..*panel }.feed_back(scales);
    rounded.errors += moved;
    for (p, cost) in panel.energies(&rounded).into_iter().enumerate() {
        if cost < costs[p] {
            best.take(p, &rounded);
            costs[p] = cost;
        }
    }
    (best, costs)
}

/// `z` of every neuron, unless no weight lies beyond its grid.
fn pinned(panel: &Panel<'_>, Inverse(inverse): &Inverse, scales: &PanelScales) -> Option<Mat<f32>> {
    let (width, inputs) = (panel.weights.nrows(), panel.weights.ncols());
    let mut pinned = panel.weights.clone();
    let mut any = false;
    for p in 0..width {
        let beyond = |i: usize| {
            let (least, greatest) = scales.at(i)[p].ends(panel.grid);
            let w = panel.weights[(p, i)];
            let change = w.clamp(least, greatest) - w;
            (change != 0.0).then_some((i, f64::from(change)))
        };
        let (rows, changes): (Vec<usize>, Vec<f64>) = (0..inputs).filter_map(beyond).unzip();
        if rows.is_empty() || rows.len() > MOST_PINNED {
            continue;
        }
        let part = Mat::from_fn(rows.len(), rows.len(), |i, j| f64::from(inverse[(rows[i], rows[j])]));
        let Some(factor) = linalg::cholesky(part) else { continue };
        let forces = linalg::solve_factored(factor.as_ref(), changes.clone());
        for (row, force) in rows.iter().zip(forces) {
            for (i, v) in inverse.col_as_slice(*row).iter().enumerate() {
                pinned[(p, i)] += v * force as f32;
            }
        }
        for (row, change) in rows.iter().zip(changes) {
            pinned[(p, *row)] = panel.weights[(p, *row)] + change as f32;
        }
        any = true;
    }
    any.then_some(pinned)
}

#[cfg(test)]
#[path = "saturate_tests.rs"]
mod tests;
