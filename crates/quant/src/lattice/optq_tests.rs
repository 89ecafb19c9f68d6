use super::SWEEPS;
use crate::choose::solve::solve;
use crate::lattice::panel::PanelScales;
use crate::lattice::recipe::Forms;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::solution::LayerSolution;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::testing::{correlated_rows, energies, gaussian_weights, panel, rounded, stats};

fn channel(bits: u32) -> QuantSpec {
    QuantSpec::new(Grid::symmetric(bits).unwrap(), Granularity::Channel, ScaleRule::Max).unwrap()
}

#[test]
fn feedback_keeps_to_the_bound_of_the_nearest_plane() {
    for (n, k) in [(200, 12), (400, 150), (30, 90)] {
        let weights = gaussian_weights(1, k, 6, 1);
        let stats = stats(&correlated_rows(n, k, 2));
        let problem = LayerProblem::new(weights.view(), Some(&stats), channel(8)).unwrap();
        // Twice the range: nothing is clipped.
        let table = ScaleTable::fit(&problem, ScaleRule::Max).scaled(problem.spec(), 4.0);
        let forms = Forms::new(Method::Optq, &problem, problem.damping()).unwrap();
        let panel = panel(&problem, &forms);
        let affine = PanelScales::new(&table, 0, 0, 6, &panel.form.inputs);
        let (fed, claimed) = panel.feed_back(&affine);
        for (p, (claimed, energy)) in claimed.into_iter().zip(panel.energies(&fed)).enumerate() {
            assert!((claimed - energy).abs() <= 1e-5 * energy, "{claimed} {energy}");
            let pivots: f64 =
                (0..k).map(|i| f64::from(affine.at(i)[p].scale() / 2.0 * panel.lower[(i, i)]).powi(2)).sum();
            assert!(energy <= pivots * (1.0 + 1e-5), "{energy} {pivots}");
        }
        let mut descended = panel.descent(fed.clone());
        panel.descend(&mut descended, &affine, SWEEPS);
        for (after, before) in panel.energies(&descended.rounded).into_iter().zip(panel.energies(&fed)) {
            assert!(after <= before * (1.0 + 1e-6));
        }
    }
}

#[test]
fn correlated_inputs_gain_much_and_singular_data_do_no_harm() {
    let weights = gaussian_weights(1, 96, 16, 1);
    let rows = correlated_rows(1000, 96, 2);
    for (rows, most) in [(rows.clone(), 0.6), (correlated_rows(20, 96, 3), 0.6)] {
        let stats = stats(&rows);
        for bits in [2, 4] {
            let problem = LayerProblem::new(weights.view(), Some(&stats), channel(bits)).unwrap();
            let solution = solve(Method::Optq, &problem).unwrap();
            let plain = rounded(&problem, &solution);
            let sum = |solution: &LayerSolution| {
                energies(&problem, weights.view(), &solution.dequantize()).iter().sum::<f64>().sqrt()
            };
            assert!(sum(&solution) < most * sum(&plain), "{bits}: {} {}", sum(&solution), sum(&plain));
        }
    }
}
