use super::*;
use crate::lattice::recipe::Forms;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::testing::{correlated_rows, gaussian_weights, panel, stats};

#[test]
fn pinned_weights_lie_at_the_ends_and_the_others_where_that_costs_least() {
    let (k, m) = (18, 6);
    let weights = gaussian_weights(1, k, m, 1);
    let stats = stats(&correlated_rows(90, k, 2));
    let spec = QuantSpec::new(Grid::symmetric(2).unwrap(), Granularity::Channel, ScaleRule::Max).unwrap();
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let forms = Forms::new(Method::Saturate, &problem, 0.01).unwrap();
    let panel = panel(&problem, &forms);
    let inverse = Inverse::new(&forms.factors[0]);
    let wide = ScaleTable::fit(&problem, ScaleRule::Max);
    assert!(pinned(&panel, &inverse, &PanelScales::new(&wide, 0, 0, m, &panel.form.inputs)).is_none());

    let narrow = wide.scaled(&spec, 0.5);
    let scales = PanelScales::new(&narrow, 0, 0, m, &panel.form.inputs);
    let z = pinned(&panel, &inverse, &scales).unwrap();
    let force = panel.image((&z - &panel.weights).as_ref());
    let mut saturated = 0;
    for p in 0..m {
        for i in 0..k {
            let (least, greatest) = scales.at(i)[p].ends(panel.grid);
            let w = panel.weights[(p, i)];
            let end = w.clamp(least, greatest);
            if end == w {
                assert!(force[(p, i)].abs() < 1e-4, "{p} {i}: {}", force[(p, i)]);
            } else {
                assert!((z[(p, i)] - end).abs() < 1e-6);
                saturated += 1;
            }
        }
    }
    assert!(saturated > m);

    let (started, costs) = start(&panel, &inverse, &scales);
    for ((cost, own), fed) in costs.iter().zip(panel.energies(&started)).zip(panel.feed_back(&scales).1) {
        assert!((cost - own).abs() < 1e-5 * own && *cost <= fed * (1.0 + 1e-6), "{cost} {own} {fed}");
    }
}
