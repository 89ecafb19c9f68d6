//! The main command: quantize, print the summary, write the report.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use onnxquant::quant::{Alphabet, Granularity};
use onnxquant::{
    DataConfig, IntegerReport, LayerReport, NotRun, NotRunNode, PlanFile, Report, TableReport, Trade, VerifiedOrt,
    Weights,
};

use crate::args::QuantizeArgs;
use crate::bars::Bars;
use crate::table::{bytes, decibels, short, table};

/// Layers listed in the summary.
const WORST_SHOWN: usize = 5;
/// Characters of a name in a table.
const NAME_SHOWN: usize = 60;
/// Nodes, layers or outputs listed on a line.
const NAMES_SHOWN: usize = 5;

pub(crate) fn run(args: &QuantizeArgs) -> anyhow::Result<Report> {
    let (Some(input), Some(output)) = (&args.input, &args.output) else {
        bail!("IN and OUT are needed");
    };
    for path in args.report.iter().chain(&args.save_plan) {
        check_report_path(path)?;
    }
    let cache = args.calibration_cache.clone();
    let data = args.calib.clone().map(|path| DataConfig { cache, ..args.data.config(path) });
    let bars = Bars::new(args.quiet);
    let progress = |phase, done, total| bars.report(phase, done, total);
    let report = onnxquant::quantize(input, output, data.as_ref(), &args.config()?, &progress)?;
    if let Some(path) = &args.report {
        write_report(path, &report)?;
    }
    if let Some(path) = &args.save_plan {
        PlanFile::of(&report).write(path)?;
    }
    if !args.quiet {
        print!("{}", summary(&report));
    }
    Ok(report)
}

fn check_report_path(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        bail!("cannot write `{}`: it is a folder, or its folder does not exist", path.display());
    }
    Ok(())
}

fn write_report(path: &Path, report: &Report) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let mut file = onnxquant::PendingFile::create(path)?;
        serde_json::to_writer_pretty(file.file(), report)?;
        file.file().write_all(b"\n")?;
        Ok(file.commit()?)
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}

fn summary(report: &Report) -> String {
    let parameters = report.layers.iter().map(|layer| layer.parameters).sum::<usize>();
    let mut text = format!(
        "{} layers quantized to {} {}, {} left in float; {parameters} weights\n",
        report.layers.len(),
        widths(report),
        match report.settings.granularity {
            Granularity::Tensor => "per tensor".to_owned(),
            Granularity::Channel => "per channel".to_owned(),
            Granularity::Block(size) => format!("in blocks of {size}"),
        },
        report.skipped.len(),
    );
    text += &worst_layers(&report.layers);
    text += &report.integers.as_ref().map_or(String::new(), |found| integers(found, &report.layers));
    text += &embeddings(&report.embeddings);
    text += &runs_as(&report.layers);
    text += &report.verified.as_ref().map_or(String::new(), verified);
    text += &skipped(report);
    text += &report.not_run.as_ref().map_or(String::new(), not_run);
    let ratio = report.bytes_after as f64 / report.bytes_before.max(1) as f64;
    let (before, after) = (bytes(report.bytes_before), bytes(report.bytes_after));
    text += &format!("size    {before} -> {after} ({:.1} %), opset {}\n", 100.0 * ratio, report.opset);
    if let Some(held_out) = &report.held_out {
        let among = if held_out.shared { "also used for calibration" } else { "held out" };
        let samples = held_out.held_out_samples;
        let of = report.not_run.as_ref().map_or("", compared);
        text += &format!("output  SQNR {}{of} on {samples} samples {among}\n", decibels(held_out.sqnr_db));
    }
    text
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

/// The layers with the largest error, worst first.
fn worst_layers(layers: &[LayerReport]) -> String {
    let error = |layer: &LayerReport| layer.held_out_error.or(layer.error);
    let mut ranked = layers.iter().filter_map(|layer| Some((error(layer)?, layer))).collect::<Vec<_>>();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    if ranked.is_empty() {
        return String::new();
    }
    let head = ["worst layers", "operator", "weights", "method", "error", "bound"].map(str::to_owned).to_vec();
    let row = |(error, layer): &(f64, &LayerReport)| {
        let bound = layer.certificate.bound.map_or("-".to_owned(), short);
        let method = layer.method.to_string();
        vec![shortened(&layer.label), layer.op_type.clone(), layer.parameters.to_string(), method, short(*error), bound]
    };
    let rows = std::iter::once(head).chain(ranked.iter().take(WORST_SHOWN).map(row)).collect::<Vec<_>>();
    table(&rows)
}

/// A name with its middle left out where it would make a table too wide.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME_SHOWN {
        return name.to_owned();
    }
    let half = NAME_SHOWN / 2;
    let (head, tail) = (name.chars().take(half), name.chars().skip(length - half));
    head.chain("...".chars()).chain(tail).collect()
}

/// What runs on integers.
fn integers(found: &IntegerReport, layers: &[LayerReport]) -> String {
    let (fixed, dynamic) = (found.static_layers, found.dynamic_layers);
    if fixed + dynamic == 0 {
        let none = "integers none: they would not save time, or cost too much accuracy\n";
        return none.to_owned() + &trade(&found.trade);
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
    let saturating: usize = layers.iter().filter_map(|layer| layer.saturating_pairs).sum();
    text += &match saturating {
        0 => "exact   on every processor: no codes can saturate\n".to_owned(),
        pairs => format!("exact   on x86 with VNNI and on Arm; elsewhere {pairs} pairs of codes can saturate\n"),
    };
    if let Some(cache) = &found.cache {
        let rebuilt = cache.rebuilt.as_ref().map_or(String::new(), |why| format!("; made anew: {why}"));
        text += &format!("cache   {} statistics reused, {} gathered{rebuilt}\n", cache.reused, cache.gathered);
    }
    text + &trade(&found.trade)
}

/// What accuracy cost, round by round, where a round was not enough.
fn trade(rounds: &[Trade]) -> String {
    if rounds.iter().all(|round| round.to_float.is_empty() && round.to_16_bits.is_empty()) {
        return String::new();
    }
    let head =
        ["accuracy", "weights", "to float", "to 16 bits", "integer layers", "SQNR", "loss"].map(str::to_owned).to_vec();
    let row = |(at, round): (usize, &Trade)| {
        vec![
            format!("round {}", at + 1),
            if round.weights == Weights::Float { "float" } else { "codes" }.to_owned(),
            round.to_float.len().to_string(),
            round.to_16_bits.len().to_string(),
            round.integer_layers.to_string(),
            decibels(round.sqnr_db),
            short(round.loss),
        ]
    };
    let rows = std::iter::once(head).chain(rounds.iter().enumerate().map(row)).collect::<Vec<_>>();
    table(&rows)
}

/// The quantized tables together.
fn embeddings(tables: &[TableReport]) -> String {
    let Some(first) = tables.first() else { return String::new() };
    let stored = tables.iter().map(|table| table.bytes as u64).sum();
    format!("tables  {} of embeddings at {} bits, {}\n", tables.len(), first.bits, bytes(stored))
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
        text += &format!("        {}: {} predicted, {found}\n", layer.label, layer.predicted.name());
    }
    text
}

/// What the calibration engine could not run, and what that means.
fn not_run(found: &NotRun) -> String {
    let node = |node: &NotRunNode| match node.domain.as_str() {
        "" => format!("`{}` ({})", node.label, node.op_type),
        domain => format!("`{}` ({} of domain `{domain}`)", node.label, node.op_type),
    };
    let quoted = |names: &[String]| listed(names.iter().map(|name| format!("`{name}`")));
    let mut text = format!("not run {}: the calibration engine cannot\n", listed(found.nodes.iter().map(node)));
    if !found.layers.is_empty() {
        let (count, layers) = (found.layers.len(), quoted(&found.layers));
        text += &format!("        {count} layers that depend on that are rounded without data: {layers}\n");
    }
    if !found.outputs.is_empty() {
        text += &format!("        outputs that depend on that are not compared: {}\n", quoted(&found.outputs));
    }
    text
}

/// Of what the SQNR is, where it is not that of the outputs.
fn compared(found: &NotRun) -> &'static str {
    match (found.compared.is_empty(), found.outputs.is_empty()) {
        (true, true) => "",
        (true, false) => " of the other outputs",
        (false, _) => " of the values before what is not run",
    }
}

/// The first few of a list.
fn listed(mut words: impl Iterator<Item = String>) -> String {
    let mut shown: Vec<String> = words.by_ref().take(NAMES_SHOWN).collect();
    let more = words.count();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

/// Why layers stayed in float, each reason with a count.
fn skipped(report: &Report) -> String {
    let mut reasons: Vec<(String, usize)> = Vec::new();
    for layer in &report.skipped {
        let reason = layer.reason.to_string();
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    reasons.into_iter().map(|(reason, count)| format!("float   {count} layers: {reason}\n")).collect()
}
