//! What changed from one run to another, by their reports.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::report::stored::{Parts, StoredAccuracy, StoredLayer, StoredReport};
use crate::report::words::{bytes, decibels};

/// Errors that differ by less, relatively, are the same.
const SAME: f64 = 0.05;

/// What changed from one run to another.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Verdict, size, accuracy and speed, whether they changed or not.
    pub facts: Vec<Fact>,
    /// Settings that differ.
    pub settings: Vec<Fact>,
    /// Layers of both runs that are not the same, the worst change first.
    pub layers: Vec<LayerChange>,
    /// Layers of the first run that the other one does not have.
    pub gone: Vec<String>,
    /// Layers that only the other run has.
    pub added: Vec<String>,
}

/// What both runs say of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Of what.
    pub name: String,
    /// What the first run says.
    pub old: String,
    /// What the other run says.
    pub new: String,
}

/// A layer that is not the same in both runs.
#[derive(Clone, Debug)]
pub struct LayerChange {
    /// Its name.
    pub label: String,
    /// What it was.
    pub old: LayerState,
    /// What it is.
    pub new: LayerState,
}

/// What a layer is in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerState {
    /// Bits a weight.
    pub bits: u32,
    /// The method that made its codes.
    pub method: String,
    /// What becomes of its input.
    pub activations: String,
    /// Relative error of its output: on validation samples, or else on calibration samples.
    pub error: Option<f64>,
}

impl LayerChange {
    /// The error over what it was; above 1 it is worse.
    pub fn ratio(&self) -> Option<f64> {
        let (old, new) = (self.old.error?, self.new.error?);
        Some(if old == new { 1.0 } else { new / old.max(f64::MIN_POSITIVE) })
    }

    /// Whether the error is smaller than it was.
    pub fn is_better(&self) -> bool {
        self.ratio().is_some_and(|ratio| ratio < 1.0 - SAME)
    }

    /// Whether the error is larger than it was.
    pub fn is_worse(&self) -> bool {
        self.ratio().is_some_and(|ratio| ratio > 1.0 + SAME)
    }

    fn is_change(&self) -> bool {
        let LayerState { bits, method, activations, .. } = &self.old;
        let is_other = (*bits, method, activations) != (self.new.bits, &self.new.method, &self.new.activations);
        is_other || self.is_better() || self.is_worse()
    }
}

impl StoredReport {
    /// What changed from this run to a later one.
    pub fn changes(&self, later: &Self) -> Changes {
        let (old, new) = (&self.parts, &later.parts);
        let layers: BTreeMap<&str, &StoredLayer> =
            new.layers.iter().map(|layer| (layer.label.as_str(), layer)).collect();
        let old_labels: BTreeSet<&str> = old.layers.iter().map(|layer| layer.label.as_str()).collect();
        let change = |layer: &StoredLayer| {
            let new = layers.get(layer.label.as_str())?;
            let found = LayerChange { label: layer.label.clone(), old: layer.into(), new: (*new).into() };
            found.is_change().then_some(found)
        };
        let mut changed: Vec<LayerChange> = old.layers.iter().filter_map(change).collect();
        changed.sort_by(|a, b| b.ratio().unwrap_or(1.0).total_cmp(&a.ratio().unwrap_or(1.0)));
        let gone = old.layers.iter().filter(|layer| !layers.contains_key(layer.label.as_str()));
        let added = new.layers.iter().filter(|layer| !old_labels.contains(layer.label.as_str()));
        Changes {
            facts: facts(self, later),
            settings: settings(&self.whole, &later.whole),
            layers: changed,
            gone: gone.map(|layer| layer.label.clone()).collect(),
            added: added.map(|layer| layer.label.clone()).collect(),
        }
    }
}

impl From<&StoredLayer> for LayerState {
    fn from(layer: &StoredLayer) -> Self {
        let StoredLayer { bits, method, activations, .. } = layer.clone();
        Self { bits, method, activations, error: layer.worst_error() }
    }
}

fn facts(old: &StoredReport, new: &StoredReport) -> Vec<Fact> {
    let (old_parts, new_parts) = (&old.parts, &new.parts);
    let fact = |name: &str, of: &dyn Fn(&Parts) -> String| Fact {
        name: name.to_owned(),
        old: of(old_parts),
        new: of(new_parts),
    };
    let file = |report: &StoredReport| {
        let hash = report.whole.pointer("/files/input/sha256").and_then(Value::as_str).unwrap_or("unknown");
        hash.chars().take(12).collect::<String>()
    };
    let mut found = vec![
        fact("verdict", &|parts| {
            parts.outcome.missed.clone().map_or("as asked".to_owned(), |missed| format!("missed: {missed}"))
        }),
        fact("size before", &|parts| bytes(parts.bytes_before)),
        fact("size", &|parts| bytes(parts.bytes_after)),
        fact("layers", &|parts| format!("{}, {} in float", parts.layers.len(), parts.skipped.len())),
        fact("measured", &|parts| told(parts.measured.as_ref())),
        fact("simulated", &|parts| told(parts.held_out.as_ref())),
    ];
    let classes: BTreeSet<&String> = old_parts.expected_speed.keys().chain(new_parts.expected_speed.keys()).collect();
    for class in classes {
        let speed = |parts: &Parts| {
            parts.expected_speed.get(class).map_or("not known".to_owned(), |speed| format!("{speed:.2} x float"))
        };
        found.push(fact(&format!("speed {class}"), &speed));
    }
    let input = Fact { name: "input".to_owned(), old: file(old), new: file(new) };
    if input.old != input.new {
        found.insert(0, input);
    }
    found
}

/// How exact outputs are.
fn told(found: Option<&StoredAccuracy>) -> String {
    match found {
        None => "no".to_owned(),
        Some(StoredAccuracy { not_measured: Some(why), .. }) => format!("no: {why}"),
        Some(StoredAccuracy { sqnr_db, .. }) => decibels(sqnr_db.unwrap_or(f64::INFINITY)),
    }
}

/// Settings that differ, by their paths.
fn settings(old: &Value, new: &Value) -> Vec<Fact> {
    let [mut before, mut after] = [BTreeMap::new(), BTreeMap::new()];
    flatten("", &old["settings"], &mut before);
    flatten("", &new["settings"], &mut after);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |settings: &BTreeMap<String, String>, name: &String| {
        settings.get(name).cloned().unwrap_or_else(|| "not set".to_owned())
    };
    let facts =
        names.into_iter().map(|name| Fact { name: name.clone(), old: of(&before, name), new: of(&after, name) });
    facts.filter(|fact| fact.old != fact.new).collect()
}

fn flatten(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, found);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(found.insert(path.to_owned(), text.clone())),
        other => drop(found.insert(path.to_owned(), other.to_string())),
    }
}
