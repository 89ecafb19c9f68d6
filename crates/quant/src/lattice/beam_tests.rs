use super::*;
use crate::lattice::recipe::Forms;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::testing::{correlated_rows, gaussian_weights, panel, stats};

fn with_panel(k: usize, m: usize, bits: u32, check: impl Fn(&Panel<'_>, &PanelScales)) {
    let weights = gaussian_weights(1, k, m, 1);
    let stats = stats(&correlated_rows(2 * k + 20, k, 2));
    let spec = QuantSpec::new(Grid::symmetric(bits).unwrap(), Granularity::Channel, ScaleRule::LeastSquares).unwrap();
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let forms = Forms::new(Method::Feedback, &problem, 0.01).unwrap();
    let panel = panel(&problem, &forms);
    let table = ScaleTable::fit(&problem, ScaleRule::LeastSquares);
    check(&panel, &PanelScales::new(&table, 0, 0, m, &panel.form.inputs));
}

#[test]
fn one_partial_solution_is_error_feedback() {
    with_panel(150, 5, 3, |panel, scales| {
        let (mut alone, fed) = (Search::new(panel, 1), panel.feed_back(scales));
        alone.run(panel, scales);
        assert_eq!(alone.codes, fed.0.codes);
        assert!(alone.costs.iter().zip(&fed.1).all(|(a, b)| (a - b).abs() <= 1e-5 * b));
    });
}

#[test]
fn costs_are_those_of_the_codes_and_more_partial_solutions_gain() {
    with_panel(200, 12, 2, |panel, scales| {
        let sum = |costs: &[f64]| costs.iter().sum::<f64>();
        let fed = sum(&panel.feed_back(scales).1);
        let results: Vec<f64> = [2, 8]
            .map(|beam| {
                let (found, costs) = search(panel, scales, beam);
                for (claimed, own) in costs.iter().zip(panel.energies(&found)) {
                    assert!((claimed - own).abs() <= 1e-5 * own, "{beam}: {claimed} {own}");
                }
                sum(&costs)
            })
            .to_vec();
        assert!(results[1] < results[0] && results[0] < fed, "{results:?} {fed}");
    });
}

#[test]
fn enough_partial_solutions_find_the_optimum() {
    with_panel(4, 3, 2, |panel, scales| {
        let (_, costs) = search(panel, scales, 81);
        let mut best = [f64::INFINITY; 3];
        for index in 0..81usize {
            let codes: Vec<i16> = (0..4).map(|i| (index / 3usize.pow(i) % 3) as i16 - 1).collect();
            let level = |p: usize, i: usize| scales.at(i)[p].dequantize(codes[i]);
            let errors = Mat::from_fn(3, 4, |p, i| panel.weights[(p, i)] - level(p, i));
            let other = Rounded { codes: codes.iter().flat_map(|code| [*code; 3]).collect(), errors };
            for (best, cost) in best.iter_mut().zip(panel.energies(&other)) {
                *best = best.min(cost);
            }
        }
        assert!(costs.iter().zip(best).all(|(found, best)| (found - best).abs() < 1e-5 * best), "{costs:?} {best:?}");
    });
}
