//! How exact outputs are: the one measure by which ranges, equalization, retreat, bits and goals are decided.
//!
//! It is that of the worst: of all outputs, and of all parts of an output that differ in scale
//! ([`onnxquant_calib::Slicing`]), the one with the least SQNR. An error pooled over them would be that of the largest
//! numbers alone. What was not measured is worse than everything that was.

use onnxquant_calib::{Measurement, NotMeasured, OutputComparison, TokenError, judged_outputs};
use schemars::JsonSchema;
use serde::Serialize;

/// How exact the outputs are.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Accuracy {
    /// Signal-to-quantization-noise ratio in dB of the output, or part of one, where it is least; `null` in JSON where
    /// nothing differs.
    pub sqnr_db: f64,
    /// The least SQNR in dB of a single sample, over all of an output.
    pub worst_sample_db: f64,
    /// One minus the mean cosine over the samples, of the output, or part of one, where it is largest.
    pub loss: f64,
    /// Which output or part has the least SQNR; absent where there is only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_exact: Option<String>,
    /// What a language model says of the tokens that follow, where an output holds their scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenFigures>,
}

/// How well a language model foretells the tokens that follow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TokenFigures {
    /// Tokens foretold.
    pub tokens: usize,
    /// Perplexity of the float model.
    pub float_perplexity: f64,
    /// Perplexity of the quantized model.
    pub perplexity: f64,
    /// The second over the first.
    pub perplexity_ratio: f64,
    /// Mean Kullback-Leibler divergence of the quantized model's distribution from the float model's, in nats.
    pub mean_divergence: f64,
}

impl From<TokenError> for TokenFigures {
    fn from(found: TokenError) -> Self {
        Self {
            tokens: found.tokens,
            float_perplexity: found.float_loss.exp(),
            perplexity: found.loss.exp(),
            perplexity_ratio: (found.loss - found.float_loss).exp(),
            mean_divergence: found.divergence,
        }
    }
}

impl Accuracy {
    /// The power of the error over that of the outputs.
    pub(crate) fn power(&self) -> f64 {
        error_power(self.sqnr_db)
    }
}

/// The power of the error over that of the outputs; infinite where it was not measured.
pub(crate) fn power(found: &Measurement<Accuracy>) -> f64 {
    found.measured().map_or(f64::INFINITY, Accuracy::power)
}

/// The power of an error over that of the signal.
pub(crate) fn error_power(sqnr_db: f64) -> f64 {
    10f64.powf(-sqnr_db / 10.0)
}

/// How exact `outputs` are. It is not known where the shapes of one of them differ; one without elements is passed over
/// where there are others.
pub(crate) fn accuracy(outputs: &[OutputComparison]) -> Measurement<Accuracy> {
    let judged: Vec<&OutputComparison> = judged_outputs(outputs).collect();
    let why_not: Vec<&NotMeasured> = judged.iter().filter_map(|output| output.found.why_not()).collect();
    if let Some(&why) = why_not.iter().find(|why| matches!(why, NotMeasured::Incomparable { .. })) {
        return Measurement::NotMeasured(why.clone());
    }
    let mut worst: Option<Accuracy> = None;
    for (output, error) in judged.iter().filter_map(|output| Some((output, output.found.measured()?))) {
        let (sqnr_db, part) = error.least_sqnr_db();
        let name = part.map_or_else(|| format!("`{}`", output.name), |part| format!("`{}` {part}", output.name));
        let is_named = judged.len() > 1 || part.is_some();
        let least_exact = Some(name).filter(|_| is_named);
        let tokens = output.tokens.map(TokenFigures::from);
        let worst_sample_db = error.worst_sample_db;
        let found = Accuracy { sqnr_db, worst_sample_db, loss: error.loss(), least_exact, tokens };
        worst = Some(match worst {
            Some(worst) => worse(worst, found),
            None => found,
        });
    }
    match worst {
        Some(worst) => Measurement::Measured(worst),
        None => Measurement::NotMeasured(why_not.first().map_or(NotMeasured::NoOutputs, |&why| why.clone())),
    }
}

/// The lower SQNR and the higher loss; what is not a number is worse than any number.
fn worse(a: Accuracy, b: Accuracy) -> Accuracy {
    let loss = if a.loss >= b.loss || a.loss.is_nan() { a.loss } else { b.loss };
    let samples = [a.worst_sample_db, b.worst_sample_db];
    let worst_sample_db = if samples[0] <= samples[1] || samples[0].is_nan() { samples[0] } else { samples[1] };
    let tokens = [a.tokens, b.tokens]
        .into_iter()
        .flatten()
        .reduce(|a, b| if a.perplexity_ratio >= b.perplexity_ratio || a.perplexity_ratio.is_nan() { a } else { b });
    let least = if a.sqnr_db <= b.sqnr_db || a.sqnr_db.is_nan() { a } else { b };
    Accuracy { worst_sample_db, loss, tokens, ..least }
}

#[cfg(test)]
mod tests {
    use onnxquant_calib::OutputError;

    use super::*;

    fn output(name: &str, found: Measurement<OutputError>) -> OutputComparison {
        OutputComparison { name: name.to_owned(), samples: 2, incomparable: 0, is_float: true, found, tokens: None }
    }

    /// An output whose error is so many times smaller than itself.
    fn exact(name: &str, signal_power: f64, times: f64) -> OutputComparison {
        let error = OutputError {
            signal_power,
            error_power: signal_power / times,
            spread: None,
            worst_sample_db: 10.0 * times.log10(),
            max_abs_error: 1.0,
            mean_cosine: 1.0 - 1.0 / times,
            equal_fraction: 0.0,
            slices: Vec::new(),
        };
        output(name, Measurement::Measured(error))
    }

    #[test]
    fn small_outputs_are_not_drowned_by_large_ones() {
        let found = accuracy(&[exact("boxes", 1e6, 1e4), exact("scores", 1.0, 10.0)]);
        let found = found.measured().unwrap();
        assert!((found.sqnr_db - 10.0).abs() < 1e-9 && (found.loss - 0.1).abs() < 1e-12, "{found:?}");
        assert_eq!(found.least_exact.as_deref(), Some("`scores`"));
        let alone = accuracy(&[exact("scores", 1.0, 10.0)]);
        assert_eq!(alone.measured().unwrap().least_exact, None);
        let nan = accuracy(&[exact("a", 1.0, 10.0), exact("b", f64::NAN, 10.0), exact("c", 1.0, 10.0)]);
        assert!(power(&nan).is_nan());
    }

    #[test]
    fn what_was_not_measured_is_never_exact() {
        let lost = NotMeasured::Incomparable { incomparable: 2, samples: 2 };
        let found = accuracy(&[exact("a", 1.0, 1e9), output("b", Measurement::NotMeasured(lost.clone()))]);
        assert_eq!((power(&found), found.why_not()), (f64::INFINITY, Some(&lost)));
        assert_eq!(accuracy(&[]).why_not(), Some(&NotMeasured::NoOutputs));
        let empty = NotMeasured::NoElements { samples: 2 };
        let nothing = output("b", Measurement::NotMeasured(empty.clone()));
        assert_eq!(accuracy(std::slice::from_ref(&nothing)).why_not(), Some(&empty));
        assert!(accuracy(&[nothing, exact("a", 1.0, 10.0)]).measured().is_some());
    }

    #[test]
    fn in_json_stands_the_figure_or_why_there_is_none() {
        let json = |found: &Measurement<Accuracy>| serde_json::to_value(found).unwrap();
        let equal = Accuracy {
            sqnr_db: f64::INFINITY,
            worst_sample_db: f64::INFINITY,
            loss: 0.0,
            least_exact: None,
            tokens: None,
        };
        assert_eq!(
            json(&Measurement::Measured(equal)),
            serde_json::json!({ "sqnr_db": null, "worst_sample_db": null, "loss": 0.0 })
        );
        let none = json(&Measurement::NotMeasured(NotMeasured::NoSamples));
        assert_eq!(none, serde_json::json!({ "not_measured": "no samples were given" }));
    }
}
