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
//! from w* itself. Target and all other steps are those of [`crate::lattice::feedback`].
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
//! As [`crate::lattice::feedback`].

use crate::error::QuantError;
use crate::lattice::feedback;
use crate::lattice::pin::Inverse;
use crate::lattice::recipe::{Forms, Start};
use crate::lattice::retarget::retarget;
use crate::layer::problem::LayerProblem;
use crate::layer::solution::LayerSolution;
use rayon::prelude::*;

pub(crate) fn solve(problem: &LayerProblem<'_>, forms: &Forms) -> Result<LayerSolution, QuantError> {
    let target = retarget(problem, forms)?;
    let inverses: Vec<Inverse> = target.factors.par_iter().map(Inverse::new).collect();
    feedback::solve_from(problem, forms, &target, Start::Saturated(&inverses))
}
