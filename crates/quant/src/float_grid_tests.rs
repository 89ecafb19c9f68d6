//! Solvers know levels by what a grid answers: here they meet levels that are not equidistant.

use crate::certify;
use crate::choose::solve::solve;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::options::SolverOptions;
use crate::layer::problem::LayerProblem;
use crate::layer::solution::LayerSolution;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::stats::gram::GramStats;
use crate::testing::{correlated_rows, energies, gaussian_rows, gaussian_weights, paired_stats, rounded, stats};
use crate::{PairRule, ScaleType};
use ndarray::{Array3, ArrayView3};

/// Those that measure errors by the data.
const QUADRATIC: [Method; 4] = [Method::Gpfq, Method::Optq, Method::Feedback, Method::Saturate];

fn spec(granularity: Granularity, rule: ScaleRule) -> QuantSpec {
    QuantSpec::new(Grid::e4m3(), granularity, rule).unwrap()
}

/// Layers with a kernel to walk in, with rows enough, with few inputs, and with drift.
fn layers() -> Vec<(&'static str, Array3<f32>, [GramStats; 1])> {
    let seen = correlated_rows(300, 40, 1);
    let reference = &seen + &(gaussian_rows(300, 40, 2) * 0.05);
    vec![
        ("few rows", gaussian_weights(1, 60, 7, 1), stats(&gaussian_rows(9, 60, 2))),
        ("many rows", gaussian_weights(1, 70, 9, 3), stats(&correlated_rows(400, 70, 4))),
        ("few inputs", gaussian_weights(1, 9, 5, 5), stats(&correlated_rows(50, 9, 6))),
        ("drift", gaussian_weights(1, 40, 6, 7), paired_stats(&seen, &reference)),
    ]
}

#[test]
fn every_method_keeps_to_the_grid_and_to_its_bound() {
    for (name, weights, stats) in layers() {
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(16)] {
            for rule in [ScaleRule::Max, ScaleRule::LeastSquares] {
                let problem = LayerProblem::new(weights.view(), Some(&stats), spec(granularity, rule)).unwrap();
                for method in Method::ALL {
                    let what = format!("{method}, {name}, {granularity:?}, {rule:?}");
                    let solution = solve(method, &problem).unwrap();
                    assert!(solution.codes.iter().all(|code| Grid::e4m3().contains(*code)), "{what}");
                    let certificate = certify(&problem, &solution).unwrap().certificate;
                    let achieved = certificate.achieved.unwrap();
                    assert!(achieved.is_finite() && certificate.bound.is_none_or(|bound| achieved <= bound), "{what}");
                    let walked = method.walks() && rule == ScaleRule::Max && name == "few rows";
                    assert!(!walked || certificate.bound.is_some(), "{what}: {certificate:?}");
                }
            }
        }
    }
}

#[test]
fn error_feedback_promises_the_nearest_plane_of_the_gaps_it_met() {
    for (name, weights, stats) in layers().into_iter().filter(|(name, ..)| *name != "few rows") {
        for method in [Method::Optq, Method::Feedback] {
            let problem = LayerProblem::new(weights.view(), Some(&stats), spec(Granularity::Channel, ScaleRule::Max));
            let problem = problem.unwrap();
            let certificate = certify(&problem, &solve(method, &problem).unwrap()).unwrap().certificate;
            let (achieved, bound) = (certificate.achieved.unwrap(), certificate.bound.unwrap());
            let attainable = certificate.attainable.unwrap();
            assert!(achieved <= bound && bound < 30.0 * achieved, "{name} {method}: {achieved} {bound}");
            assert!(achieved <= attainable && attainable < 1.0, "{name} {method}: {attainable}");
        }
    }
}

#[test]
fn methods_that_see_the_data_lose_less_than_rounding() {
    let weights = gaussian_weights(1, 120, 20, 3);
    let stats = stats(&correlated_rows(500, 120, 4));
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        let problem =
            LayerProblem::new(weights.view(), Some(&stats), spec(granularity, ScaleRule::LeastSquares)).unwrap();
        let cost = |solution: &LayerSolution| -> f64 {
            energies(&problem, weights.view(), &solution.dequantize()).iter().sum()
        };
        let plain = cost(&solve(Method::Msq, &problem).unwrap());
        for method in QUADRATIC {
            let found = cost(&solve(method, &problem).unwrap());
            assert!(found < 0.5 * plain, "{method} {granularity:?}: {found} {plain}");
        }
        let beam = problem.with_options(SolverOptions::default().with_beam(4).unwrap());
        let (fed, searched) =
            (cost(&solve(Method::Feedback, &problem).unwrap()), cost(&solve(Method::Feedback, &beam).unwrap()));
        assert!(searched < 1.02 * fed, "{granularity:?}: {searched} {fed}");
    }
}

#[test]
fn two_inputs_get_the_best_codes_of_all_for_their_scale() {
    for seed in 0..4 {
        let weights = gaussian_weights(1, 2, 1, seed);
        let stats = stats(&correlated_rows(30, 2, seed + 50));
        let problem =
            LayerProblem::new(weights.view(), Some(&stats), spec(Granularity::Channel, ScaleRule::Max)).unwrap();
        let cost = |levels: ArrayView3<'_, f32>| energies(&problem, weights.view(), &levels.to_owned())[0];
        // The form, from what three errors cost.
        let unit = |first: f32, second: f32| cost((&weights - &ndarray::arr3(&[[[first], [second]]])).view());
        let (a, b, both) = (unit(1.0, 0.0), unit(0.0, 1.0), unit(1.0, 1.0));
        let solution = solve(Method::Optq, &problem).unwrap();
        let level = |code: i16| f64::from(solution.scales[[0, 0, 0]]) * f64::from(Grid::e4m3().value(code));
        let mut best = f64::INFINITY;
        for first in Grid::e4m3().codes() {
            for second in Grid::e4m3().codes() {
                let x = f64::from(weights[[0, 0, 0]]) - level(first);
                let y = f64::from(weights[[0, 1, 0]]) - level(second);
                best = best.min(a * x * x + b * y * y + (both - a - b) * x * y);
            }
        }
        let found = cost(solution.dequantize().view());
        assert!(found <= best * 1.001 + 1e-12, "{seed}: {found} {best}");
    }
}

#[test]
fn scales_find_the_place_of_weights_between_two_powers() {
    // 17 / 16 of a level: the middle of two in every power, a level where the range is wider by 16 / 17.
    let weights: Vec<f32> = (0..12).map(|i| if i == 0 { 448.0 } else { 17.0 / 16.0 * 2f32.powi(i % 4) }).collect();
    let weights = Array3::from_shape_vec((1, 12, 1), weights).unwrap();
    let lost = |rule| {
        let problem = LayerProblem::new(weights.view(), None, spec(Granularity::Channel, rule)).unwrap();
        let solution = solve(Method::Msq, &problem).unwrap();
        assert_eq!(solution.codes, rounded(&problem, &solution).codes);
        (&solution.dequantize() - &weights).iter().map(|error| f64::from(error * error)).sum::<f64>()
    };
    let (max, best) = (lost(ScaleRule::Max), lost(ScaleRule::LeastSquares));
    assert!(best < 0.5 * max, "{best} {max}");
}

#[test]
fn scales_of_sixteen_bits_hold_every_level() {
    for scale_type in [ScaleType::F16, ScaleType::Bf16] {
        let weights = gaussian_weights(1, 30, 4, 9);
        let stats = stats(&correlated_rows(80, 30, 2));
        let spec = spec(Granularity::Channel, ScaleRule::LeastSquares).with_scale_type(scale_type);
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        for method in Method::ALL {
            certify(&problem, &solve(method, &problem).unwrap()).unwrap();
        }
    }
}

#[test]
fn pairs_that_saturate_are_a_matter_of_integers() {
    let spec = spec(Granularity::Channel, ScaleRule::Max);
    let error = spec.with_pairs(PairRule::dense(8)).unwrap_err().to_string();
    assert!(error.contains("integers without zero points"), "{error}");
}
