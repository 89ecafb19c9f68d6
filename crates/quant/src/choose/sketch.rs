//! Codes of a layer at several widths, found quickly.
//!
//! # Problem
//!
//! To divide bits among layers one must know how much error each layer has at each width. The methods that are good at
//! a layer try many scales and descend from there, once a width; how layers and widths compare shows with far less.
//!
//! # Method
//!
//! The Gram matrix is factored once for all widths. At each, scales are fitted by the specification's rule; a few
//! multiples of them are tried on [`TRIED_NEURONS`] neurons, and the best one serves the whole layer. Then one pass of
//! error feedback ([`crate::lattice::panel`]) gives the codes.
//!
//! # Guarantee
//!
//! None: the codes serve comparisons.
//!
//! # Cost
//!
//! O(K^3 / 3) a group; at each width `K^2 / 2` multiply-adds a neuron, and those of the fit.
//!
//! # Failure
//!
//! As [`Method::Optq`]: without the Gram matrix of every group, an error.

use crate::error::QuantError;
use crate::lattice::recipe::{Forms, Lattice};
use crate::layer::method::Method;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::solution::LayerSolution;
use crate::layer::spec::QuantSpec;
use ndarray::Axis;

/// Neurons on which multiples of the scales are tried.
const TRIED_NEURONS: usize = 32;
/// Multiples of the fitted scales; the first of equals wins.
const MULTIPLES: [f64; 6] = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5];

/// Solves the layer once for each of `specs`.
pub fn sketch(problem: &LayerProblem<'_>, specs: &[QuantSpec]) -> Result<Vec<LayerSolution>, QuantError> {
    let forms = Forms::new(Method::Optq, problem, problem.damping())?;
    let count = problem.outputs().min(TRIED_NEURONS);
    let tried: Vec<usize> = (0..count).map(|i| i * problem.outputs() / count).collect();
    let tried = problem.weights().select(Axis(2), &tried);
    let few = problem.with_weights(tried.view())?;
    let solve = |spec: &QuantSpec| {
        let (problem, few) = (problem.with_spec(*spec), few.with_spec(*spec));
        let multiple = best_multiple(&few, &forms);
        let table = ScaleTable::fit(&problem, spec.scale_rule()).scaled(spec, multiple);
        let lattice = Lattice::new(&problem, &forms.forms, &forms.factors);
        lattice.solve_panels(&table, |panel, _, scales| panel.feed_back(scales)).0
    };
    Ok(specs.iter().map(solve).collect())
}

/// The multiple of the scales with which error feedback costs least.
fn best_multiple(problem: &LayerProblem<'_>, forms: &Forms) -> f64 {
    let fitted = ScaleTable::fit(problem, problem.spec().scale_rule());
    let lattice = Lattice::new(problem, &forms.forms, &forms.factors);
    let cost = |multiple: f64| -> f64 {
        let table = fitted.scaled(problem.spec(), multiple);
        let costs = lattice.map_panels(|place| lattice.panel(place).feed_back(&lattice.scales(place, &table)).1);
        costs.concat().iter().sum()
    };
    let mut best = (cost(MULTIPLES[0]), MULTIPLES[0]);
    for multiple in &MULTIPLES[1..] {
        let found = cost(*multiple);
        // Errors fall and rise again.
        if found >= best.0 {
            break;
        }
        best = (found, *multiple);
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::solve::solve;
    use crate::layer::grid::Grid;
    use crate::layer::spec::{Granularity, ScaleRule};
    use crate::testing::{correlated_rows, energies, gaussian_weights, rounded, stats, with_threads};

    #[test]
    fn errors_are_near_those_of_optq_and_far_below_those_of_rounding() {
        let weights = gaussian_weights(1, 90, 70, 1);
        let stats = stats(&correlated_rows(400, 90, 2));
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(32)] {
            let spec =
                |bits| QuantSpec::new(Grid::symmetric(bits).unwrap(), granularity, ScaleRule::LeastSquares).unwrap();
            let specs = [2, 3, 4, 8].map(spec);
            let problem = LayerProblem::new(weights.view(), Some(&stats), specs[0]).unwrap();
            for (solution, spec) in sketch(&problem, &specs).unwrap().iter().zip(specs) {
                let problem = problem.with_spec(spec);
                let cost = |solution: &LayerSolution| -> f64 {
                    energies(&problem, weights.view(), &solution.dequantize()).iter().sum()
                };
                let (found, plain) = (cost(solution), cost(&rounded(&problem, solution)));
                let best = cost(&solve(Method::Optq, &problem).unwrap());
                assert!(found < 0.7 * plain && found < 2.0 * best, "{granularity:?} {spec:?}: {found} {plain} {best}");
            }
        }
    }

    #[test]
    fn the_same_bytes_with_any_number_of_threads() {
        let weights = gaussian_weights(2, 40, 90, 1);
        let stats = [stats(&correlated_rows(100, 40, 2)), stats(&correlated_rows(90, 40, 3))].concat();
        let spec = QuantSpec::new(Grid::symmetric(3).unwrap(), Granularity::Channel, ScaleRule::LeastSquares).unwrap();
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        let run = |threads| with_threads(threads, || sketch(&problem, &[spec])).unwrap().remove(0);
        let (one, many) = (run(1), run(3));
        assert_eq!((&one.codes, &one.scales), (&many.codes, &many.scales));
    }
}
