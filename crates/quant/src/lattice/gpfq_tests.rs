use crate::choose::solve::solve;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::testing::{gaussian_rows, gaussian_weights, paired_stats};
use ndarray::{Array1, Array2, Axis};

/// The paper's recursion on rows, inputs in the given order.
fn from_rows(
    x: &Array2<f64>,
    seen: &Array2<f64>,
    w: &[f32],
    order: &[usize],
    round: impl Fn(usize, f64) -> (i16, f64),
) -> Vec<i16> {
    let mut u = Array1::<f64>::zeros(x.nrows());
    let mut codes = vec![0; w.len()];
    for t in order {
        u.scaled_add(f64::from(w[*t]), &x.column(*t));
        let column = seen.column(*t);
        let (code, level) = round(*t, column.dot(&u) / column.dot(&column));
        u.scaled_add(-level, &column);
        codes[*t] = code;
    }
    codes
}

#[test]
fn moments_give_the_codes_that_the_rows_give() {
    let (n, k, m) = (60, 70, 4);
    let weights = gaussian_weights(1, k, m, 1);
    let seen = gaussian_rows(n, k, 2) + 0.5;
    let reference = &seen + &(gaussian_rows(n, k, 3) * 0.2 + 0.1);
    for (reference, fixed_bias) in [(&seen, true), (&reference, true), (&seen, false), (&reference, false)] {
        let stats = paired_stats(&seen, reference);
        let spec = QuantSpec::new(Grid::symmetric(3).unwrap(), Granularity::Channel, ScaleRule::Max).unwrap();
        let mut problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        if fixed_bias {
            problem = problem.with_fixed_bias();
        }
        let table = ScaleTable::fit(&problem, ScaleRule::Max);
        let centre = |rows: &Array2<f32>| {
            let rows = rows.mapv(f64::from);
            let mean = rows.mean_axis(Axis(0)).unwrap();
            if fixed_bias { rows } else { rows - mean }
        };
        let (x, seen) = (centre(reference), centre(&seen));
        let mut order: Vec<usize> = (0..k).collect();
        let square = |t: usize| seen.column(t).dot(&seen.column(t));
        order.sort_by(|a, b| square(*b).total_cmp(&square(*a)));
        let solution = solve(Method::Gpfq, &problem).unwrap();
        for p in 0..m {
            let round = |t: usize, target: f64| {
                let affine = table.at(0, t, p);
                let code = affine.quantize(target as f32, problem.spec().grid());
                (code, f64::from(affine.dequantize(code)))
            };
            let w = weights.index_axis(Axis(0), 0).column(p).to_vec();
            let wanted = from_rows(&x, &seen, &w, &order, round);
            let found = solution.codes.index_axis(Axis(0), 0).column(p).to_vec();
            assert_eq!(found, wanted, "neuron {p}, fixed bias {fixed_bias}");
        }
    }
}
