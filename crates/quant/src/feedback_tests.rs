use crate::drift::PairedAccumulator;
use crate::grid::Grid;
use crate::method::Method;
use crate::options::SolverOptions;
use crate::problem::LayerProblem;
use crate::scale_type::ScaleType;
use crate::solution::{LayerSolution, Note};
use crate::spec::{Granularity, QuantSpec, ScaleRule};
use crate::stats::{DiagonalAccumulator, GramStats};
use crate::testing::{correlated_rows, energies, gaussian_rows, gaussian_weights};
use crate::{bias_correction, certify, corrected_error, solve};
use ndarray::{Array2, Array3, Axis};

const METHODS: [Method; 2] = [Method::Feedback, Method::Saturate];

fn spec(grid: Grid, granularity: Granularity) -> QuantSpec {
    QuantSpec::new(grid, granularity, ScaleRule::LeastSquares).unwrap()
}

fn channel(bits: u32) -> QuantSpec {
    spec(Grid::symmetric(bits).unwrap(), Granularity::Channel)
}

fn stats(rows: &Array2<f32>) -> [GramStats; 1] {
    [GramStats::from_rows(rows.view()).unwrap()]
}

fn paired(n: usize, k: usize, seed: u64) -> [GramStats; 1] {
    let seen = correlated_rows(n, k, seed);
    let mixing = gaussian_rows(k, k, 77) * (0.2 / (k as f32).sqrt());
    let reference = &seen + &seen.dot(&mixing) + 0.05;
    let mut accumulator = PairedAccumulator::new(k).unwrap();
    accumulator.push(seen.view(), reference.view()).unwrap();
    [accumulator.finish().unwrap()]
}

/// Every weight to the nearest level on the scales of `solution`.
fn rounded(problem: &LayerProblem<'_>, solution: &LayerSolution) -> LayerSolution {
    let mut plain = solution.clone();
    for ((g, k, m), code) in plain.codes.indexed_iter_mut() {
        let block = [g, k / solution.block_size, m];
        let affine = crate::grid::Affine::new(solution.scales[block], solution.zero_points[block]).unwrap();
        *code = affine.quantize(problem.weights()[[g, k, m]], problem.spec().grid());
    }
    plain
}

fn error(weights: &Array3<f32>, solution: &LayerSolution, stats: &[GramStats]) -> f64 {
    let levels = solution.dequantize();
    let correction = bias_correction(weights.view(), levels.view(), stats).unwrap();
    corrected_error(weights.view(), levels.view(), correction.view(), stats).unwrap()
}

#[test]
fn with_a_diagonal_gram_matrix_every_code_is_the_nearest_on_its_scale() {
    let weights = gaussian_weights(1, 20, 5, 1);
    let rows = Array2::from_shape_fn((40, 20), |(i, k)| {
        if i / 2 == k { (1.0 + k as f32) * if i % 2 == 0 { 1.0 } else { -1.0 } } else { 0.0 }
    });
    let stats = stats(&rows);
    for bits in [2, 3, 4, 8] {
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(8)] {
            let spec = spec(Grid::symmetric(bits).unwrap(), granularity);
            let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
            for method in METHODS {
                let solution = solve(method, &problem).unwrap();
                assert_eq!(solution.codes, rounded(&problem, &solution).codes, "{method} {bits} {granularity:?}");
            }
        }
    }
}

#[test]
fn cheaper_than_rounding_and_than_optq_on_all_grids() {
    for (n, k, m) in [(300, 24, 40), (10, 70, 3), (300, 130, 5), (60, 17, 1)] {
        let weights = gaussian_weights(1, k, m, 3);
        let stats = stats(&correlated_rows(n, k, 4));
        for grid in [Grid::symmetric(2), Grid::asymmetric(3), Grid::mid_rise(1), Grid::full_range(8)] {
            for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(16)] {
                for scale_type in [ScaleType::F32, ScaleType::F16] {
                    let spec = spec(*grid.as_ref().unwrap(), granularity).with_scale_type(scale_type);
                    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
                    let cost = |solution: &LayerSolution| -> f64 {
                        energies(&problem, weights.view(), &solution.dequantize()).iter().sum()
                    };
                    let optq = cost(&solve(Method::Optq, &problem).unwrap());
                    for method in METHODS {
                        let solution = solve(method, &problem).unwrap();
                        let found = cost(&solution);
                        assert!(found <= cost(&rounded(&problem, &solution)) * (1.0 + 1e-9), "{method} {grid:?}");
                        // A scale that all neurons share is not refitted: only the multiples that are tried differ.
                        let refitted = granularity != Granularity::Tensor;
                        assert!(
                            !refitted || found <= optq * 1.1,
                            "{method} {n} {k} {grid:?} {granularity:?}: {found} {optq}"
                        );
                        certify(&problem, &solution).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn few_inputs_get_the_brute_force_optimum_for_their_scales() {
    for seed in 0..12 {
        let k = 3 + seed as usize % 4;
        let weights = gaussian_weights(1, k, 2, seed);
        let stats = stats(&correlated_rows(30, k, seed + 50));
        let problem = LayerProblem::new(weights.view(), Some(&stats), channel(2)).unwrap();
        let solution = solve(Method::Feedback, &problem).unwrap();
        let found = energies(&problem, weights.view(), &solution.dequantize());
        for index in 0..3usize.pow(k as u32) {
            let mut other = solution.clone();
            for ((_, k, _), code) in other.codes.indexed_iter_mut() {
                *code = (index / 3usize.pow(k as u32) % 3) as i16 - 1;
            }
            for (found, other) in found.iter().zip(energies(&problem, weights.view(), &other.dequantize())) {
                assert!(*found <= other * (1.0 + 1e-9), "seed {seed}: {found} {other}");
            }
        }
    }
}

#[test]
fn drift_of_the_inputs_is_made_up_for() {
    let weights = gaussian_weights(1, 40, 30, 1);
    let (calibration, fresh) = (paired(900, 40, 2), paired(300, 40, 9));
    for bits in [3, 4, 8] {
        let problem = LayerProblem::new(weights.view(), Some(&calibration), channel(bits)).unwrap();
        let judged = problem.with_held_out(&fresh).unwrap();
        let optq = error(&weights, &solve(Method::Optq, &problem).unwrap(), &fresh);
        let half = error(&weights, &solve(Method::Feedback, &problem).unwrap(), &fresh);
        let solution = solve(Method::Feedback, &judged).unwrap();
        let chosen = error(&weights, &solution, &fresh);
        assert!(chosen < 0.6 * optq && chosen < half && half < optq, "{bits}: {chosen} {half} {optq}");
        let told = solution
            .notes
            .iter()
            .any(|note| matches!(note, Note::Retargeted { judged: true, share, .. } if *share > 0.5));
        assert!(told, "{:?}", solution.notes);
    }
}

#[test]
fn dead_and_constant_inputs_are_rounded() {
    let weights = gaussian_weights(1, 30, 4, 1);
    let mut rows = correlated_rows(100, 30, 2);
    rows.column_mut(3).fill(0.0);
    rows.column_mut(7).fill(2.0);
    let stats = stats(&rows);
    let problem = LayerProblem::new(weights.view(), Some(&stats), channel(3)).unwrap();
    let silent = [GramStats::from_rows(Array2::zeros((5, 30)).view()).unwrap()];
    for method in METHODS {
        let solution = solve(method, &problem).unwrap();
        let plain = rounded(&problem, &solution);
        for k in [3, 7] {
            assert_eq!(solution.codes.index_axis(Axis(1), k), plain.codes.index_axis(Axis(1), k));
        }
        assert_ne!(solution.codes, plain.codes);
        let problem = LayerProblem::new(weights.view(), Some(&silent), channel(3)).unwrap();
        let solution = solve(method, &problem).unwrap();
        assert_eq!(solution.codes, rounded(&problem, &solution).codes);
    }
}

#[test]
fn the_same_bytes_with_any_number_of_threads() {
    let weights = gaussian_weights(1, 150, 70, 1);
    let (calibration, fresh) = (paired(300, 150, 2), paired(40, 150, 3));
    let options = SolverOptions::default().with_beam(3).and_then(|options| options.with_shrink(1e-3)).unwrap();
    for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(32)] {
        let spec = spec(Grid::symmetric(3).unwrap(), granularity);
        let problem =
            LayerProblem::new(weights.view(), Some(&calibration), spec).unwrap().with_held_out(&fresh).unwrap();
        for (method, problem) in
            [(METHODS[0], problem), (METHODS[0], problem.with_options(options)), (METHODS[1], problem)]
        {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| solve(method, &problem)).unwrap()
            };
            let (one, many) = (run(1), run(3));
            assert_eq!((&one.codes, &one.scales, &one.notes), (&many.codes, &many.scales, &many.notes));
        }
    }
}

#[test]
fn without_a_gram_matrix_it_is_refused() {
    let weights = gaussian_weights(1, 6, 2, 1);
    let mut accumulator = DiagonalAccumulator::new(6).unwrap();
    accumulator.push(gaussian_rows(3, 6, 2).view()).unwrap();
    let diagonal = [accumulator.finish().unwrap()];
    for method in [Method::Feedback, Method::Saturate, Method::Gpfq] {
        for (stats, found) in [(None, "found none"), (Some(&diagonal[..]), "found the diagonal only")] {
            let problem = LayerProblem::new(weights.view(), stats, channel(3)).unwrap();
            let error = solve(method, &problem).unwrap_err().to_string();
            assert!(error.contains(&format!("`{method}` needs the Gram matrix")) && error.contains(found), "{error}");
        }
    }
}
