//! What stayed in float, and why.

use std::collections::BTreeMap;

use onnxquant::{FloatWeight, LayerReport, Report};

use crate::table::{bytes, listed, quoted};

/// Layers whose activations stay floats although integers were asked for, each reason with some of them.
pub(crate) fn float_activations(layers: &[LayerReport]) -> String {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for layer in layers {
        if let Some(why) = &layer.float_because {
            reasons.entry(why).or_default().push(&layer.label);
        }
    }
    let line = |(why, labels): (&&str, &Vec<&str>)| {
        let names = listed(labels.iter().map(|label| quoted(label)));
        format!("         activations of {} layers stay floats: {why}: {names}\n", labels.len())
    };
    reasons.iter().map(line).collect()
}

/// Why layers stayed in float, each reason with a count.
pub(crate) fn skipped(report: &Report) -> String {
    let mut reasons: Vec<(String, usize)> = Vec::new();
    for layer in &report.skipped {
        let reason = layer.why.clone();
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    reasons.into_iter().map(|(reason, count)| format!("float   {count} layers: {reason}\n")).collect()
}

/// The bytes that stay floats, by operator and reason, most first.
pub(crate) fn float_weights(weights: &[FloatWeight]) -> String {
    if weights.is_empty() {
        return String::new();
    }
    // By what it is, and why it stays.
    let mut groups: BTreeMap<(String, String), usize> = BTreeMap::new();
    for weight in weights {
        let key = match weight.is_vector {
            true => (weight.reason.clone(), String::new()),
            false => (weight.operators.join("/"), format!(" ({})", weight.reason)),
        };
        *groups.entry(key).or_insert(0) += weight.bytes;
    }
    let total: usize = groups.values().sum();
    let mut groups: Vec<((String, String), usize)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let group = |((what, why), size): ((String, String), usize)| format!("{what} {}{why}", bytes(size as u64));
    let groups = listed(groups.into_iter().map(group));
    format!("float   {} in {} weights: {groups}\n", bytes(total as u64), weights.len())
}
