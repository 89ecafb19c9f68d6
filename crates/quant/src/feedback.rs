//! The default solver (`feedback`): codes that reproduce the float network's outputs in the quantized one.
//!
//! # Problem
//!
//! Choose scales and codes that minimise `|X W - X~ Q - 1 c^T|_F`: what the layer should have computed in the float
//! network against what it will compute behind quantized layers, once its bias takes off the mean error.
//!
//! # Shapes and units
//!
//! Weights `[groups, K, M]`; moments, forms and factors K x K, one a group.
//!
//! # Method
//!
//! 1. The target W* and the damping ([`crate::retarget`]); shrunk towards a smaller range, if that is asked for
//!    ([`crate::shrink`]).
//! 2. Then the steps of [`crate::lattice`] on W*: scales of least weighted squared error; a few multiples of them,
//!    judged by their codes after error feedback; error feedback, or a search over several partial solutions
//!    ([`crate::beam`]); descent over the codes in turn with a refit of the scales; the exact optimum up to 16 inputs.
//!
//! The fewer the levels, the more multiples and refits: with 8 bits most is decided by target and bias.
//!
//! | sources | here |
//! |---|---|
//! | `w* = (H + l I)^-1 (G + l I) w` (Qronos) | `a = 1` in [`crate::retarget`]; `G = H + B` |
//! | OPTQ, Babai's nearest plane | [`crate::panel`], inputs in falling order of `H_kk` |
//! | QuantEase, COMQ: cyclic descent and scales in turn | [`crate::panel`], [`crate::scale_refit`] |
//!
//! # Guarantee
//!
//! On the cost `(w* - q)^T A (w* - q)` not worse than rounding w* to the scales that step 2 starts from, and not above
//! the bound of the nearest plane for them where nothing is clipped ([`crate::panel`]).
//!
//! # Numerics
//!
//! As [`crate::lattice`]. The scale is rounded to its storage type before the last codes are chosen.
//!
//! # Cost
//!
//! O(K^3 / 3) a group and damping; about 10 (8 bits) to 25 times `K^2` multiply-adds a neuron, as matrix products.
//!
//! # Failure
//!
//! Without the Gram matrix of every group an error.
//!
//! # References
//!
//! S. Zhang et al., *Qronos*, arXiv 2505.11695; E. Frantar et al., *OPTQ*, arXiv 2210.17323; K. Behdin et al.,
//! *QuantEase*, arXiv 2309.01885; A. Zhang et al., *COMQ*, arXiv 2403.07134.

use crate::error::QuantError;
use crate::lattice::{Forms, Lattice, Recipe, Start};
use crate::problem::LayerProblem;
use crate::retarget::{Target, retarget};
use crate::shrink::shrink;
use crate::solution::{LayerSolution, Note};
use crate::spec::ScaleRule;

/// Multiples of the fitted scale on grids of up to 8 levels, of up to 16, and of more.
const FEW_LEVELS: [f64; 8] = [1.0, 0.85, 0.7, 1.15, 0.6, 0.5, 1.35, 0.4];
const SOME_LEVELS: [f64; 6] = [1.0, 0.9, 0.8, 1.1, 0.7, 1.25];
const MANY_LEVELS: [f64; 1] = [1.0];
/// The same where codes are bound to each other two by two.
const BOUND_LEVELS: [f64; 2] = [1.0, 1.08];

pub(crate) fn solve(problem: &LayerProblem<'_>, forms: &Forms) -> Result<LayerSolution, QuantError> {
    let mut target = retarget(problem, forms)?;
    shrink(problem, forms, &mut target.weights);
    let beam = problem.options().beam();
    let start = if beam > 1 { Start::Beam(beam) } else { Start::FeedBack };
    solve_from(problem, forms, &target, start)
}

/// Step 2 with any start.
pub(crate) fn solve_from(
    problem: &LayerProblem<'_>,
    forms: &Forms,
    target: &Target<'_>,
    start: Start<'_>,
) -> Result<LayerSolution, QuantError> {
    let (multiples, refits, sweeps) = match problem.spec().grid().levels() {
        0..=8 => (&FEW_LEVELS[..], 3, 4),
        9..=16 => (&SOME_LEVELS[..], 2, 3),
        _ if problem.spec().pairs().is_some() => (&BOUND_LEVELS[..], 1, 3),
        _ => (&MANY_LEVELS[..], 1, 2),
    };
    let aimed = problem.with_weights(target.weights.view())?;
    let recipe = Recipe { scale_rule: ScaleRule::LeastSquares, multiples, start, refits, sweeps };
    let mut solution = Lattice::new(&aimed, &forms.forms, &target.factors).solve(&recipe, target.damping);
    let Target { share, damping, judged, .. } = *target;
    solution.notes.push(Note::Retargeted { share, damping, judged });
    Ok(solution)
}

#[cfg(test)]
#[path = "feedback_tests.rs"]
mod tests;
