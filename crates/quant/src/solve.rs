//! One door to all methods.

use crate::error::QuantError;
use crate::kernel::Kernel;
use crate::lattice::Forms;
use crate::method::Method;
use crate::problem::LayerProblem;
use crate::solution::LayerSolution;
use crate::{cell_walk, feedback, gpfq, maly_saab, msq, optq, preprocess, saturate};
use std::borrow::Cow;

/// Quantizes one layer.
///
/// Neurons are solved in parallel on the current rayon pool; the result is the
/// same, bit by bit, for any number of threads. On an error nothing was changed.
/// Where the data leave no kernel, a walking method returns what [`Method::Msq`]
/// returns, with a [`Note`](crate::Note) that says so.
pub fn solve(method: Method, problem: &LayerProblem<'_>) -> Result<LayerSolution, QuantError> {
    let kernels = if method.walks() { preprocess::kernels(method, problem)? } else { Vec::new() };
    solve_in(&Prepared { kernels, forms: None }, method, problem)
}

/// What is known of a layer's data already.
pub(crate) struct Prepared {
    /// Only walks look at them.
    pub(crate) kernels: Vec<Kernel>,
    /// Made anew where they are missing and needed.
    pub(crate) forms: Option<Forms>,
}

pub(crate) fn solve_in(
    prepared: &Prepared,
    method: Method,
    problem: &LayerProblem<'_>,
) -> Result<LayerSolution, QuantError> {
    let kernels = &prepared.kernels;
    if method.walks() && preprocess::all_trivial(kernels) {
        let mut solution = msq::solve(problem);
        solution.notes = preprocess::kernel_notes(problem, kernels);
        return Ok(solution);
    }
    let forms = || match &prepared.forms {
        Some(forms) => Ok(Cow::Borrowed(forms)),
        None => Forms::new(method, problem, problem.damping()).map(Cow::Owned),
    };
    match method {
        Method::Msq => Ok(msq::solve(problem)),
        // Its weights end at the ends of the grid, side by side too.
        Method::MalySaab { saturation } => {
            let free = problem.with_spec(problem.spec().with_free_pairs());
            maly_saab::solve(&free, saturation, kernels)
        }
        Method::CellWalk => cell_walk::solve(problem, kernels),
        Method::Gpfq => gpfq::solve(problem, forms()?.as_ref()),
        Method::Optq => optq::solve(problem, forms()?.as_ref()),
        Method::Feedback => feedback::solve(problem, forms()?.as_ref()),
        Method::Saturate => saturate::solve(problem, forms()?.as_ref()),
    }
}

#[cfg(test)]
#[path = "solve_tests.rs"]
mod tests;
