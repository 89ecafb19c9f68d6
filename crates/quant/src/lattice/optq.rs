//! Error feedback along the Cholesky factor of the inputs' covariance (`optq`).
//!
//! # Problem
//!
//! Choose codes that minimise the layer's error on the calibration rows, not the
//! error of the weights: for each neuron w
//!
//! ```text
//! min over levels q of  (w - q)^T A (w - q),    A = H - mean mean^T + damping * mean(diag) * I
//! ```
//!
//! The mean row is taken out because the bias absorbs the mean error afterwards
//! ([`bias_correction`](crate::bias_correction)); where there is no bias to do so
//! (see [`LayerProblem::with_fixed_bias`]) it is left in.
//!
//! # Shapes and units
//!
//! Weights `[groups, K, M]`; one A, K x K, a group. The damping counts as part of
//! the objective: it keeps weights near their values where the data say little.
//!
//! # Method
//!
//! The steps of [`crate::lattice::recipe`]:
//!
//! 1. Inputs in falling order of `H_kk`; `A = L L^T` once a group, shared by all
//!    its neurons ([`crate::lattice::quadratic`]).
//! 2. Scales by the specification's rule; on grids of up to 16 levels the best of a few
//!    multiples of them.
//! 3. Error feedback ([`crate::lattice::panel`]): each weight is rounded after the errors of
//!    those before it were passed on to it.
//! 4. Coordinate descent over the codes, from there or from plain rounding,
//!    whichever costs less. Up to 16 inputs (depthwise convolutions): the
//!    best codes by branch and bound ([`crate::lattice::nearest_point`]).
//!
//! Inputs without variance are rounded to the nearest level.
//!
//! | paper | here |
//! |---|---|
//! | `H = 2 X X^T`, `H^-1 = U^T U` | `A = L L^T`, no inverse; rows in reverse order of rounding |
//! | `(w_q - quant(w_q)) / [H^-1]_qq` | `L_ki e_k / L_ii`, pulled instead of pushed |
//! | blocks of 128 columns, lazy updates | blocks of 64, one matrix product each |
//!
//! # Guarantee
//!
//! On its own objective never worse than rounding to the same scales. Without
//! clipping, feedback leaves at most `sum_i (step_i / 2)^2 L_ii^2` (Babai's nearest
//! plane), before the descent lowers it.
//!
//! # Numerics
//!
//! `f64`; levels are those the runtime computes in `f32`. Panels of a fixed number
//! of neurons are solved in parallel, each on one thread: the same bytes for any
//! number of threads.
//!
//! # Cost
//!
//! O(K^3 / 3) a group; `K^2` multiply-adds a neuron and multiple, about three times
//! that for the last two steps.
//!
//! # Failure
//!
//! Without the Gram matrix of every group, or if it stays indefinite under heavy
//! damping, an error. Damping above 0.01 is noted.
//!
//! # References
//!
//! E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, *OPTQ: accurate quantization
//! for generative pre-trained transformers*, ICLR 2023, arXiv 2210.17323.
//! J. Chen, Y. Shabanzadeh, E. Crnčević, T. Hoefler, D. Alistarh, *The geometry of LLM quantization: GPTQ as Babai's
//! nearest plane algorithm*, arXiv 2507.18553.
//! Step 4 as K. Behdin et al., *QuantEase*, arXiv 2309.01885.

use crate::error::QuantError;
use crate::lattice::recipe::{Forms, Lattice, Recipe, Start};
use crate::layer::problem::LayerProblem;
use crate::layer::solution::LayerSolution;

/// Grids with more levels gain nothing from another scale.
const SEARCHED_LEVELS: usize = 16;
/// On grids with more levels the last multiples never win.
const WIDELY_SEARCHED_LEVELS: usize = 8;
/// Multiples of the fitted scale, the first of equals wins.
const MULTIPLES: [f64; 8] = [1.0, 0.9, 0.8, 0.7, 1.1, 0.6, 0.5, 0.4];
/// How many of them are tried on grids of more than [`WIDELY_SEARCHED_LEVELS`].
const NEAR_MULTIPLES: usize = 5;
const SWEEPS: usize = 4;

/// With the factors at [`LayerProblem::damping`].
pub(crate) fn solve(problem: &LayerProblem<'_>, forms: &Forms) -> Result<LayerSolution, QuantError> {
    let levels = problem.spec().grid().levels();
    let tried = match levels <= WIDELY_SEARCHED_LEVELS {
        true => MULTIPLES.len(),
        false if levels <= SEARCHED_LEVELS => NEAR_MULTIPLES,
        false => 1,
    };
    let multiples = &MULTIPLES[..tried];
    let scale_rule = problem.spec().scale_rule();
    let recipe = Recipe { scale_rule, multiples, start: Start::FeedBack, refits: 0, sweeps: SWEEPS };
    Ok(Lattice::new(problem, &forms.forms, &forms.factors).solve(&recipe, problem.damping()))
}

#[cfg(test)]
#[path = "optq_tests.rs"]
mod tests;
