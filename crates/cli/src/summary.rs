//! What a run did, as it is printed.

mod caches;
mod ending;
mod outputs;

use std::collections::BTreeMap;
use std::path::Path;

use onnxquant::calib::DataReport;
use onnxquant::quant::{Alphabet, Granularity};
use onnxquant::{
    AUTO_SQNR_DB, Activations, EngineReport, FolderReport, IntegerReport, LayerReport, Metric, MetricReport, NotRun,
    NotRunNode, OtherModel, Report, TableReport, TextReport, Trade, VerifiedOrt, Weights,
};

use crate::left_in_float::{float_activations, float_weights, skipped};
use crate::screen::{COLUMNS, fitted};
use crate::table::{Table, bytes, decibels, listed, quoted, short};
use caches::caches;
use outputs::outputs;
pub(crate) use outputs::perplexity;

/// Layers listed in the summary.
const WORST_SHOWN: usize = 5;
/// Characters of a reason that are shown.
const REASON_SHOWN: usize = 200;

/// The summary of a run that wrote `output`, as the command prints it on a terminal of so many columns. It never has more
/// than [`COLUMNS`].
pub fn summary(report: &Report, output: &Path, columns: usize) -> String {
    let columns = columns.min(COLUMNS);
    let text = format!(
        "{} layers quantized to {} {}, {} layers left in float; {} weights\n",
        report.layers.len(),
        widths(report),
        granularity(report),
        report.skipped.len(),
        report.weights(),
    );
    let text = text + &layers(report, columns) + &left_out(report) + &ending::size(report) + &ending::speed(report);
    let text = text + &goal(report) + &outputs(report) + &report.metric.as_ref().map_or(String::new(), metric);
    let text = text + &ending::time(&report.run) + &ending::wrote(report, output) + &ending::advice(report);
    fitted(text, Some(columns))
}

/// What was done to the layers.
fn layers(report: &Report, columns: usize) -> String {
    let mut text = report.folder.as_ref().map_or(String::new(), folder);
    text += &sorted(report.prepared.nodes_sorted);
    text += &raised_type(report);
    text += &worst_layers(&report.layers, columns);
    text += &without_rows(report);
    let on_codes = report.integers.as_ref().filter(|_| !sees_nothing(report));
    text += &on_codes.map_or(String::new(), |found| integers(found, report, columns));
    text += &tables("tables", "embeddings", &report.embeddings);
    text += &tables(
        "weights",
        "recurrent layers, attention, experts and products of several matrices",
        &report.whole_weights,
    );
    text += &report.kv_cache.as_ref().map_or(String::new(), caches);
    text += &runs_as(&report.layers);
    text += &ending::wasted_bits(&report.layers);
    text + &report.verified.as_ref().map_or(String::new(), verified)
}

/// What was not done, and what was not as usual.
fn left_out(report: &Report) -> String {
    let mut text = skipped(report) + &float_weights(&report.float_weights);
    text += &report.doubts().iter().map(|doubt| format!("doubt   {doubt}\n")).collect::<String>();
    text += &report.engine.as_ref().map_or(String::new(), engine);
    text += &report.data.as_ref().map_or(String::new(), data);
    text += &report.texts.as_ref().map_or(String::new(), texts);
    text + &report.not_run.as_ref().map_or(String::new(), |found| not_run(report, found))
}

/// The user's own figure.
fn metric(found: &MetricReport) -> String {
    let MetricReport { value, of_float, wanted, measured } = found;
    let wanted = wanted.map_or(String::new(), |wanted| format!(", at least {wanted} wanted"));
    format!("metric  {value}, in float {of_float}{wanted}; {measured} models measured\n")
}

/// What the outputs must keep though nobody said so.
fn goal(report: &Report) -> String {
    let settings = &report.settings;
    let has_other = settings.min_sqnr_db.is_some() || settings.metric.as_ref().is_some_and(Metric::is_goal);
    let is_own = settings.activations == Activations::Auto && !has_other;
    let text = format!("goal    SQNR {AUTO_SQNR_DB:.0} dB, that of `--scheme auto`; --min-sqnr asks for another\n");
    if is_own { text } else { String::new() }
}

/// What became of a folder.
fn folder(found: &FolderReport) -> String {
    let copied = format!("folder  `{}` quantized, {} files copied", found.model.display(), found.copied);
    let others: String = found.other_models.iter().map(other_model).collect();
    format!("{copied}\n{others}")
}

/// What became of another model in it.
fn other_model(found: &OtherModel) -> String {
    let (name, before) = (found.model.display(), bytes(found.bytes_before));
    let Some(made) = &found.quantized else {
        let because = found.because.as_ref().map_or(String::new(), |why| format!(": {}", one_line(why)));
        return format!("        `{name}` as it was{because}\n");
    };
    let accuracy =
        made.expected_db.map_or("weights of 8 bits without data, accuracy not measured".to_owned(), |found| {
            format!("SQNR {} expected on new data", decibels(found))
        });
    format!("        `{name}` {before} -> {}, {} layers, {accuracy}\n", bytes(made.bytes_after), made.layers)
}

/// Which weights share a scale; of blocks convolutions know nothing.
fn granularity(report: &Report) -> String {
    let words = |granularity| match granularity {
        Granularity::Tensor => "per tensor".to_owned(),
        Granularity::Channel => "per channel".to_owned(),
        Granularity::Block(size) => format!("in blocks of {size}"),
    };
    let wanted = report.settings.granularity;
    let others: Vec<Granularity> =
        report.layers.iter().map(|layer| layer.granularity).filter(|&found| found != wanted).collect();
    match others.first() {
        None => words(wanted),
        Some(&other) if others.len() == report.layers.len() => words(other),
        Some(&other) => format!("{} ({} of them {})", words(wanted), others.len(), words(other)),
    }
}

/// Which engine ran the samples, where the embedded one did not.
fn engine(found: &EngineReport) -> String {
    let because = found.because.as_ref();
    because.map_or(String::new(), |why| format!("engine  {} ran the samples: {}\n", found.name, one_line(why)))
}

/// What was done to samples, and which files are none.
fn data(found: &DataReport) -> String {
    let ranges = found.ranges.iter().map(|range| (range.min, range.max));
    let all = ranges.reduce(|(least, most), (min, max)| (least.min(min), most.max(max)));
    let values = all.map(|(least, most)| format!(", values {least:.1}..{most:.1}")).unwrap_or_default();
    let prepared = found.prepared.as_ref().map(|how| format!(" -> {how}")).unwrap_or_default();
    let skipped = match found.skipped.as_slice() {
        [] => String::new(),
        files => {
            let names = files.iter().map(|file| format!("`{}`", file.display()));
            format!("        {} files are no samples: {}\n", files.len(), listed(names))
        }
    };
    format!("data    {}{prepared}{values}\n{skipped}", found.samples)
}

/// What samples were made of texts.
fn texts(found: &TextReport) -> String {
    let TextReport { samples, tokens, continued, because } = found;
    let because = because.as_ref().map_or(String::new(), |why| format!(": {}", one_line(why)));
    let behind = match (continued, because.as_str()) {
        (0, "") => String::new(),
        _ => format!("; {continued} of them begin behind a past{because}"),
    };
    format!("texts   {samples} samples of up to {tokens} tokens{behind}\n")
}

/// That another type is computed in f32.
fn raised_type(report: &Report) -> String {
    let Some(found) = &report.raised_type else { return String::new() };
    format!("type    {} is computed as FLOAT, which is faster on CPUs; --keep-type keeps it\n", found.from)
}

/// That the file listed nodes out of order.
fn sorted(moved: usize) -> String {
    match moved {
        0 => String::new(),
        _ => format!("sorted  {moved} nodes stood behind others that read them; they come before these now\n"),
    }
}

/// One width, or how many layers have which.
fn widths(report: &Report) -> String {
    if report.settings.alphabet == Alphabet::E4m3 {
        return "FP8 (E4M3)".to_owned();
    }
    let mut counts = BTreeMap::new();
    report.layers.iter().for_each(|layer| *counts.entry(layer.bits).or_insert(0) += 1);
    match counts.len() {
        0 | 1 => format!("{} bits", counts.keys().next().unwrap_or(&report.settings.bits)),
        _ => {
            let counts: Vec<String> = counts.iter().map(|(bits, layers)| format!("{layers} x {bits}")).collect();
            format!("{:.2} bits on the average ({})", report.average_bits(), counts.join(", "))
        }
    }
}

/// The layers with the largest error on validation samples, worst first. A bound is one for the error beside it, that on the
/// calibration samples.
fn worst_layers(layers: &[LayerReport], columns: usize) -> String {
    let worst = |layer: &LayerReport| layer.validation_error.or(layer.error);
    let mut ranked = layers.iter().filter_map(|layer| Some((worst(layer)?, layer))).collect::<Vec<_>>();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    if ranked.is_empty() {
        return String::new();
    }
    let head = ["worst layers", "operator", "weights", "method", "validation", "calibration", "bound"];
    let row = |(_, layer): &(f64, &LayerReport)| {
        let number = |number: Option<f64>| number.map_or("-".to_owned(), short);
        let numbers = [layer.validation_error, layer.certificate.achieved, layer.certificate.bound].map(number);
        let words =
            [layer.label.clone(), layer.op_type.clone(), layer.parameters.to_string(), layer.method.to_string()];
        words.into_iter().chain(numbers).collect()
    };
    let rows = Table::new(&head, ranked.iter().take(WORST_SHOWN).map(row));
    Table { spare: &[6, 5, 1, 2], ..rows }.text(Some(columns))
}

/// Layers that no row of the samples reaches.
fn without_rows(report: &Report) -> String {
    let not_run = report.not_run.as_ref().map_or(&[][..], |found| &found.layers);
    let is_without = |layer: &&LayerReport| layer.calibration_rows.is_none() && !not_run.contains(&layer.label);
    let layers: Vec<&LayerReport> =
        report.layers.iter().filter(is_without).filter(|_| report.held_out.is_some()).collect();
    if layers.is_empty() {
        return String::new();
    }
    let names = listed(layers.iter().map(|layer| quoted(&layer.label)));
    format!("no rows {} layers, which are rounded without data: {names}\n", layers.len())
}

/// What runs on integers.
fn integers(found: &IntegerReport, report: &Report, columns: usize) -> String {
    let (activations, layers) = (report.settings.activations, &report.layers[..]);
    let (fixed, dynamic) = (found.static_layers, found.dynamic_layers);
    if fixed + dynamic == 0 {
        let why = match found.needed_opset {
            Some(opset) => format!(": they need opset {opset}, to which this model cannot be raised"),
            None if activations == Activations::Auto => {
                ": they would not save time, or cost too much accuracy".to_owned()
            }
            None => String::new(),
        };
        return format!("integers none{why}\n") + &float_activations(layers) + &trade(&found.trade, columns);
    }
    let mut parts = Vec::new();
    if fixed > 0 {
        parts.push(format!("{fixed} layers and {} operators on fixed scales", found.other_operators));
    }
    if dynamic > 0 {
        let rescaled = format!("{} inputs rescaled", found.rescaled);
        parts.push(format!("{dynamic} layers on scales made at run time, {rescaled}"));
    }
    let mut text = format!("integers {}\n", parts.join("; "));
    if found.equalized > 0 {
        text += &format!("         channels of {} tensors evened out\n", found.equalized);
    }
    text += &float_activations(layers);
    let saturating: usize = layers.iter().filter_map(|layer| layer.saturating_pairs).sum();
    text += &match saturating {
        0 => "exact   on every processor: no codes can saturate\n".to_owned(),
        pairs => format!("exact   on x86 with VNNI and on Arm; elsewhere {pairs} pairs of codes can saturate\n"),
    };
    if let Some(cache) = &found.cache {
        let rebuilt = cache.rebuilt.as_ref().map_or(String::new(), |why| format!("; made anew: {why}"));
        text += &format!("cache   {} statistics reused, {} gathered{rebuilt}\n", cache.reused, cache.gathered);
    }
    text + &trade(&found.trade, columns)
}

/// What accuracy cost, round by round, where a round was not enough.
fn trade(rounds: &[Trade], columns: usize) -> String {
    if rounds.iter().all(|round| round.to_float.is_empty() && round.to_16_bits.is_empty()) {
        return String::new();
    }
    let head = ["accuracy", "weights", "to float", "to 16 bits", "integer layers", "SQNR", "loss"];
    let none = || "not measured".to_owned();
    let row = |(at, round): (usize, &Trade)| {
        let accuracy = round.accuracy.measured();
        vec![
            format!("round {}", at + 1),
            if round.weights == Weights::Float { "float" } else { "codes" }.to_owned(),
            round.to_float.len().to_string(),
            round.to_16_bits.len().to_string(),
            round.integer_layers.to_string(),
            accuracy.map_or(none(), |found| decibels(found.sqnr_db)),
            accuracy.map_or(none(), |found| short(found.loss)),
        ]
    };
    let rows = Table::new(&head, rounds.iter().enumerate().map(row));
    Table { spare: &[3, 1, 6], ..rows }.text(Some(columns))
}

/// The quantized tables of one kind together.
fn tables(title: &str, kind: &str, tables: &[TableReport]) -> String {
    let Some(first) = tables.first() else { return String::new() };
    let stored = tables.iter().map(|table| table.bytes as u64).sum();
    let heads = listed(tables.iter().flat_map(|table| &table.heads).map(|head| quoted(head)));
    let heads = if heads.is_empty() { heads } else { format!(", also the weights of {heads}") };
    format!("{title:7} {} of {kind} at {} bits, {}{heads}\n", tables.len(), first.bits, bytes(stored))
}

/// What ONNX Runtime makes of the layers, each kind with a count.
fn runs_as(layers: &[LayerReport]) -> String {
    let (mut kernels, mut slow) = (BTreeMap::new(), BTreeMap::new());
    for layer in layers {
        *kernels.entry(layer.runs_as.kernel).or_insert(0) += 1;
        if let Some(why) = layer.runs_as.slow_because {
            *slow.entry(why).or_insert(0) += 1;
        }
    }
    let kernels: Vec<String> = kernels.iter().map(|(kernel, count)| format!("{count} {}", kernel.name())).collect();
    let slow = slow.iter().map(|(why, count)| format!("slow    {count} layers decoded at every run: {why}\n"));
    match kernels.is_empty() {
        true => String::new(),
        false => format!("runs as {}\n", kernels.join(", ")) + &slow.collect::<String>(),
    }
}

/// What ONNX Runtime made of the file.
fn verified(found: &VerifiedOrt) -> String {
    let mut text = format!("verify  ONNX Runtime {} loads it", found.version);
    if found.mispredicted.is_empty() {
        return text + &format!("; {} layers run as predicted\n", found.as_predicted);
    }
    text += &format!("; {} layers do not run as predicted:\n", found.mispredicted.len());
    for layer in &found.mispredicted {
        let found = layer.found.as_deref().unwrap_or("not found");
        text += &format!("        {}: {} predicted, {found}\n", quoted(&layer.label), layer.predicted.name());
    }
    text
}

/// What the calibration engine could not run, and what that means.
fn not_run(report: &Report, found: &NotRun) -> String {
    let node = |node: &NotRunNode| match node.domain.as_str() {
        "" => format!("{} ({})", quoted(&node.label), node.op_type),
        domain => format!("{} ({} of domain `{domain}`)", quoted(&node.label), node.op_type),
    };
    let all = |names: &[String]| listed(names.iter().map(|name| quoted(name)));
    let mut text = format!("not run {}: the calibration engine cannot\n", listed(found.nodes.iter().map(node)));
    let mut reasons: Vec<&str> = found.nodes.iter().map(|node| node.reason.as_str()).collect();
    reasons.dedup();
    let reasons = listed(reasons.into_iter().map(one_line));
    text += &format!("        it says: {reasons}\n");
    if !found.layers.is_empty() {
        let (count, layers) = (found.layers.len(), all(&found.layers));
        text += &format!("        {count} layers that depend on that are rounded without data: {layers}\n");
    }
    if sees_nothing(report) {
        text += "        that is all layers: no sample was looked at, activations stay floats, nothing was measured\n";
    }
    if !found.outputs.is_empty() {
        text += &format!("        outputs that depend on that are not compared: {}\n", all(&found.outputs));
    }
    text
}

/// Whether the calibration engine could not compute the input of a single layer.
fn sees_nothing(report: &Report) -> bool {
    let layers = report.layers.len();
    layers > 0 && report.not_run.as_ref().is_some_and(|found| found.layers.len() == layers)
}

/// A message of the engine, which may have many lines.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(REASON_SHOWN) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}
