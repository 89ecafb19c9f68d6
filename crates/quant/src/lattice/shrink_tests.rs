use super::*;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::options::SolverOptions;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::stats::gram::GramStats;
use crate::testing::{correlated_rows, gaussian_weights};

#[test]
fn the_proximal_map_takes_off_what_lies_in_the_l1_ball() {
    for (alpha, v) in [(1.0, vec![3.0, -2.9, 0.5, 0.0]), (5.0, vec![1.0, -2.0, 4.0, 3.9, -0.1]), (9.0, vec![1.0, 2.0])]
    {
        let mut found = v.clone();
        shrink_range(&mut found, alpha);
        let taken: f32 = v.iter().zip(&found).map(|(a, b)| (a - b).abs()).sum();
        let size: f32 = v.iter().map(|x: &f32| x.abs()).sum();
        assert!((taken - alpha.min(size)).abs() < 1e-5, "{found:?}");
        // No other height is better.
        let objective =
            |z: &[f32]| z.iter().zip(&v).map(|(z, v)| (z - v).powi(2)).sum::<f32>() / 2.0 + alpha * range(z);
        for step in 0..100u8 {
            let height = f32::from(step) * 0.05;
            let other: Vec<f32> = v.iter().map(|x| x.clamp(-height, height)).collect();
            assert!(objective(&found) <= objective(&other) + 1e-4);
        }
    }
}

#[test]
fn the_range_shrinks_within_what_the_output_may_lose() {
    let weights = gaussian_weights(1, 60, 70, 1);
    let stats = [GramStats::from_rows(correlated_rows(50, 60, 2).view()).unwrap()];
    let spec = QuantSpec::new(Grid::symmetric(2).unwrap(), Granularity::Channel, ScaleRule::Max).unwrap();
    let alpha = 1e-3f32;
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let forms = Forms::new(Method::Feedback, &problem, 0.01).unwrap();
    let mut kept = weights.clone();
    shrink(&problem, &forms, &mut kept);
    assert_eq!(kept, weights);
    let shrinking = problem.with_options(SolverOptions::default().with_shrink(f64::from(alpha)).unwrap());
    let mut shrunk = weights.clone();
    shrink(&shrinking, &forms, &mut shrunk);
    let form = &forms.forms[0];
    let whole = Shrinking { form, largest: largest_eigenvalue(form) * MARGIN, alpha };
    let mut ratio = 0.0f32;
    for m in 0..70 {
        let column = |w: &Array3<f32>| -> Vec<f32> { form.inputs.iter().map(|k| w[[0, *k, m]]).collect() };
        let (before, after) = (column(&weights), column(&shrunk));
        assert!(range(&after) <= range(&before) * (1.0 + 1e-6));
        ratio += range(&after) / range(&before) / 70.0;
        let change = Mat::from_fn(before.len(), 1, |i, _| after[i] - before[i]);
        let energy = (change.transpose() * whole.image(&change))[(0, 0)];
        assert!(energy <= 2.0 * alpha * range(&before) * (1.0 + 1e-6), "{energy}");
    }
    assert!(ratio < 0.95, "{ratio}");
}
