//! What holds of all methods that go along the Cholesky factor and descend from there.

use crate::certify;
use crate::choose::solve::solve;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::problem::LayerProblem;
use crate::layer::scale_type::ScaleType;
use crate::layer::solution::LayerSolution;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::stats::gram::GramStats;
use crate::stats::gram::diagonal::DiagonalAccumulator;
use crate::testing::{
    correlated_rows, diagonal_rows, energies, gaussian_rows, gaussian_weights, rounded, stats, with_threads,
};
use ndarray::{Array2, Axis};

const METHODS: [Method; 3] = [Method::Optq, Method::Feedback, Method::Saturate];

fn spec(bits: u32, granularity: Granularity) -> QuantSpec {
    QuantSpec::new(Grid::symmetric(bits).unwrap(), granularity, ScaleRule::Max).unwrap()
}

fn channel(bits: u32) -> QuantSpec {
    spec(bits, Granularity::Channel)
}

#[test]
fn with_a_diagonal_gram_matrix_every_code_is_the_nearest_on_its_scale() {
    let weights = gaussian_weights(1, 20, 5, 1);
    let stats = stats(&diagonal_rows(20));
    for bits in [2, 3, 4, 8] {
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(8)] {
            let problem = LayerProblem::new(weights.view(), Some(&stats), spec(bits, granularity)).unwrap();
            for method in METHODS {
                let solution = solve(method, &problem).unwrap();
                assert_eq!(solution.codes, rounded(&problem, &solution).codes, "{method} {bits} {granularity:?}");
            }
        }
    }
}

#[test]
fn no_neuron_costs_more_than_rounded_on_all_grids() {
    for (n, k, m) in [(300, 24, 40), (10, 70, 3), (300, 130, 5), (60, 17, 1)] {
        let weights = gaussian_weights(1, k, m, 3);
        let stats = stats(&correlated_rows(n, k, 4));
        for grid in [Grid::symmetric(2), Grid::asymmetric(3), Grid::mid_rise(1), Grid::full_range(8), Ok(Grid::e4m3())]
        {
            let grid = grid.unwrap();
            for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(16)] {
                for scale_type in [ScaleType::F32, ScaleType::F16] {
                    let spec = QuantSpec::new(grid, granularity, ScaleRule::LeastSquares).unwrap();
                    let spec = spec.with_scale_type(scale_type);
                    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
                    for method in METHODS {
                        let solution = solve(method, &problem).unwrap();
                        let cost =
                            |solution: &LayerSolution| energies(&problem, weights.view(), &solution.dequantize());
                        for (found, plain) in cost(&solution).iter().zip(cost(&rounded(&problem, &solution))) {
                            let what = format!("{method} {n} {k} {grid:?} {granularity:?}");
                            assert!(*found <= plain * (1.0 + 1e-9), "{what}: {found} {plain}");
                        }
                        certify(&problem, &solution).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn few_inputs_get_the_brute_force_optimum_for_their_scales() {
    for seed in 0..20 {
        let k = 3 + seed as usize % 4;
        let weights = gaussian_weights(1, k, 2, seed);
        let stats = stats(&correlated_rows(30, k, seed + 50));
        let problem = LayerProblem::new(weights.view(), Some(&stats), channel(2)).unwrap();
        for method in METHODS {
            let solution = solve(method, &problem).unwrap();
            let found = energies(&problem, weights.view(), &solution.dequantize());
            let mut best = [f64::INFINITY; 2];
            for index in 0..3usize.pow(k as u32) {
                let mut other = solution.clone();
                for ((_, k, _), code) in other.codes.indexed_iter_mut() {
                    *code = (index / 3usize.pow(k as u32) % 3) as i16 - 1;
                }
                for (best, energy) in best.iter_mut().zip(energies(&problem, weights.view(), &other.dequantize())) {
                    *best = best.min(energy);
                }
            }
            for (found, best) in found.iter().zip(best) {
                assert!((found - best).abs() <= 1e-9 * best, "{method} seed {seed}: {found} {best}");
            }
        }
    }
}

#[test]
fn dead_and_constant_inputs_are_rounded() {
    let weights = gaussian_weights(1, 30, 4, 1);
    let mut rows = correlated_rows(100, 30, 2);
    rows.column_mut(3).fill(0.0);
    rows.column_mut(7).fill(2.0);
    let (spoken, silent) = (stats(&rows), stats(&Array2::zeros((5, 30))));
    for method in METHODS {
        let problem = LayerProblem::new(weights.view(), Some(&spoken), channel(3)).unwrap();
        let solution = solve(method, &problem).unwrap();
        let plain = rounded(&problem, &solution);
        for k in [3, 7] {
            assert_eq!(solution.codes.index_axis(Axis(1), k), plain.codes.index_axis(Axis(1), k), "{method}");
        }
        assert_ne!(solution.codes, plain.codes, "{method}");
        let problem = LayerProblem::new(weights.view(), Some(&silent), channel(3)).unwrap();
        let solution = solve(method, &problem).unwrap();
        assert_eq!(solution.codes, rounded(&problem, &solution).codes, "{method}");
    }
}

#[test]
fn groups_are_solved_on_their_own_statistics() {
    let weights = gaussian_weights(3, 9, 2, 1);
    let stats: Vec<GramStats> = (0..3).flat_map(|g| stats(&correlated_rows(60, 9, g))).collect();
    let problem = LayerProblem::new(weights.view(), Some(&stats), channel(3)).unwrap();
    for method in METHODS {
        let together = solve(method, &problem).unwrap();
        for g in 0..3 {
            let alone = weights.select(Axis(0), &[g]);
            let problem = LayerProblem::new(alone.view(), Some(&stats[g..=g]), channel(3)).unwrap();
            assert_eq!(solve(method, &problem).unwrap().codes, together.codes.select(Axis(0), &[g]), "{method}");
        }
    }
}

#[test]
fn the_same_bytes_with_any_number_of_threads() {
    let weights = gaussian_weights(1, 150, 70, 1);
    let stats = stats(&correlated_rows(300, 150, 2));
    for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(32)] {
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec(3, granularity)).unwrap();
        for method in METHODS {
            let one = with_threads(1, || solve(method, &problem)).unwrap();
            for threads in [2, 4] {
                let many = with_threads(threads, || solve(method, &problem)).unwrap();
                assert_eq!((&one.codes, &one.scales), (&many.codes, &many.scales), "{method} {granularity:?}");
            }
        }
    }
}

#[test]
fn without_a_gram_matrix_it_is_refused() {
    let weights = gaussian_weights(1, 6, 2, 1);
    let mut accumulator = DiagonalAccumulator::new(6).unwrap();
    accumulator.push(gaussian_rows(3, 6, 2).view()).unwrap();
    let diagonal = [accumulator.finish().unwrap()];
    for method in METHODS.into_iter().chain([Method::Gpfq]) {
        for (stats, found) in [(None, "found none"), (Some(&diagonal[..]), "found the diagonal only")] {
            let problem = LayerProblem::new(weights.view(), stats, channel(3)).unwrap();
            let error = solve(method, &problem).unwrap_err().to_string();
            assert!(error.contains(&format!("`{method}` needs the Gram matrix")) && error.contains(found), "{error}");
        }
    }
}
