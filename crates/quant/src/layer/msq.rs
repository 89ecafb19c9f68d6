//! Memoryless scalar quantization (`msq`): the nearest level of every weight.
//!
//! # Problem
//!
//! Round every weight on its own. The baseline, and the last step of every
//! method that pre-processes weights.
//!
//! # Method
//!
//! Scales by the specification's rule, codes by [`Affine::quantize`].
//! `LeastSquares` weighs errors by the inputs' mean squares if statistics exist;
//! their diagonal is enough.
//!
//! # Guarantee
//!
//! With the `Max` rule no weight moves by more than half a step.
//!
//! # Cost
//!
//! O(K M), 14 times that with `LeastSquares`.
//!
//! [`Affine::quantize`]: crate::Affine::quantize

use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::solution::LayerSolution;

pub(crate) fn solve(problem: &LayerProblem<'_>) -> LayerSolution {
    let table = ScaleTable::fit(problem, problem.spec().scale_rule());
    let weights = problem.weights();
    LayerSolution::round(problem, &table, |g, k, m| weights[[g, k, m]])
}
