use crate::certify::bias::mean_correction;
use crate::choose::solve::solve;
use crate::corrected_error;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::options::SolverOptions;
use crate::layer::problem::LayerProblem;
use crate::layer::solution::{LayerSolution, Note};
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::stats::gram::GramStats;
use crate::testing::{correlated_rows, energies, gaussian_rows, gaussian_weights, paired_stats, stats, with_threads};
use ndarray::Array3;

const METHODS: [Method; 2] = [Method::Feedback, Method::Saturate];

fn spec(grid: Grid, granularity: Granularity) -> QuantSpec {
    QuantSpec::new(grid, granularity, ScaleRule::LeastSquares).unwrap()
}

fn channel(bits: u32) -> QuantSpec {
    spec(Grid::symmetric(bits).unwrap(), Granularity::Channel)
}

fn paired(n: usize, k: usize, seed: u64) -> [GramStats; 1] {
    let seen = correlated_rows(n, k, seed);
    let mixing = gaussian_rows(k, k, 77) * (0.2 / (k as f32).sqrt());
    let reference = &seen + &seen.dot(&mixing) + 0.05;
    paired_stats(&seen, &reference)
}

fn error(weights: &Array3<f32>, solution: &LayerSolution, stats: &[GramStats]) -> f64 {
    let levels = solution.dequantize();
    let correction = mean_correction(weights.view(), levels.view(), stats).unwrap();
    corrected_error(weights.view(), levels.view(), correction.view(), stats).unwrap()
}

#[test]
fn hardly_ever_dearer_than_optq() {
    for (n, k, m) in [(300, 24, 40), (10, 70, 3), (300, 130, 5), (60, 17, 1)] {
        let weights = gaussian_weights(1, k, m, 3);
        let stats = stats(&correlated_rows(n, k, 4));
        for grid in [Grid::symmetric(2), Grid::asymmetric(3), Grid::mid_rise(1), Grid::full_range(8), Ok(Grid::e4m3())]
        {
            // A scale that all neurons share is not refitted: only the multiples that are tried differ.
            for granularity in [Granularity::Channel, Granularity::Block(16)] {
                let spec = spec(*grid.as_ref().unwrap(), granularity);
                let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
                let cost = |method: Method| -> f64 {
                    energies(&problem, weights.view(), &solve(method, &problem).unwrap().dequantize()).iter().sum()
                };
                let optq = cost(Method::Optq);
                for method in METHODS {
                    let found = cost(method);
                    assert!(found <= optq * 1.1, "{method} {n} {k} {grid:?} {granularity:?}: {found} {optq}");
                }
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
fn the_same_bytes_with_drift_options_and_any_number_of_threads() {
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
            let [one, many] = [1, 3].map(|threads| with_threads(threads, || solve(method, &problem)).unwrap());
            assert_eq!((&one.codes, &one.scales, &one.notes), (&many.codes, &many.scales, &many.notes));
        }
    }
}
