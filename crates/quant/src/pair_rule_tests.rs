//! What holds of all methods where codes are bound to each other two by two.

use crate::grid::Grid;
use crate::method::Method;
use crate::options::SolverOptions;
use crate::pairs::PairRule;
use crate::problem::LayerProblem;
use crate::solution::LayerSolution;
use crate::spec::{Granularity, QuantSpec, ScaleRule};
use crate::stats::GramStats;
use crate::testing::{correlated_rows, gaussian_weights, paired_stats};
use crate::{certify, solve};
use ndarray::Array3;

fn spec(bits: u32, granularity: Granularity, scale_rule: ScaleRule) -> QuantSpec {
    QuantSpec::new(Grid::symmetric(bits).unwrap(), granularity, scale_rule).unwrap()
}

/// Few large weights and many small ones, as trained layers have them.
fn heavy_tailed(groups: usize, k: usize, m: usize) -> Array3<f32> {
    gaussian_weights(groups, k, m, 7).mapv(|w| w * w.abs().sqrt())
}

fn broken(rule: PairRule, solution: &LayerSolution) -> usize {
    let (groups, k, outputs) = solution.codes.dim();
    let code = |g: usize, k: usize, m: usize| solution.codes[[g, k, m]];
    let breaks = |(first, second): (usize, usize)| {
        let neurons = (0..groups).flat_map(|g| (0..outputs).map(move |m| (g, m)));
        neurons.filter(|(g, m)| !PairRule::allows(code(*g, first, *m), code(*g, second, *m))).count()
    };
    rule.pairs(k).into_iter().map(breaks).sum()
}

/// Of the layer's output on the calibration rows.
fn error(problem: &LayerProblem<'_>, method: Method) -> f64 {
    let solution = solve(method, problem).unwrap();
    certify(problem, &solution).unwrap().certificate.achieved.unwrap()
}

/// A layer's rule and statistics, one group after the other.
fn layers() -> Vec<(PairRule, usize, Vec<GramStats>)> {
    let stats = |groups: u64, k: usize| -> Vec<GramStats> {
        let paired = |seed| {
            let rows = correlated_rows(4 * k, k, seed);
            let reference = &rows + &(correlated_rows(4 * k, k, seed + 50) * 0.02);
            let [stats] = paired_stats(&rows, &reference);
            stats
        };
        (1..=groups).map(paired).collect()
    };
    vec![
        (PairRule::dense(75), 75, stats(1, 75)),
        (PairRule::dense(130), 130, stats(1, 130)),
        (PairRule::dense(14), 14, stats(1, 14)),
        (PairRule::convolution(3, 9, 3), 27, stats(1, 27)),
        (PairRule::convolution(3, 9, 4), 27, stats(1, 27)),
        (PairRule::convolution(4, 5, 4), 20, stats(2, 20)),
        (PairRule::convolution(1, 9, 1), 9, stats(3, 9)),
    ]
}

#[test]
fn no_method_leaves_codes_that_saturate() {
    let mut saturating = 0;
    for (rule, k, stats) in layers() {
        let weights = heavy_tailed(stats.len(), k, 12);
        for granularity in [Granularity::Channel, Granularity::Tensor] {
            for scale_rule in [ScaleRule::Max, ScaleRule::LeastSquares] {
                let free = spec(8, granularity, scale_rule);
                let problem = LayerProblem::new(weights.view(), Some(&stats), free).unwrap();
                let bound = problem.with_spec(free.with_pairs(rule).unwrap());
                let beamed = bound.with_options(SolverOptions::default().with_beam(4).unwrap());
                for method in Method::ALL {
                    saturating += broken(rule, &solve(method, &problem).unwrap());
                    for problem in [&bound, &beamed] {
                        let solution = solve(method, problem).unwrap();
                        assert_eq!(broken(rule, &solution), 0, "{method} {rule:?} {granularity:?} {scale_rule:?}");
                        certify(problem, &solution).unwrap();
                    }
                }
            }
        }
    }
    assert!(saturating > 100, "{saturating}");
}

#[test]
fn codes_beside_inputs_that_never_move_keep_the_rule() {
    let k = 24;
    let mut rows = correlated_rows(90, k, 3);
    for dead in [0, 3, 6, 7, 21] {
        rows.column_mut(dead).fill(0.5);
    }
    let stats = [GramStats::from_rows(rows.view()).unwrap()];
    let weights = heavy_tailed(1, k, 40);
    let rule = PairRule::dense(k);
    let bound = spec(8, Granularity::Channel, ScaleRule::Max).with_pairs(rule).unwrap();
    let problem = LayerProblem::new(weights.view(), Some(&stats), bound).unwrap();
    for method in Method::ALL {
        let solution = solve(method, &problem).unwrap();
        assert_eq!(broken(rule, &solution), 0, "{method}");
    }
    let without_data = LayerProblem::new(weights.view(), None, bound).unwrap();
    assert_eq!(broken(rule, &solve(Method::Msq, &without_data).unwrap()), 0);
}

#[test]
fn keeping_the_rule_costs_less_than_half_a_bit() {
    for (k, rule) in [(64, PairRule::dense(64)), (255, PairRule::dense(255)), (54, PairRule::convolution(6, 9, 6))] {
        let stats = [GramStats::from_rows(correlated_rows(3 * k, k, 5).view()).unwrap()];
        for weights in [heavy_tailed(1, k, 32), gaussian_weights(1, k, 32, 7)] {
            let free = spec(8, Granularity::Channel, ScaleRule::LeastSquares);
            let problem = LayerProblem::new(weights.view(), Some(&stats), free).unwrap();
            for method in [Method::Optq, Method::Feedback] {
                let found = |spec| error(&problem.with_spec(spec), method);
                let (bound, free) = (found(free.with_pairs(rule).unwrap()), found(free));
                assert!(
                    bound < std::f64::consts::SQRT_2 * free,
                    "{method} {rule:?}: {free} without it, {bound} with it"
                );
            }
        }
    }
}

#[test]
fn rules_need_codes_without_zero_points_and_blocks_and_few_bits_are_free() {
    let rule = PairRule::dense(8);
    let spec = |grid: Grid, granularity| QuantSpec::new(grid, granularity, ScaleRule::Max).unwrap();
    let blocks = spec(Grid::symmetric(8).unwrap(), Granularity::Block(4));
    let shifted = spec(Grid::asymmetric(8).unwrap(), Granularity::Channel);
    assert!(blocks.with_pairs(rule).is_err() && shifted.with_pairs(rule).is_err());
    for bits in 1..=7 {
        let spec = spec(Grid::symmetric(bits).unwrap(), Granularity::Channel);
        assert!(spec.with_pairs(rule).is_ok_and(|spec| spec.pairs().is_none()), "{bits} bits");
    }
}
