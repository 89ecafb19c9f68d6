//! How exact the outputs must be.

use onnxquant_calib::Measurement;

use crate::accuracy::{Accuracy, error_power};
use crate::config::Config;

/// How exact the outputs must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    sqnr_db: Option<f64>,
    loss: Option<f64>,
    perplexity_ratio: Option<f64>,
}

impl Goal {
    /// What `config` asks for, if anything.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let perplexity_ratio = config.max_perplexity_ratio;
        let goal = Self { sqnr_db: config.wanted_sqnr_db(), loss: config.max_loss, perplexity_ratio };
        (goal.sqnr_db.is_some() || goal.loss.is_some() || perplexity_ratio.is_some()).then_some(goal)
    }

    /// A goal that is so much higher, in dB.
    pub(super) fn raised(self, by_db: f64) -> Self {
        let sqnr_db = self.sqnr_db.map(|wanted| wanted + by_db);
        let factor = error_power(by_db);
        let perplexity_ratio = self.perplexity_ratio.map(|most| most.powf(factor));
        Self { sqnr_db, loss: self.loss.map(|most| most * factor), perplexity_ratio }
    }

    /// By which factor the power of the error is too large; at most 1 where the goal is reached. What was not measured
    /// has reached nothing.
    pub(crate) fn excess(&self, found: &Measurement<Accuracy>) -> f64 {
        let Measurement::Measured(found) = found else { return f64::INFINITY };
        let sqnr = self.sqnr_db.map_or(0.0, |wanted| 10f64.powf((wanted - found.sqnr_db) / 10.0));
        // For small errors one minus the cosine grows with their power.
        let loss = self.loss.map_or(0.0, |most| if found.loss <= most { 1.0 } else { found.loss / most });
        // What perplexity loses in nats grows with it as well.
        let perplexity = self.perplexity_ratio.map_or(0.0, |most| {
            let ratio = found.tokens.map_or(f64::NAN, |tokens| tokens.perplexity_ratio);
            if ratio <= most { 1.0 } else { ratio.ln() / most.ln() }
        });
        // The larger of two numbers hides a NaN.
        let is_unknown = found.sqnr_db.is_nan() || found.loss.is_nan() || perplexity.is_nan();
        if is_unknown { f64::INFINITY } else { sqnr.max(loss).max(perplexity) }
    }
}

#[cfg(test)]
mod tests {
    use onnxquant_calib::NotMeasured;

    use crate::accuracy::TokenFigures;

    use super::*;

    fn accuracy(sqnr_db: f64, loss: f64) -> Measurement<Accuracy> {
        Measurement::Measured(Accuracy { sqnr_db, worst_sample_db: sqnr_db, loss, least_exact: None, tokens: None })
    }

    #[test]
    fn excess_is_that_of_the_goal_that_is_missed_most() {
        let config = Config { min_sqnr_db: Some(30.0), max_loss: Some(0.01), ..Config::default() };
        let goal = Goal::of(&config).unwrap();
        let table = [
            (accuracy(30.0, 0.01), 1.0),
            (accuracy(40.0, 0.0), 1.0),
            (accuracy(20.0, 0.0), 10.0),
            (accuracy(50.0, 0.05), 5.0),
            (accuracy(f64::NAN, 0.0), f64::INFINITY),
            (accuracy(50.0, f64::NAN), f64::INFINITY),
        ];
        for (found, expected) in table {
            let excess = goal.excess(&found);
            assert!(excess == expected || (excess - expected).abs() < 1e-9, "{found:?}: {excess}");
        }
        assert_eq!(goal.excess(&Measurement::NotMeasured(NotMeasured::NoOutputs)), f64::INFINITY);
        let exact = Config { max_loss: Some(0.0), ..Config::default() };
        let exact = Goal::of(&exact).unwrap();
        assert!(exact.excess(&accuracy(90.0, 1e-9)) > 1.0);
        assert!(exact.excess(&accuracy(f64::INFINITY, 0.0)) <= 1.0);
        assert!(Goal::of(&Config::default()).is_none());
    }

    #[test]
    fn perplexity_is_a_goal_where_tokens_are_foretold() {
        let goal = Goal::of(&Config { max_perplexity_ratio: Some(1.1), ..Config::default() }).unwrap();
        let found = |perplexity_ratio: f64| {
            let (float_perplexity, perplexity) = (10.0, 10.0 * perplexity_ratio);
            let figures =
                TokenFigures { tokens: 9, float_perplexity, perplexity, perplexity_ratio, mean_divergence: 0.1 };
            let accuracy = accuracy(10.0, 0.0).measured().unwrap().clone();
            goal.excess(&Measurement::Measured(Accuracy { tokens: Some(figures), ..accuracy }))
        };
        assert_eq!((found(1.1), found(0.9), found(f64::NAN)), (1.0, 1.0, f64::INFINITY));
        assert!((found(1.21) - 2.0).abs() < 1e-9);
        assert_eq!(goal.excess(&accuracy(90.0, 0.0)), f64::INFINITY);
    }
}
