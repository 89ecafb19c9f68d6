//! The cell walk (`cell-walk`): every weight stays inside its quantization cell.
//!
//! # Problem
//!
//! As for `maly-saab`, but the weights may only move between the two levels next
//! to them, so that data the walk has not seen suffer at most a step per weight.
//!
//! # Method
//!
//! The walls of a weight are the level that [`Affine::quantize`] takes and its
//! neighbour on the weight's other side; a weight that is a level stays. Weights
//! beyond the grid (possible with the `LeastSquares` rule) are cut to its end
//! first. Then the walk of [`crate::walks::walk`] and the nearest level.
//!
//! # Guarantee
//!
//! All but rank(X) weights of a neuron end on a level, none moves by more than
//! one step, and the rounding error is bounded as for `maly-saab`. The bound is
//! not claimed when weights had to be cut.
//!
//! # Cost
//!
//! O(K r^2) a neuron.
//!
//! # Failure
//!
//! As [`crate::walks::walk`].
//!
//! [`Affine::quantize`]: crate::Affine::quantize

use crate::error::QuantError;
use crate::layer::grid::{Affine, Grid};
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::solution::{LayerSolution, Note};
use crate::walks::kernel::Kernel;
use crate::walks::preprocess;
use crate::walks::walls::Walls;

pub(crate) fn solve(problem: &LayerProblem<'_>, kernels: &[Kernel]) -> Result<LayerSolution, QuantError> {
    let table = ScaleTable::fit(problem, problem.spec().scale_rule());
    let grid = problem.spec().grid();
    let start = |g, m| preprocess::neuron(problem, g, m);
    let walls = |g, m| cells(problem, &table, g, m);
    let mut solution = preprocess::walk_and_round(problem, kernels, &table, start, walls)?;
    let outside = |((g, k, m), w): ((usize, usize, usize), &f32)| {
        let (least, greatest) = table.at(g, k, m).ends(grid);
        *w < least || *w > greatest
    };
    let weights = problem.weights().indexed_iter().filter(|entry| outside(*entry)).count();
    if weights > 0 {
        solution.notes.push(Note::Clipped { weights });
    }
    Ok(solution)
}

fn cells(problem: &LayerProblem<'_>, table: &ScaleTable, g: usize, m: usize) -> Result<Walls, QuantError> {
    let grid = problem.spec().grid();
    let weights = problem.neuron(g, m);
    let cell = |(k, w): (usize, &f32)| cell(*w, table.at(g, k, m), grid);
    let (lower, upper) = weights.iter().enumerate().map(cell).unzip();
    Walls::new(lower, upper)
}

/// The levels around a weight, as the runtime will compute them.
fn cell(w: f32, affine: Affine, grid: &Grid) -> (f64, f64) {
    let code = affine.quantize(w, grid);
    let level = affine.dequantize(code);
    let [below, above] = grid.neighbours(code);
    let neighbour = if level < w {
        above
    } else if level > w {
        below
    } else {
        None
    };
    let other = neighbour.map_or(level, |code| affine.dequantize(code));
    (f64::from(level.min(other)), f64::from(level.max(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_the_levels_on_either_side() {
        let grid = Grid::symmetric(3).unwrap();
        let affine = Affine::new(0.5, 0).unwrap();
        let cases = [
            (0.1, (0.0, 0.5)),
            (0.4, (0.0, 0.5)),
            (-0.4, (-0.5, 0.0)),
            (1.0, (1.0, 1.0)),
            (1.49, (1.0, 1.5)),
            (9.0, (1.5, 1.5)),
        ];
        for (w, wanted) in cases {
            assert_eq!(cell(w, affine, &grid), wanted, "{w}");
        }
    }
}
