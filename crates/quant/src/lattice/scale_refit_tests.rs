use super::*;
use crate::lattice::recipe::Forms;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::spec::{Granularity, ScaleRule};
use crate::testing::{correlated_rows, gaussian_weights, panel, stats};

#[test]
fn no_other_scale_is_cheaper_for_the_codes() {
    let weights = gaussian_weights(1, 20, 5, 1);
    let stats = stats(&correlated_rows(80, 20, 2));
    for grid in [Grid::symmetric(3).unwrap(), Grid::asymmetric(2).unwrap(), Grid::symmetric(8).unwrap(), Grid::e4m3()] {
        for (granularity, blocks) in [(Granularity::Channel, 1), (Granularity::Block(8), 3)] {
            let spec = QuantSpec::new(grid, granularity, ScaleRule::Max).unwrap();
            let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
            let forms = Forms::new(Method::Feedback, &problem, 0.01).unwrap();
            let panel = panel(&problem, &forms);
            let table = ScaleTable::fit(&problem, ScaleRule::Max);
            let mut scales = PanelScales::new(&table, 0, 0, 5, &panel.form.inputs);
            let mut descent = panel.descent(panel.feed_back(&scales).0);
            let before = descent.energies();
            assert!(refit(&panel, &mut descent, &mut scales, &spec));
            let rounded = descent.rounded.clone();
            let after = panel.energies(&rounded);
            assert!(after.iter().zip(&before).all(|(after, before)| after <= before), "{after:?} {before:?}");
            for block in 0..blocks {
                for (p, least) in after.iter().enumerate() {
                    for factor in [0.999, 1.001] {
                        let affine = scales.block(block)[p];
                        let moved = affine.scale() * (factor - 1.0);
                        let mut other = rounded.clone();
                        for i in scales.rows(block) {
                            other.errors[(p, i)] -= moved * affine.value(other.codes[i * 5 + p]);
                        }
                        assert!(panel.energies(&other)[p] >= least * (1.0 - 1e-5), "{block} {p} {factor}");
                    }
                }
            }
            // What is already best is left alone; where errors are so small, the noise of `f32` looks like a gain.
            let again = refit(&panel, &mut descent, &mut scales, &spec);
            let gains = after.iter().zip(panel.energies(&descent.rounded)).map(|(before, after)| 1.0 - after / before);
            let noise = gains.fold(0.0, f64::max);
            assert!(!again || (grid.levels() > 200 && noise < 1e-5), "{grid:?} {granularity:?}: {noise}");
        }
    }
}
