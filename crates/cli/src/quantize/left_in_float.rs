//! What stayed in float, and why.

use std::collections::BTreeMap;

use onnxquant::{LayerReport, Report};

use crate::table::listed;

/// Layers whose activations stay floats although integers were asked for, each reason with some of them.
pub(super) fn float_activations(layers: &[LayerReport]) -> String {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for layer in layers {
        if let Some(why) = &layer.float_because {
            reasons.entry(why).or_default().push(&layer.label);
        }
    }
    let line = |(why, labels): (&&str, &Vec<&str>)| {
        let names = listed(labels.iter().map(|label| format!("`{label}`")));
        format!("         activations of {} layers stay floats: {why}: {names}\n", labels.len())
    };
    reasons.iter().map(line).collect()
}

/// Why layers stayed in float, each reason with a count.
pub(super) fn skipped(report: &Report) -> String {
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
