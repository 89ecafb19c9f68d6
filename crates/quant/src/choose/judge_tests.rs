use super::*;
use crate::certify::bias::mean_correction;
use crate::corrected_error;
use crate::layer::grid::Grid;
use crate::layer::spec::{Granularity, QuantSpec};
use crate::testing::{gaussian_rows, gaussian_weights, stats};
use ndarray::concatenate;

fn spec(bits: u32) -> QuantSpec {
    let grid = Grid::mid_rise(bits).unwrap();
    QuantSpec::new(grid, Granularity::Channel, ScaleRule::Max).unwrap()
}

#[test]
fn fresh_data_off_the_span_send_the_walk_home() {
    let weights = gaussian_weights(1, 64, 8, 1);
    let seen = stats(&gaussian_rows(8, 64, 2));
    let fresh = stats(&gaussian_rows(64, 64, 3));
    let problem = LayerProblem::new(weights.view(), Some(&seen), spec(4)).unwrap();
    let (solution, verdict) = auto(&Method::ALL, &problem, &fresh).unwrap();
    assert!(!verdict.winner().method.walks(), "{verdict:?}");
    // Rounding, gpfq and optq with two rules each, feedback, saturate and three walks.
    assert_eq!(verdict.candidates.len(), 11);
    let levels = solution.dequantize();
    let correction = mean_correction(weights.view(), levels.view(), &seen).unwrap();
    let error = corrected_error(weights.view(), levels.view(), correction.view(), &fresh).unwrap();
    assert_eq!(verdict.winner().outcome, Outcome::HeldOutError(error));
    for candidate in &verdict.candidates {
        assert!(matches!(candidate.outcome, Outcome::HeldOutError(other) if other >= error));
    }
}

#[test]
fn a_named_method_gives_way_to_rounding_off_the_span_only() {
    let weights = gaussian_weights(1, 64, 8, 1);
    let rows = gaussian_rows(8, 64, 2);
    let seen = stats(&rows);
    let problem = LayerProblem::new(weights.view(), Some(&seen), spec(2)).unwrap();
    let method = Method::CellWalk;
    let (solution, verdict) = guarded(method, &problem, &stats(&gaussian_rows(64, 64, 3))).unwrap();
    assert_eq!(verdict.winner().method, Method::Msq);
    let told = solution.notes.iter().map(ToString::to_string).find(|note| note.contains("instead of cell-walk"));
    assert!(told.is_some_and(|note| note.contains("on held-out rows")));
    let (solution, verdict) = guarded(method, &problem, &stats(&gaussian_rows(20, 8, 4).dot(&rows))).unwrap();
    assert_eq!(verdict.winner().method, method);
    assert!(solution.notes.iter().all(|note| !matches!(note, Note::FellBack { .. })));
}

#[test]
fn fresh_data_in_the_span_keep_the_walk() {
    let weights = gaussian_weights(1, 64, 8, 1);
    let rows = gaussian_rows(8, 64, 2);
    let fresh = stats(&gaussian_rows(20, 8, 4).dot(&rows));
    let seen = stats(&rows);
    let problem = LayerProblem::new(weights.view(), Some(&seen), spec(2)).unwrap();
    let (_, verdict) = auto(&Method::ALL, &problem, &fresh).unwrap();
    assert!(verdict.winner().method.walks(), "{verdict:?}");
}

#[test]
fn without_a_kernel_walks_are_not_run() {
    let weights = gaussian_weights(1, 16, 4, 1);
    let rows = stats(&gaussian_rows(200, 16, 2));
    let problem = LayerProblem::new(weights.view(), Some(&rows), spec(3)).unwrap();
    let (_, verdict) = auto(&Method::ALL, &problem, &rows).unwrap();
    assert!(verdict.winner().method.is_quadratic());
    for candidate in &verdict.candidates[8..] {
        assert_eq!(candidate.outcome, Outcome::SameAsRounding);
    }
}

#[test]
fn expensive_walks_must_win_on_a_few_neurons_first() {
    let weights = gaussian_weights(1, 1200, 100, 1);
    let seen = stats(&gaussian_rows(260, 1200, 2));
    let fresh = stats(&gaussian_rows(30, 1200, 3));
    let problem = LayerProblem::new(weights.view(), Some(&seen), spec(4)).unwrap();
    let (_, verdict) = auto(&[Method::Msq, Method::CellWalk], &problem, &fresh).unwrap();
    assert!(matches!(verdict.candidates[2].outcome, Outcome::ScreenedOut { .. }), "{verdict:?}");
}

#[test]
fn missing_candidates_statistics_and_groups_are_errors() {
    let weights = gaussian_weights(1, 16, 4, 1);
    let rows = stats(&gaussian_rows(8, 16, 2));
    let problem = LayerProblem::new(weights.view(), Some(&rows), spec(3)).unwrap();
    assert!(matches!(auto(&[], &problem, &rows), Err(QuantError::NoCandidates)));
    assert!(auto(&[Method::Msq], &problem, &[]).is_err());
    let blind = LayerProblem::new(weights.view(), None, spec(3)).unwrap();
    assert!(auto(&[Method::CellWalk], &blind, &rows).is_err());
    let twice = concatenate![Axis(0), weights, weights];
    assert!(relative_error(twice.view(), twice.view(), &rows).is_err());
    assert!(relative_error(weights.view(), twice.view(), &rows).is_err());
}

#[test]
fn a_fixed_bias_is_judged_with_its_mean_error() {
    let weights = gaussian_weights(1, 24, 6, 1);
    let rows = gaussian_rows(200, 24, 2) + 3.0;
    let (seen, fresh) = (stats(&rows), stats(&(gaussian_rows(100, 24, 3) + 3.0)));
    let problem = LayerProblem::new(weights.view(), Some(&seen), spec(3)).unwrap();
    for (problem, corrected) in [(problem, true), (problem.with_fixed_bias(), false)] {
        let (solution, verdict) = auto(&[Method::Optq], &problem, &fresh).unwrap();
        let Outcome::HeldOutError(judged) = verdict.winner().outcome else { panic!("{verdict:?}") };
        let plain = relative_error(weights.view(), solution.dequantize().view(), &fresh).unwrap();
        assert_eq!(judged != plain, corrected, "{judged} {plain}");
    }
}

#[test]
fn walks_that_take_too_long_are_left_out() {
    let weights = gaussian_weights(1, 1000, 1700, 1);
    let seen = stats(&gaussian_rows(400, 1000, 2));
    let problem = LayerProblem::new(weights.view(), Some(&seen), spec(8)).unwrap();
    let (_, verdict) = auto(&[Method::Msq, Method::CellWalk], &problem, &seen).unwrap();
    let Outcome::TooExpensive { multiply_adds, limit } = verdict.candidates[2].outcome else { panic!("{verdict:?}") };
    assert!(multiply_adds > limit && verdict.chosen < 2);
}
