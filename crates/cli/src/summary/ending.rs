//! What a run gives at the end: the file, its size and speed, what it took, and what to do next.

use std::collections::BTreeMap;
use std::path::Path;

use onnxquant::{Cpu, LayerReport, Report, RunRecord};

use crate::table::bytes;

/// How large the file is.
pub(super) fn size(report: &Report) -> String {
    let ratio = report.bytes_after as f64 / report.bytes_before.max(1) as f64;
    let (before, after) = (bytes(report.bytes_before), bytes(report.bytes_after));
    format!("size    {before} -> {after} ({:.1} %), opset {}\n", 100.0 * ratio, report.opset)
}

/// Bits that buy nothing: the codes take as many bytes as with more of them.
pub(super) fn wasted_bits(layers: &[LayerReport]) -> String {
    let mut groups: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for layer in layers.iter().filter(|layer| layer.bits < layer.stored_bits) {
        *groups.entry((layer.bits, layer.stored_bits)).or_insert(0) += 1;
    }
    let line = |((bits, stored), layers): ((u32, u32), usize)| {
        let of = if layers == 1 { "1 layer".to_owned() } else { format!("{layers} layers") };
        format!("bits    {of} of {bits} bits: stored in {stored}, so that {stored} bits take as many bytes\n")
    };
    groups.into_iter().map(line).collect()
}

/// How fast the file is expected to be.
pub(super) fn speed(report: &Report) -> String {
    let classes = report.expected_speed.iter().rev().enumerate().map(|(at, (cpu, speed))| speed_on(at, *cpu, *speed));
    let classes: Vec<String> = classes.collect();
    match (classes.is_empty(), report.is_quantized()) {
        (true, true) => "speed   not known: `onnxquant bench` measures it\n".to_owned(),
        (true, false) => String::new(),
        (false, _) => format!("speed   about {} (estimated from measured times of operators)\n", classes.join(", ")),
    }
}

fn speed_on(at: usize, cpu: Cpu, speed: f64) -> String {
    let float = if at == 0 { " float" } else { "" };
    format!("{speed:.1} x{float} on {cpu}")
}

/// How long it took, and the memory.
pub(super) fn time(run: &RunRecord) -> String {
    let memory = run.peak_memory_bytes.map_or(String::new(), |most| format!(", at most {} of memory", bytes(most)));
    let threads =
        if run.machine.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", run.machine.threads) };
    format!("time    {:.1} s with {threads}{memory}\n", run.seconds)
}

/// Where the model is.
pub(super) fn wrote(report: &Report, output: &Path) -> String {
    let beside = report.files.output.external.iter().map(|file| format!(" and {} beside it", file.name));
    format!("wrote   {}{}\n", output.display(), beside.collect::<String>())
}

/// The most useful thing to do next.
pub(super) fn advice(report: &Report) -> String {
    report.outcome.advice.first().map_or(String::new(), |advice| format!("advice  {advice}\n"))
}
