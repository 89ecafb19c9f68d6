//! One door to all methods.

use crate::error::QuantError;
use crate::kernel::Kernel;
use crate::method::Method;
use crate::problem::LayerProblem;
use crate::solution::LayerSolution;
use crate::{cell_walk, maly_saab, msq, optq, preprocess};

/// Quantizes one layer.
///
/// Neurons are solved in parallel on the current rayon pool; the result is the
/// same, bit by bit, for any number of threads. On an error nothing was changed.
/// Where the data leave no kernel, a walking method returns what [`Method::Msq`]
/// returns, with a [`Note`](crate::Note) that says so.
pub fn solve(method: Method, problem: &LayerProblem<'_>) -> Result<LayerSolution, QuantError> {
    let kernels = if method.walks() { preprocess::kernels(method, problem)? } else { Vec::new() };
    solve_in(&kernels, method, problem)
}

/// The same with kernels that are known already; only walks look at them.
pub(crate) fn solve_in(
    kernels: &[Kernel],
    method: Method,
    problem: &LayerProblem<'_>,
) -> Result<LayerSolution, QuantError> {
    if method.walks() && preprocess::all_trivial(kernels) {
        let mut solution = msq::solve(problem);
        solution.notes = preprocess::kernel_notes(problem, kernels);
        return Ok(solution);
    }
    match method {
        Method::Msq => Ok(msq::solve(problem)),
        Method::MalySaab { saturation } => maly_saab::solve(problem, saturation, kernels),
        Method::CellWalk => cell_walk::solve(problem, kernels),
        Method::Optq => optq::solve(problem),
    }
}

#[cfg(test)]
#[path = "solve_tests.rs"]
mod tests;
