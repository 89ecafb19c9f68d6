use super::*;
use crate::error::Array;
use crate::layer::grid::Grid;
use crate::layer::method::Saturation;
use crate::layer::solution::Note;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::stats::gram::GramStats;
use crate::stats::gram::diagonal::DiagonalAccumulator;
use crate::testing::{gaussian_rows, gaussian_weights, stats, with_threads};
use ndarray::{Array2, Axis};

fn spec(grid: Grid, granularity: Granularity) -> QuantSpec {
    QuantSpec::new(grid, granularity, ScaleRule::Max).unwrap()
}

fn maly_saab(saturation: Saturation) -> Method {
    Method::MalySaab { saturation }
}

#[test]
fn the_same_bytes_with_any_number_of_threads() {
    let weights = gaussian_weights(2, 48, 9, 1);
    let stats: Vec<GramStats> =
        (0..2).map(|g| GramStats::from_rows(gaussian_rows(12, 48, g).view()).unwrap()).collect();
    for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(20)] {
        let spec = spec(Grid::mid_rise(2).unwrap(), granularity);
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        for method in Method::ALL {
            let one = with_threads(1, || solve(method, &problem)).unwrap();
            for threads in [2, 4] {
                let many = with_threads(threads, || solve(method, &problem)).unwrap();
                assert_eq!(one.codes, many.codes, "{method}");
                assert_eq!(one.scales, many.scales, "{method}");
                assert_eq!(one.preprocessed, many.preprocessed, "{method}");
            }
        }
    }
}

#[test]
fn per_tensor_scales_are_all_equal() {
    let weights = gaussian_weights(2, 16, 3, 5);
    let stats: Vec<GramStats> = (0..2).map(|g| GramStats::from_rows(gaussian_rows(4, 16, g).view()).unwrap()).collect();
    let spec = spec(Grid::symmetric(4).unwrap(), Granularity::Tensor);
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    for method in Method::ALL {
        let solution = solve(method, &problem).unwrap();
        assert_eq!(solution.scales.dim(), (2, 1, 3));
        assert!(solution.scales.iter().all(|scale| *scale == solution.scales[[0, 0, 0]]));
    }
}

/// The best error of all codes on the scale that a solution uses.
fn optimum(rows: &Array2<f32>, weights: &[f32], scale: f32, grid: &Grid) -> f64 {
    let codes: Vec<i16> = (grid.min_code()..=grid.max_code()).filter(|code| grid.contains(*code)).collect();
    let mut best = f64::INFINITY;
    for index in 0..codes.len().pow(weights.len() as u32) {
        let mut rest = index;
        let error: Vec<f64> = weights
            .iter()
            .map(|w| {
                let code = codes[rest % codes.len()];
                rest /= codes.len();
                f64::from(*w) - f64::from(scale) * f64::from(code)
            })
            .collect();
        let lost = rows.mapv(f64::from).dot(&ndarray::arr1(&error));
        best = best.min(lost.dot(&lost));
    }
    best.sqrt()
}

#[test]
fn every_method_stays_between_the_brute_force_optimum_and_its_bound() {
    let grid = Grid::mid_rise(1).unwrap();
    for seed in 0..20 {
        let weights = gaussian_weights(1, 10, 1, seed);
        let rows = gaussian_rows(2, 10, seed + 50);
        let stats = stats(&rows);
        let spec = spec(grid, Granularity::Channel);
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        for method in Method::ALL {
            let solution = solve(method, &problem).unwrap();
            let column = weights.iter().copied().collect::<Vec<_>>();
            let best = optimum(&rows, &column, solution.scales[[0, 0, 0]], &grid);
            let errors = (&weights - &solution.dequantize()).mapv(f64::from);
            let lost = rows.mapv(f64::from).dot(&errors.index_axis(Axis(0), 0));
            let found = lost.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!(found >= best - 1e-6, "{method} {found} {best}");
        }
    }
}

#[test]
fn a_walk_in_a_kernel_of_the_right_size_finds_the_exact_solution() {
    // X = [1 1]: (0.5, 0.5) and (1, 0) act alike, and the latter is on the grid.
    let rows = ndarray::arr2(&[[1.0f32, 1.0, 0.0]]);
    let weights = ndarray::arr3(&[[[0.75f32], [0.25], [1.0]]]);
    let stats = stats(&rows);
    let spec = spec(Grid::symmetric(2).unwrap(), Granularity::Channel);
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    for method in [maly_saab(Saturation::Max), Method::CellWalk] {
        let levels = solve(method, &problem).unwrap().dequantize();
        assert_eq!(levels[[0, 0, 0]] + levels[[0, 1, 0]], 1.0, "{method}");
    }
    let rounded = solve(Method::Msq, &problem).unwrap().dequantize();
    assert_eq!(rounded[[0, 0, 0]] + rounded[[0, 1, 0]], 1.0);
}

#[test]
fn without_a_kernel_every_method_equals_rounding_and_says_so() {
    let weights = gaussian_weights(1, 12, 4, 1);
    // A diagonal Gram matrix of full rank: one row per input.
    let rows = Array2::from_diag(&gaussian_rows(1, 12, 3).row(0).mapv(|x| x.abs() + 0.1));
    let many = gaussian_rows(800, 12, 2);
    for rows in [rows, many] {
        let stats = stats(&rows);
        let spec = spec(Grid::symmetric(3).unwrap(), Granularity::Channel);
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        let rounded = solve(Method::Msq, &problem).unwrap();
        for method in Method::ALL.into_iter().filter(|method| method.walks()) {
            let walked = solve(method, &problem).unwrap();
            assert_eq!(walked.codes, rounded.codes);
            let wanted = "group 0: kernel trivial: rank 12 of 12; rounded without pre-processing";
            assert_eq!(walked.notes[0].to_string(), wanted);
        }
    }
}

#[test]
fn min_saturation_beats_max_saturation_on_gaussian_data() {
    let weights = gaussian_weights(1, 384, 4, 1);
    let rows = gaussian_rows(24, 384, 2);
    let stats = stats(&rows);
    let spec = spec(Grid::mid_rise(1).unwrap(), Granularity::Channel);
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let error = |saturation| {
        let solution = solve(maly_saab(saturation), &problem).unwrap();
        crate::certify(&problem, &solution).unwrap().certificate.achieved.unwrap()
    };
    let (max, min) = (error(Saturation::Max), error(Saturation::Min));
    assert!((0.4..0.7).contains(&max), "{max}");
    assert!((0.02..0.08).contains(&min), "{min}");
}

#[test]
fn zero_columns_stay_zero() {
    let mut weights = gaussian_weights(1, 20, 3, 1);
    weights.index_axis_mut(Axis(2), 1).fill(0.0);
    let stats = stats(&gaussian_rows(5, 20, 2));
    for granularity in [Granularity::Channel, Granularity::Block(7)] {
        let spec = spec(Grid::symmetric(4).unwrap(), granularity);
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        for method in Method::ALL {
            let solution = solve(method, &problem).unwrap();
            assert!(solution.codes.index_axis(Axis(2), 1).iter().all(|code| *code == 0));
            assert!(solution.scales.iter().all(|scale| scale.is_normal()));
        }
    }
}

#[test]
fn one_input_one_row_one_neuron_is_enough() {
    let weights = ndarray::arr3(&[[[0.3f32]]]);
    for x in [0.0f32, 2.0] {
        let stats = [GramStats::from_rows(ndarray::arr2(&[[x]]).view()).unwrap()];
        let spec = spec(Grid::symmetric(4).unwrap(), Granularity::Tensor);
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        for method in Method::ALL {
            let levels = solve(method, &problem).unwrap().dequantize();
            assert!(x == 0.0 || (levels[[0, 0, 0]] - 0.3).abs() < 1e-6, "{method} {levels}");
        }
    }
}

#[test]
fn bad_input_is_an_error_that_names_the_place() {
    let mut weights = gaussian_weights(1, 4, 2, 1);
    weights[[0, 2, 1]] = f32::NAN;
    let spec = spec(Grid::symmetric(4).unwrap(), Granularity::Channel);
    let error = LayerProblem::new(weights.view(), None, spec).unwrap_err();
    let QuantError::NonFinite { array, index, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((array, index), (Array::Weights, vec![0, 2, 1]));
    let weights = gaussian_weights(1, 4, 2, 1);
    let stats = stats(&gaussian_rows(2, 5, 1));
    assert!(LayerProblem::new(weights.view(), Some(&stats), spec).is_err());
    assert!(QuantSpec::new(*spec.grid(), Granularity::Block(0), ScaleRule::Max).is_err());
}

#[test]
fn walks_need_more_than_a_diagonal_and_weighted_rounding_does_not() {
    let weights = gaussian_weights(1, 6, 2, 1);
    let mut accumulator = DiagonalAccumulator::new(6).unwrap();
    accumulator.push(gaussian_rows(3, 6, 2).view()).unwrap();
    let stats = [accumulator.finish().unwrap()];
    let spec = spec(Grid::symmetric(3).unwrap(), Granularity::Channel).with_scale_rule(ScaleRule::LeastSquares);
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    assert!(solve(Method::Msq, &problem).is_ok());
    let error = solve(Method::CellWalk, &problem).unwrap_err().to_string();
    assert!(error.contains("`cell-walk` needs") && error.contains("the diagonal only"), "{error}");
    let blind = LayerProblem::new(weights.view(), None, spec).unwrap();
    assert!(solve(maly_saab(Saturation::Max), &blind).is_err());
    assert!(!solve(maly_saab(Saturation::Max), &problem).is_ok_and(|s| s.notes.contains(&Note::ScaleRuleUnused)));
}
