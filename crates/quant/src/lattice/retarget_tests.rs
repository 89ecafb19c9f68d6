use super::*;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::options::SolverOptions;
use crate::layer::spec::{Granularity, QuantSpec};
use crate::testing::{correlated_rows, gaussian_rows, gaussian_weights, paired_stats, stats};

fn spec() -> QuantSpec {
    QuantSpec::new(Grid::symmetric(4).unwrap(), Granularity::Channel, ScaleRule::LeastSquares).unwrap()
}

/// Rows of the float network are those seen times a fixed matrix near the identity, and noise.
fn paired(n: usize, k: usize, seed: u64, noise: f32) -> [GramStats; 1] {
    let seen = correlated_rows(n, k, seed);
    let mixing = gaussian_rows(k, k, 77) * (0.3 / (k as f32).sqrt());
    let reference = &seen + &seen.dot(&mixing) + gaussian_rows(n, k, seed + 1) * noise;
    paired_stats(&seen, &reference)
}

fn forms(problem: &LayerProblem<'_>) -> Forms {
    Forms::new(Method::Feedback, problem, problem.damping()).unwrap()
}

#[test]
fn without_drift_the_target_is_the_weights() {
    let weights = gaussian_weights(1, 20, 7, 1);
    let (stats, fresh) = (stats(&correlated_rows(100, 20, 2)), stats(&correlated_rows(60, 20, 3)));
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec()).unwrap();
    let forms = forms(&problem);
    for problem in [problem, problem.with_held_out(&fresh).unwrap()] {
        let target = retarget(&problem, &forms).unwrap();
        assert_eq!((target.share, target.judged), (0.0, problem.held_out().is_some()));
        assert_eq!(target.weights, weights);
    }
}

#[test]
fn the_whole_way_solves_the_damped_normal_equations() {
    let weights = gaussian_weights(1, 12, 70, 1);
    let stats = paired(300, 12, 2, 0.1);
    for centred in [true, false] {
        let mut problem = LayerProblem::new(weights.view(), Some(&stats), spec()).unwrap();
        if !centred {
            problem = problem.with_fixed_bias();
        }
        let forms = forms(&problem);
        let target = moved(&problem, &forms, &forms.factors, 1.0);
        let drift = stats[0].drift().unwrap();
        let (mut h, mut b) = (stats[0].gram().unwrap().to_owned(), drift.cross().mapv(f64::from));
        if centred {
            for ((i, j), h) in h.indexed_iter_mut() {
                *h -= stats[0].mean()[i] * stats[0].mean()[j];
                b[[i, j]] -= stats[0].mean()[i] * drift.mean()[j];
            }
        }
        for i in 0..12 {
            h[[i, i]] += f64::from(forms.factors[0].added);
        }
        let w = weights.index_axis(Axis(0), 0).mapv(f64::from);
        let change = target.index_axis(Axis(0), 0).mapv(f64::from) - &w;
        let (left, right) = (h.dot(&change), b.dot(&w));
        let size = right.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        assert!((left - &right).iter().all(|difference| difference.abs() < 1e-4 * size));
    }
}

#[test]
fn held_out_rows_follow_a_real_drift_and_not_a_chance_one() {
    let weights = gaussian_weights(1, 24, 40, 1);
    let (calibration, fresh) = (paired(600, 24, 2, 0.0), paired(200, 24, 9, 0.0));
    let problem = LayerProblem::new(weights.view(), Some(&calibration), spec()).unwrap();
    let judged = problem.with_held_out(&fresh).unwrap();
    let metric = forms(&judged);
    let followed = retarget(&judged, &metric).unwrap();
    assert!(followed.share >= 0.75 && followed.judged, "{}", followed.share);
    assert_eq!(retarget(&problem, &forms(&problem)).unwrap().share, 0.5);

    // As many rows as inputs: what they seem to say about the drift is noise.
    let few = |n, seed| {
        let seen = gaussian_rows(n, 24, seed);
        paired_stats(&seen, &(&seen + &gaussian_rows(n, 24, seed + 1)))
    };
    let (calibration, fresh) = (few(26, 3), few(400, 5));
    let problem = LayerProblem::new(weights.view(), Some(&calibration), spec()).unwrap();
    let judged = problem.with_held_out(&fresh).unwrap();
    let metric = forms(&judged);
    let target = retarget(&judged, &metric).unwrap();
    assert!(target.share <= 0.25 && target.damping >= 0.1, "{} {}", target.share, target.damping);
}

#[test]
fn a_fixed_damping_is_kept() {
    let weights = gaussian_weights(1, 24, 5, 1);
    let (calibration, fresh) = (paired(60, 24, 2, 0.3), paired(60, 24, 9, 0.3));
    let options = SolverOptions::default().with_damping(0.07).unwrap();
    let problem = LayerProblem::new(weights.view(), Some(&calibration), spec()).unwrap().with_options(options);
    let judged = problem.with_held_out(&fresh).unwrap();
    assert_eq!(retarget(&judged, &forms(&judged)).unwrap().damping, 0.07);
}
