use onnxquant_calib::NotMeasured;
use onnxquant_ir::Model;

use super::*;
use crate::decide::testing::{chain, histograms, of_power, on_codes, strict};

/// A chain of three layers on codes; each does some harm, which adds up.
struct Case {
    model: Model,
    config: Config,
    harms: [f64; 3],
}

impl Case {
    fn new(min_sqnr_db: f64, harms: [f64; 3]) -> Self {
        let config = Config { min_sqnr_db: Some(min_sqnr_db), ..strict() };
        Self { model: chain(3), config, harms }
    }

    fn layers(&self) -> Vec<NodeId> {
        self.model.graph().order().to_vec()
    }

    fn start(&self) -> Assignment {
        on_codes(&self.model, &self.config, histograms(&self.model, 2.0))
    }

    /// What the layers on codes do; those with 16 bits do nothing.
    fn harm(&self, candidate: &Assignment) -> f64 {
        let layers = self.layers();
        let of = |leader: &NodeId| layers.iter().position(|layer| layer == leader).map_or(0.0, |at| self.harms[at]);
        let coarse = candidate.leaders().into_iter().filter(|leader| !candidate.is_widened(*leader));
        coarse.map(|leader| of(&leader)).sum()
    }

    fn retreat(&self, whole: &dyn Measure<Assignment>) -> (Assignment, Trail) {
        let alone = |candidate: &Assignment| Ok(of_power(self.harm(candidate)));
        let (graph, config) = (self.model.graph(), &self.config);
        let question =
            Retreat { graph, config, weights: Weights::Codes, judged_by: JudgedBy::Simulation, whole, alone: &alone };
        question.from(self.start(), Trail::default()).unwrap()
    }

    fn by_harm(&self) -> (Assignment, Trail) {
        self.retreat(&|candidate: &Assignment| Ok(of_power(self.harm(candidate).max(1e-12))))
    }
}

#[test]
fn nothing_goes_where_the_goal_is_reached_at_once() {
    let case = Case::new(20.0, [1e-3, 2e-3, 3e-3]);
    let (found, trail) = case.by_harm();
    assert_eq!(found.leaders(), case.layers());
    assert_eq!((trail.rounds.len(), trail.alone.len()), (1, 0));
}

#[test]
fn the_layer_that_harms_most_goes_first_and_no_other() {
    let case = Case::new(20.0, [1e-3, 5e-2, 2e-3]);
    let layers = case.layers();
    let (found, trail) = case.by_harm();
    assert_eq!(found.leaders(), [layers[0], layers[2]]);
    let order: Vec<NodeId> = trail.alone.iter().map(|alone| alone.leader).collect();
    assert_eq!(order, [layers[1], layers[2], layers[0]]);
    let gone: Vec<&[NodeId]> = trail.rounds.iter().map(|round| round.to_float.as_slice()).collect();
    assert_eq!(gone, [&[][..], &[layers[1]]]);
    assert_eq!(trail.rounds[1].integer_layers, 2);
}

#[test]
fn a_goal_that_is_reached_within_the_margin_counts_in_the_first_round_only() {
    // 20.1 dB: reached, but not with the margin that plans chosen on these samples need.
    let at_once = Case::new(20.0, [9.77e-3, 0.0, 0.0]);
    assert_eq!(at_once.by_harm().1.rounds.len(), 1);
    let later = Case::new(20.0, [9.77e-3, 9e-2, 0.0]);
    let (found, trail) = later.by_harm();
    assert!(trail.rounds.len() > 2, "{:?}", trail.rounds);
    assert_eq!(found.leaders(), [later.layers()[2]]);
}

#[test]
fn of_what_was_more_than_enough_some_is_taken_back() {
    // Alone they harm alike; together it is the first that counts.
    let case = Case::new(20.0, [4e-2, 4e-2, 4e-2]);
    let first = case.layers()[0];
    let (found, trail) = case
        .retreat(&|candidate: &Assignment| Ok(of_power(if candidate.leaders().contains(&first) { 0.5 } else { 1e-6 })));
    assert_eq!(found.leaders(), case.layers()[1..]);
    let gone: Vec<usize> = trail.rounds.iter().map(|round| round.to_float.len()).collect();
    assert_eq!(gone, [0, 3, 1]);
}

#[test]
fn where_the_goal_is_out_of_reach_the_nearest_stays() {
    let case = Case::new(60.0, [1e-9, 1e-9, 3e-3]);
    // Most exact with two layers on integers, and never exact enough.
    let (found, trail) =
        case.retreat(&|candidate: &Assignment| Ok(of_power([1e-2, 8e-3, 1e-3, 5e-3][candidate.leaders().len()])));
    assert_eq!(found.leaders().len(), 2);
    assert_eq!(trail.rounds.last().map(|round| round.integer_layers), Some(0));
    // What is not measured has reached nothing, and is not nearer than what was.
    let (found, _) = case.retreat(&|candidate: &Assignment| {
        Ok(match candidate.is_empty() {
            true => Measurement::NotMeasured(NotMeasured::NoOutputs),
            false => of_power(1e-2),
        })
    });
    assert_eq!(found.leaders().len(), 3);
}

#[test]
fn codes_become_wider_before_they_become_floats() {
    let mut case = Case::new(20.0, [1e-3, 5e-2, 2e-3]);
    case.config.activation_bits = ActivationBits::Mixed;
    let worst = case.layers()[1];
    let (found, trail) = case.by_harm();
    assert_eq!(found.leaders(), case.layers());
    assert!(found.is_widened(worst));
    assert_eq!((&trail.rounds[1].to_16_bits, &trail.rounds[1].to_float), (&vec![worst], &vec![]));
    // Where that does not help it goes.
    let (found, _) = case
        .retreat(&|candidate: &Assignment| Ok(of_power(if candidate.leaders().contains(&worst) { 0.5 } else { 1e-4 })));
    assert!(!found.leaders().contains(&worst));
}

#[test]
fn with_float_weights_some_error_is_forgiven() {
    let case = Case::new(20.0, [1.5e-2, 0.0, 0.0]);
    let measure = |candidate: &Assignment| Ok(of_power(case.harm(candidate)));
    let (graph, config) = (case.model.graph(), &case.config);
    for (weights, layers) in [(Weights::Float, 3), (Weights::Codes, 2)] {
        let question =
            Retreat { graph, config, weights, judged_by: JudgedBy::Simulation, whole: &measure, alone: &measure };
        let (found, _) = question.from(case.start(), Trail::default()).unwrap();
        assert_eq!(found.leaders().len(), layers, "{weights:?}");
    }
}

#[test]
fn the_line_through_two_rounds_says_what_must_go() {
    let mut line = Line::default();
    // 1 + 3 of power: half of all must go.
    assert!((line.too_much(2.0, 4.0) - 2.0).abs() < 1e-12);
    // 0.5 is not theirs: excess = 0.5 + 0.375 power; of the 2 left 2/3 must go.
    assert!((line.too_much(1.25, 2.0) - 2.0 / 3.0).abs() < 1e-12);
    // No gain by what went: as at first.
    assert!((line.too_much(1.25, 1.0) - 0.2).abs() < 1e-12);
    assert!(Line::default().too_much(f64::INFINITY, 3.0) >= 3.0);
}
