//! How exact outputs can be expected to be on new data.
//!
//! # Problem
//!
//! Errors of some outputs are rare events: a network that reads a line of text puts a letter one step further or does not,
//! and a softmax hides every error but those of samples between two classes. A few held-out samples then see none of
//! these events, or a third of all. Of a text recognizer 19 samples gave 21.8 dB, or 27.1 where inputs differed by a
//! millionth; all 96 gave 20.0, and 200 others 18.0.
//!
//! # Method
//!
//! Two rules lower the figure, output by output:
//!
//! - Nothing is more exact on new samples than on those that codes and scales were fitted to. Where these, which are more,
//!   have the larger error, theirs is taken.
//! - The error is raised by its standard error over the samples, part by part: of a detector's class scores one picture
//!   may carry nearly all, and then what the others have is as likely on new ones.
//!
//! # Failure
//!
//! What happens in none of the samples cannot be foreseen.

use onnxquant_calib::{OutputComparison, OutputError, judged_outputs, larger};

use crate::accuracy::error_power;

/// Samples that were used before and are run as well: more cost time and tell little more.
pub(super) const MOST_SEEN: usize = 64;

/// The SQNR in dB that the least exact output can be expected to have on new data, by what was found on held-out samples
/// and on others that were used before. Nothing where nothing was measured.
pub(crate) fn expected_db(held_out: &[OutputComparison], seen: &[OutputComparison]) -> Option<f64> {
    let of_seen = |name: &str| seen.iter().find(|output| output.name == name)?.found.measured();
    let power = |output: &OutputComparison| {
        let held_out = raised_power(output.found.measured()?);
        Some(of_seen(&output.name).map_or(held_out, |seen| larger(held_out, raised_power(seen))))
    };
    let powers = judged_outputs(held_out).filter_map(power);
    powers.reduce(larger).map(|power| -10.0 * power.log10())
}

/// The power of the error over that of the signal, and its standard error, of the part where that is most.
fn raised_power(found: &OutputError) -> f64 {
    let raised = |sqnr_db: f64, spread: Option<f64>| error_power(sqnr_db) * (1.0 + spread.unwrap_or(0.0));
    let parts = found.slices.iter().map(|part| raised(part.sqnr_db(), part.spread.or(found.spread)));
    parts.fold(raised(found.sqnr_db(), found.spread), larger)
}

#[cfg(test)]
mod tests {
    use onnxquant_calib::{Measurement, NotMeasured};

    use super::*;

    fn output(name: &str, error_power: f64, spread: Option<f64>) -> OutputComparison {
        let error = OutputError {
            signal_power: 1.0,
            error_power,
            spread,
            worst_sample_db: 0.0,
            max_abs_error: 1.0,
            mean_cosine: 1.0,
            equal_fraction: 0.0,
            slices: Vec::new(),
        };
        let found = Measurement::Measured(error);
        OutputComparison { name: name.to_owned(), samples: 8, incomparable: 0, is_float: true, found, tokens: None }
    }

    fn expected(held_out: &[OutputComparison], seen: &[OutputComparison]) -> f64 {
        expected_db(held_out, seen).unwrap()
    }

    #[test]
    fn the_larger_error_counts_with_its_spread() {
        let held_out = [output("y", 1e-3, Some(0.25))];
        let table = [
            (expected(&held_out, &[]), 1.25e-3),
            (expected(&held_out, &[output("y", 1e-4, Some(0.5))]), 1.25e-3),
            (expected(&held_out, &[output("y", 1e-2, Some(0.5))]), 1.5e-2),
            (expected(&held_out, &[output("other", 1e-2, None)]), 1.25e-3),
            (expected(&[output("a", 1e-4, None), output("b", 1e-3, None)], &[output("a", 1e-1, None)]), 1e-1),
        ];
        for (found, power) in table {
            assert!((found + 10.0 * f64::log10(power)).abs() < 1e-9, "{found} dB, {power}");
        }
    }

    #[test]
    fn nothing_is_expected_of_what_was_not_measured() {
        let none = Measurement::NotMeasured(NotMeasured::NoSamples);
        let not = OutputComparison { found: none, ..output("y", 1.0, None) };
        assert_eq!(expected_db(std::slice::from_ref(&not), &[output("y", 1e-3, None)]), None);
        assert_eq!(expected_db(&[output("y", 0.0, None)], &[]), Some(f64::INFINITY));
        assert!(expected(&[output("y", f64::NAN, None)], &[output("y", 1e-3, None)]).is_nan());
    }
}
