use super::SWEEPS;
use crate::error::QuantError;
use crate::grid::{Affine, Grid};
use crate::lattice::Forms;
use crate::method::Method;
use crate::panel::{Panel, PanelScales};
use crate::problem::LayerProblem;
use crate::scale::ScaleTable;
use crate::solution::LayerSolution;
use crate::spec::{Granularity, QuantSpec, ScaleRule};
use crate::stats::{DiagonalAccumulator, GramStats};
use crate::testing::{correlated_rows, energies, gaussian_rows, gaussian_weights};
use faer::Mat;
use ndarray::{Array2, Axis};

fn spec(bits: u32, granularity: Granularity) -> QuantSpec {
    QuantSpec::new(Grid::symmetric(bits).unwrap(), granularity, ScaleRule::Max).unwrap()
}

fn channel(bits: u32) -> QuantSpec {
    spec(bits, Granularity::Channel)
}

fn stats(rows: &Array2<f32>) -> [GramStats; 1] {
    [GramStats::from_rows(rows.view()).unwrap()]
}

fn solve(problem: &LayerProblem<'_>) -> Result<LayerSolution, QuantError> {
    crate::solve(Method::Optq, problem)
}

/// Every weight to the nearest level on the scales of `solution`.
fn rounded(problem: &LayerProblem<'_>, solution: &LayerSolution) -> LayerSolution {
    let mut plain = solution.clone();
    for ((g, k, m), code) in plain.codes.indexed_iter_mut() {
        let block = [g, k / solution.block_size, m];
        let affine = Affine::new(solution.scales[block], solution.zero_points[block]).unwrap();
        *code = affine.quantize(problem.weights()[[g, k, m]], problem.spec().grid());
    }
    plain
}

#[test]
fn optq_with_a_diagonal_gram_matrix_equals_rounding() {
    let weights = gaussian_weights(1, 20, 5, 1);
    // One input at a time, with both signs: no correlation and no mean.
    let rows = Array2::from_shape_fn((40, 20), |(i, k)| {
        if i / 2 == k { (1.0 + k as f32) * if i % 2 == 0 { 1.0 } else { -1.0 } } else { 0.0 }
    });
    let stats = stats(&rows);
    for bits in [2, 3, 4, 8] {
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(8)] {
            let problem = LayerProblem::new(weights.view(), Some(&stats), spec(bits, granularity)).unwrap();
            let solution = solve(&problem).unwrap();
            assert_eq!(solution.codes, rounded(&problem, &solution).codes, "{bits} {granularity:?}");
        }
    }
}

#[test]
fn never_worse_than_rounding_to_the_same_scales() {
    for (n, k, m) in [(300, 24, 40), (10, 70, 3), (300, 130, 5), (60, 17, 1)] {
        let weights = gaussian_weights(1, k, m, 3);
        let stats = stats(&correlated_rows(n, k, 4));
        for grid in [Grid::symmetric(2), Grid::asymmetric(3), Grid::mid_rise(1), Grid::full_range(8)] {
            for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(16)] {
                let spec =
                    QuantSpec::new(grid.as_ref().copied().unwrap(), granularity, ScaleRule::LeastSquares).unwrap();
                let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
                let solution = solve(&problem).unwrap();
                let found = energies(&problem, weights.view(), &solution.dequantize());
                let plain = energies(&problem, weights.view(), &rounded(&problem, &solution).dequantize());
                for (found, plain) in found.iter().zip(&plain) {
                    assert!(*found <= plain * (1.0 + 1e-9), "{n} {k} {grid:?} {granularity:?}: {found} {plain}");
                }
                crate::certify(&problem, &solution).unwrap();
            }
        }
    }
}

#[test]
fn few_inputs_get_the_brute_force_optimum() {
    for seed in 0..20 {
        let k = 3 + seed as usize % 4;
        let weights = gaussian_weights(1, k, 2, seed);
        let stats = stats(&correlated_rows(30, k, seed + 50));
        let problem = LayerProblem::new(weights.view(), Some(&stats), channel(2)).unwrap();
        let solution = solve(&problem).unwrap();
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
            assert!((found - best).abs() <= 1e-9 * best, "seed {seed}: {found} {best}");
        }
    }
}

#[test]
fn feedback_keeps_to_the_bound_of_the_nearest_plane() {
    for (n, k) in [(200, 12), (400, 150), (30, 90)] {
        let weights = gaussian_weights(1, k, 6, 1);
        let stats = stats(&correlated_rows(n, k, 2));
        let problem = LayerProblem::new(weights.view(), Some(&stats), channel(8)).unwrap();
        // Twice the range: nothing is clipped.
        let table = ScaleTable::fit(&problem, ScaleRule::Max).scaled(problem.spec(), 4.0);
        let Forms { forms, factors } = Forms::new(Method::Optq, &problem, problem.damping()).unwrap();
        let (form, factor) = (&forms[0], &factors[0]);
        let panel = Panel {
            form,
            lower: factor.lower.as_ref(),
            added: factor.added,
            grid: problem.spec().grid(),
            weights: Mat::from_fn(6, form.inputs.len(), |p, i| f64::from(weights[[0, form.inputs[i], p]])),
        };
        let affine = PanelScales::new(&table, 0, 0, 6, &form.inputs);
        let (fed, claimed) = panel.feed_back(&affine);
        for (p, (claimed, energy)) in claimed.into_iter().zip(panel.energies(&fed)).enumerate() {
            assert!((claimed - energy).abs() <= 1e-9 * energy, "{claimed} {energy}");
            let pivots: f64 =
                (0..k).map(|i| (f64::from(affine.at(i)[p].scale()) / 2.0 * factor.lower[(i, i)]).powi(2)).sum();
            assert!(energy <= pivots * (1.0 + 1e-5), "{energy} {pivots}");
        }
        let mut descended = fed.clone();
        panel.descend(&mut descended, &affine, SWEEPS);
        for (after, before) in panel.energies(&descended).into_iter().zip(panel.energies(&fed)) {
            assert!(after <= before * (1.0 + 1e-12));
        }
    }
}

#[test]
fn correlated_inputs_gain_much_and_singular_data_do_no_harm() {
    let weights = gaussian_weights(1, 96, 16, 1);
    let rows = correlated_rows(1000, 96, 2);
    for (rows, most) in [(rows.clone(), 0.6), (correlated_rows(20, 96, 3), 0.6)] {
        let stats = stats(&rows);
        for bits in [2, 4] {
            let problem = LayerProblem::new(weights.view(), Some(&stats), channel(bits)).unwrap();
            let solution = solve(&problem).unwrap();
            let plain = rounded(&problem, &solution);
            let sum = |solution: &LayerSolution| {
                energies(&problem, weights.view(), &solution.dequantize()).iter().sum::<f64>().sqrt()
            };
            assert!(sum(&solution) < most * sum(&plain), "{bits}: {} {}", sum(&solution), sum(&plain));
        }
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
    let solution = solve(&problem).unwrap();
    let plain = rounded(&problem, &solution);
    for k in [3, 7] {
        assert_eq!(solution.codes.index_axis(Axis(1), k), plain.codes.index_axis(Axis(1), k));
    }
    assert_ne!(solution.codes, plain.codes);
    let silent = [GramStats::from_rows(Array2::zeros((5, 30)).view()).unwrap()];
    let problem = LayerProblem::new(weights.view(), Some(&silent), channel(3)).unwrap();
    let solution = solve(&problem).unwrap();
    assert_eq!(solution.codes, rounded(&problem, &solution).codes);
}

#[test]
fn groups_are_solved_on_their_own_statistics() {
    let weights = gaussian_weights(3, 9, 2, 1);
    let stats: Vec<GramStats> = (0..3).map(|g| stats(&correlated_rows(60, 9, g))[0].clone()).collect();
    let problem = LayerProblem::new(weights.view(), Some(&stats), channel(3)).unwrap();
    let together = solve(&problem).unwrap();
    for g in 0..3 {
        let alone = weights.select(Axis(0), &[g]);
        let problem = LayerProblem::new(alone.view(), Some(&stats[g..=g]), channel(3)).unwrap();
        assert_eq!(solve(&problem).unwrap().codes, together.codes.select(Axis(0), &[g]));
    }
}

#[test]
fn the_same_bytes_with_any_number_of_threads() {
    let weights = gaussian_weights(1, 150, 70, 1);
    let stats = stats(&correlated_rows(300, 150, 2));
    for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(32)] {
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec(3, granularity)).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| solve(&problem)).unwrap()
        };
        let one = run(1);
        for threads in [2, 4] {
            let many = run(threads);
            assert_eq!((&one.codes, &one.scales), (&many.codes, &many.scales));
        }
    }
}

#[test]
fn without_a_gram_matrix_it_is_refused() {
    let weights = gaussian_weights(1, 6, 2, 1);
    let mut accumulator = DiagonalAccumulator::new(6).unwrap();
    accumulator.push(gaussian_rows(3, 6, 2).view()).unwrap();
    let diagonal = [accumulator.finish().unwrap()];
    for (stats, found) in [(None, "found none"), (Some(&diagonal[..]), "found the diagonal only")] {
        let problem = LayerProblem::new(weights.view(), stats, channel(3)).unwrap();
        let error = solve(&problem).unwrap_err().to_string();
        assert!(error.contains("`optq` needs the Gram matrix") && error.contains(found), "{error}");
    }
}
