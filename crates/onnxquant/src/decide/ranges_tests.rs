use onnxquant_ir::Model;

use super::*;
use crate::decide::testing::{chain, histograms, of_power, on_codes, strict};
use crate::plan::scales::Scale;

/// A chain of two layers on codes, and the value between them.
struct Case {
    model: Model,
    config: Config,
    histograms: Histograms,
}

impl Case {
    fn new() -> Self {
        let model = chain(2);
        let histograms = histograms(&model, 30.0);
        Self { model, config: strict(), histograms }
    }

    fn value(&self, name: &str) -> ValueId {
        self.model.graph().find(name).unwrap()
    }

    /// How the range of a value is found.
    fn range(&self, assignment: &Assignment, name: &str) -> RangeMethod {
        self.scale(assignment, name).range
    }

    fn scale<'a>(&self, assignment: &'a Assignment, name: &str) -> &'a Scale {
        assignment.scales().of(self.model.graph(), self.value(name)).unwrap()
    }

    fn choose(&self, power: impl Fn(&Trial) -> f64 + Sync) -> Assignment {
        self.choose_on(MANY, power)
    }

    /// The same with so many validation samples.
    fn choose_on(&self, validation: usize, power: impl Fn(&Trial) -> f64 + Sync) -> Assignment {
        let measure = |trial: &Trial| Ok(of_power(power(trial)));
        let start = on_codes(&self.model, &self.config, histograms(&self.model, 30.0));
        let (graph, config, histograms) = (self.model.graph(), &self.config, &self.histograms);
        Ranges { graph, config, histograms, validation, measure: &measure }.of(&start).unwrap()
    }
}

#[test]
fn the_range_of_least_squared_error_stays_unless_another_one_removes_much() {
    let case = Case::new();
    let minmax = |trial: &Trial| case.range(&trial.assignment, "v1") == RangeMethod::MinMax;
    for (with, expected) in [
        (1.0, RangeMethod::MeanSquaredError),
        (0.8, RangeMethod::MeanSquaredError),
        (0.7, RangeMethod::MinMax),
        (f64::NAN, RangeMethod::MeanSquaredError),
    ] {
        let found = case.choose(|trial| if minmax(trial) { with } else { 1.0 });
        assert_eq!(case.range(&found, "v1"), expected, "{with}");
        assert_eq!(case.scale(&found, "v1").origin, Origin::BestForAll);
    }
}

/// Whether `v1` alone has got codes that are fine where most values are.
fn is_fine(case: &Case, trial: &Trial) -> bool {
    let scale = *case.scale(&trial.assignment, "v1");
    scale.origin == Origin::BestForTensor && scale.params.scale() < 1e-2
}

#[test]
fn a_tensor_gets_a_range_of_its_own_where_the_outputs_gain_much() {
    let case = Case::new();
    let found = case.choose(|trial| if is_fine(&case, trial) { 0.7 } else { 1.0 });
    let own = RangeMethod::Percentile(RangeMethod::DEFAULT_PERCENTILE);
    assert_eq!((case.range(&found, "v1"), case.scale(&found, "v1").origin), (own, Origin::BestForTensor));
    assert_eq!(case.range(&found, "v0"), RangeMethod::MeanSquaredError);
    let found = case.choose(|trial| if is_fine(&case, trial) { 0.8 } else { 1.0 });
    assert_eq!(case.range(&found, "v1"), RangeMethod::MeanSquaredError, "a fifth less is no evidence");
}

#[test]
fn few_validation_samples_are_no_evidence_against_the_values_that_were_seen() {
    let case = Case::new();
    let found = case.choose_on(MANY - 1, |trial| if is_fine(&case, trial) { 0.1 } else { 1.0 });
    assert_eq!(case.range(&found, "v1"), RangeMethod::MeanSquaredError);
    let clips = |trial: &Trial| {
        let scale = case.scale(&trial.assignment, "v1");
        scale.origin == Origin::BestForAll && scale.params.scale() < 1e-2
    };
    let range = |validation| {
        let found = case.choose_on(validation, |trial| if clips(trial) { 0.1 } else { 1.0 });
        case.range(&found, "v1")
    };
    assert_ne!(range(MANY), RangeMethod::MeanSquaredError);
    assert_eq!(range(MANY - 1), RangeMethod::MeanSquaredError);
}

#[test]
fn a_range_that_helps_on_few_samples_alone_is_not_taken() {
    let case = Case::new();
    let found = case.choose(|trial| match (is_fine(&case, trial), trial.samples) {
        (true, Trial::ALL) => 1.1,
        (true, _) => 0.1,
        (false, _) => 1.0,
    });
    assert_eq!(case.range(&found, "v1"), RangeMethod::MeanSquaredError);
}

#[test]
fn a_tensor_that_gains_nothing_by_16_bits_tries_no_other_range() {
    let case = Case::new();
    // Finer than 8 bits over all values, and coarser than 16.
    let by_range = |trial: &Trial| case.scale(&trial.assignment, "v1").params.scale() > 1e-3;
    let found = case.choose(|trial| if is_fine(&case, trial) && by_range(trial) { 0.1 } else { 1.0 });
    assert_eq!(case.range(&found, "v1"), RangeMethod::MeanSquaredError);
}
