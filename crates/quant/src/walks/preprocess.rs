//! What the two walking methods share: kernels, neurons in parallel, rounding.

use crate::error::QuantError;
use crate::layer::method::Method;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::solution::{LayerSolution, Note};
use crate::stats::gram::GramStats;
use crate::walks::kernel::{Directions, Kernel};
use crate::walks::walk::WalkOptions;
use crate::walks::walls::Walls;
use ndarray::Array3;
use rayon::prelude::*;

/// The kernels of all groups, or the reason why there are none.
pub(crate) fn kernels(method: Method, problem: &LayerProblem<'_>) -> Result<Vec<Kernel>, QuantError> {
    let needed = |found| QuantError::StatisticsNeeded {
        method: method.name(),
        needed: "calibration rows or their Gram matrix",
        found,
    };
    let stats = problem.stats().ok_or_else(|| needed("none"))?;
    let kernel = |stats: &GramStats| Kernel::new(stats)?.ok_or_else(|| needed("the diagonal only"));
    stats.par_iter().map(kernel).collect::<Vec<_>>().into_iter().collect()
}

/// Whether no group leaves a direction to walk in.
pub(crate) fn all_trivial(kernels: &[Kernel]) -> bool {
    kernels.iter().all(|kernel| matches!(kernel, Kernel::Trivial { .. }))
}

/// One note per group.
pub(crate) fn kernel_notes(problem: &LayerProblem<'_>, kernels: &[Kernel]) -> Vec<Note> {
    let inputs = problem.inputs();
    let note = |(group, kernel): (usize, &Kernel)| match kernel {
        Kernel::Trivial { rank } => Note::KernelTrivial { group, rank: *rank, inputs },
        Kernel::Walkable(directions) => Note::Walked { group, rank: directions.rank(), inputs },
    };
    kernels.iter().enumerate().map(note).collect()
}

/// Walks every neuron from `start` inside `walls` and rounds where it ends.
pub(crate) fn walk_and_round(
    problem: &LayerProblem<'_>,
    kernels: &[Kernel],
    table: &ScaleTable,
    start: impl Fn(usize, usize) -> Vec<f64> + Sync,
    walls: impl Fn(usize, usize) -> Result<Walls, QuantError> + Sync,
) -> Result<LayerSolution, QuantError> {
    let walk = |directions: &Directions, g, m| {
        let walked = directions.walk(&start(g, m), &walls(g, m)?, WalkOptions::default())?;
        Ok(walked.values)
    };
    let neurons = problem.map_neurons(|g, m| match &kernels[g] {
        Kernel::Trivial { .. } => Ok(start(g, m)),
        Kernel::Walkable(directions) => walk(directions, g, m),
    });
    let neurons = neurons.into_iter().collect::<Result<Vec<_>, QuantError>>()?;
    let outputs = problem.outputs();
    let preprocessed = Array3::from_shape_fn(problem.weights().raw_dim(), |(g, k, m)| neurons[g * outputs + m][k]);
    let mut solution = LayerSolution::round(problem, table, |g, k, m| preprocessed[[g, k, m]] as f32);
    solution.preprocessed = Some(preprocessed);
    solution.notes = kernel_notes(problem, kernels);
    Ok(solution)
}

/// The weights of one neuron in `f64`.
pub(crate) fn neuron(problem: &LayerProblem<'_>, group: usize, output: usize) -> Vec<f64> {
    problem.neuron(group, output).iter().map(|w| f64::from(*w)).collect()
}
