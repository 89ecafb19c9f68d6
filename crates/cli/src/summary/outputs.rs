//! How exact the outputs are, as it is printed.

use onnxquant::calib::{Measurement, NotMeasured};
use onnxquant::{Accuracy, Measured, NotRun, OutputReport, Report, TokenFigures};

use crate::table::decibels;

/// Where outputs are not computed.
const BEFORE: &str = " of the values before what is not run";

/// How exact the outputs are: as ONNX Runtime computes them where it is there, and as simulated.
pub(super) fn outputs(report: &Report) -> String {
    let Some(found) = &report.measured else { return simulated(report) };
    let Measured { runtime, cpu, .. } = found;
    let accuracy = match &found.accuracy {
        Measurement::Measured(accuracy) => accuracy,
        Measurement::NotMeasured(why) => return format!("runtime not measured: {why}\n") + &simulated(report),
    };
    let shared = report.held_out.as_ref().is_some_and(|held_out| held_out.shared);
    let mut text = format!("output  SQNR {}", on_samples(accuracy, found.samples, shared, found.expected_db, ""));
    text += &format!(", measured in {runtime} on this CPU ({cpu})");
    text += &least_exact(accuracy);
    let simulated = report.held_out.as_ref().and_then(|held_out| held_out.accuracy.measured());
    let before = report.not_run.as_ref().map_or("", compared);
    text += &simulated.map_or(String::new(), |found| format!("; {}{before} simulated", decibels(found.sqnr_db)));
    text + "\n" + &tokens(accuracy) + &other_shapes(&found.outputs)
}

/// Whether samples were seen before.
fn among(shared: bool) -> &'static str {
    if shared { "also used for calibration or choices" } else { "held out" }
}

/// What can be expected of new samples first, then what these have, with the worst of several; `of` says of what.
fn on_samples(found: &Accuracy, samples: usize, shared: bool, expected_db: Option<f64>, of: &str) -> String {
    let lower = expected_db.filter(|expected| *expected < found.sqnr_db);
    let expected = lower.map_or(String::new(), |expected| format!("{} expected on new data; ", decibels(expected)));
    let worst =
        if samples > 1 { format!(" (worst sample {})", decibels(found.worst_sample_db)) } else { String::new() };
    format!("{expected}{}{worst}{of} on {samples} samples {}", decibels(found.sqnr_db), among(shared))
}

fn least_exact(found: &Accuracy) -> String {
    found.least_exact.as_ref().map_or(String::new(), |name| format!("; least exact: {name}"))
}

/// How well a language model foretells the tokens of the same samples.
fn tokens(found: &Accuracy) -> String {
    let Some(found) = &found.tokens else { return String::new() };
    format!("tokens  {}, over {} tokens of these samples\n", perplexity(found), found.tokens)
}

/// Both perplexities, and how far the distributions are from each other.
pub(crate) fn perplexity(found: &TokenFigures) -> String {
    format!(
        "perplexity {:.3} -> {:.3} (x {:.4}), mean KL divergence {:.4} nats",
        found.float_perplexity, found.perplexity, found.perplexity_ratio, found.mean_divergence
    )
}

/// Outputs of which samples were left out.
fn other_shapes(outputs: &[OutputReport]) -> String {
    let some = outputs.iter().filter(|output| output.incomparable > 0 && output.found.why_not().is_none());
    some.map(|OutputReport { name, incomparable, .. }| {
        format!("        `{name}` has other shapes in {incomparable} of these samples, which are left out\n")
    })
    .collect()
}

/// How exact the outputs are where ONNX Runtime does not tell, or why that is not known.
fn simulated(report: &Report) -> String {
    let Some(held_out) = &report.held_out else {
        let is_quantized = report.is_quantized();
        let none = format!("output  not measured: {}\n", NotMeasured::NoSamples);
        return if is_quantized { none } else { String::new() };
    };
    let mut not_measured: Vec<String> =
        held_out.not_measured().map(|(name, why)| format!("not measured: `{name}`: {why}\n")).collect();
    let mut text = String::new();
    match &held_out.accuracy {
        Measurement::NotMeasured(why) if not_measured.is_empty() => text += &format!("output  not measured: {why}\n"),
        Measurement::NotMeasured(_) => text += &format!("output  {}", not_measured.remove(0)),
        Measurement::Measured(found) => {
            let of = report.not_run.as_ref().map_or("", compared);
            let (samples, expected, least) = (held_out.held_out_samples, held_out.expected_db, least_exact(found));
            let sqnr = on_samples(found, samples, held_out.shared, expected, of);
            if of == BEFORE && !not_measured.is_empty() {
                text += &format!("output  {}before  {sqnr}, simulated{least}\n", not_measured.remove(0));
            } else {
                text += &format!("output  SQNR {sqnr}, simulated{least}\n");
            }
            text += &tokens(found);
        }
    }
    text += &not_measured.iter().map(|line| format!("        {line}")).collect::<String>();
    text + &other_shapes(&held_out.outputs)
}

/// Of what the SQNR is, where it is not that of the outputs.
fn compared(found: &NotRun) -> &'static str {
    match (found.compared.is_empty(), found.outputs.is_empty()) {
        (true, true) => "",
        (true, false) => " of the other outputs",
        (false, _) => BEFORE,
    }
}
