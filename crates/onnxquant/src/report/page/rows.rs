//! What the page lists, in the order in which it lists it, with plots.

use std::collections::BTreeMap;

use serde::Serialize;

use super::svg::{Chart, LogAxis, Seen, bar, marked_bar, values, weights};
use crate::report::stored::{Parts, StoredAlone, StoredLayer, StoredTensor};
use crate::report::words::{bytes, decibels, short};

/// Codes of other alphabets are not evenly spaced.
const INTEGERS: &str = "integers";
/// Bits of weights whose codes are drawn one by one.
const DRAWN_BITS: u32 = 5;

/// All lists of the page.
#[derive(Debug, Serialize)]
pub(super) struct Rows {
    sizes: Vec<SizeRow>,
    errors: Vec<ErrorRow>,
    error_ends: [String; 2],
    weights: Vec<Figure>,
    ranges: Vec<Figure>,
    sensitivity: Vec<BarRow>,
    trade: String,
    budget: Vec<BarRow>,
    curve: String,
    float_reasons: Vec<ReasonRow>,
    skipped: Vec<SkippedRow>,
}

/// What takes bytes in the file.
#[derive(Debug, Serialize)]
struct SizeRow {
    label: String,
    about: String,
    bytes: u64,
    plot: String,
}

/// The errors of a layer.
#[derive(Debug, Serialize)]
struct ErrorRow {
    label: String,
    about: String,
    error: Option<f64>,
    rounding: Option<f64>,
    bound: Option<f64>,
    plot: String,
}

/// A plot with what stands below it.
#[derive(Debug, Serialize)]
struct Figure {
    label: String,
    plot: String,
    about: String,
}

/// A number with a bar.
#[derive(Debug, Serialize)]
struct BarRow {
    label: String,
    number: String,
    plot: String,
}

/// Bytes that stay floats for one reason.
#[derive(Debug, Serialize)]
struct ReasonRow {
    reason: String,
    count: usize,
    bytes: u64,
    plot: String,
}

/// A layer that stays in float.
#[derive(Debug, Serialize)]
struct SkippedRow {
    label: String,
    why: String,
}

impl Rows {
    pub(super) fn of(parts: &Parts) -> Self {
        let numbers = |layer: &StoredLayer| [layer.worst_error(), layer.rounding_error(), layer.certificate.bound];
        let axis = LogAxis::over(parts.layers.iter().flat_map(numbers).flatten());
        let integers = parts.integers.as_ref();
        let rounds = integers.iter().flat_map(|found| &found.trade).enumerate();
        let trade: Vec<(f64, f64)> = rounds.filter_map(|(at, round)| Some(((at + 1) as f64, round.sqnr_db?))).collect();
        let alone = parts.budget.as_ref().map_or(&[][..], |found| &found.alone);
        let skipped =
            parts.skipped.iter().map(|layer| SkippedRow { label: layer.label.clone(), why: layer.why.clone() });
        Self {
            sizes: sizes(parts),
            errors: parts.layers.iter().map(|layer| ErrorRow::of(layer, axis)).collect(),
            error_ends: axis.ends().map(short),
            weights: parts.layers.iter().filter_map(weight_figure).collect(),
            ranges: integers.iter().flat_map(|found| &found.tensors).filter_map(range_figure).collect(),
            sensitivity: alone_rows(integers.map_or(&[][..], |found| &found.sensitivity)),
            trade: Chart {
                points: &trade,
                here: trade.last().copied(),
                x_name: "round",
                y_name: "SQNR of the outputs",
                x_text: &|x| format!("{x:.1}"),
                y_text: &decibels,
            }
            .svg(),
            budget: alone_rows(alone),
            curve: curve(parts),
            float_reasons: float_reasons(parts),
            skipped: skipped.collect(),
        }
    }
}

/// Everything that has codes, the largest first.
fn sizes(parts: &Parts) -> Vec<SizeRow> {
    let layers = parts.layers.iter().filter(|layer| layer.bytes > 0);
    let layer = |layer: &StoredLayer| {
        let StoredLayer { op_type, bits, method, .. } = layer;
        (layer.label.clone(), format!("{op_type}, {bits} bits, {method}"), layer.bytes)
    };
    let tables = parts.embeddings.iter().chain(&parts.whole_weights);
    let tables = tables.map(|table| (table.name.clone(), format!("table, {} bits", table.bits), table.bytes));
    let mut found: Vec<(String, String, u64)> = layers.map(layer).chain(tables).collect();
    found.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
    let most = found.first().map_or(1, |(_, _, bytes)| *bytes).max(1) as f64;
    let row = |(label, about, stored): (String, String, u64)| {
        let plot = bar(stored as f64 / most, &bytes(stored));
        SizeRow { label, about, bytes: stored, plot }
    };
    found.into_iter().map(row).collect()
}

impl ErrorRow {
    fn of(layer: &StoredLayer, axis: LogAxis) -> Self {
        let (error, rounding, bound) = (layer.worst_error(), layer.rounding_error(), layer.certificate.bound);
        let on = if layer.validation_error.is_some() { "validation" } else { "calibration" };
        let about = format!("{}, {} bits, {}, on {on} samples", layer.op_type, layer.bits, layer.method);
        let plot = marked_bar(axis, error, &[("rounding", rounding), ("bound", bound)], &about);
        Self { label: layer.label.clone(), about, error, rounding, bound, plot }
    }
}

fn weight_figure(layer: &StoredLayer) -> Option<Figure> {
    let found = layer.weights.as_ref()?;
    let has_steps = layer.alphabet.as_deref().is_none_or(|alphabet| alphabet == INTEGERS);
    let codes = &found.codes;
    let about = format!(
        "{} to {}; {} of {} codes in use{}",
        short(found.least),
        short(found.greatest),
        codes.used,
        codes.levels,
        if layer.bits > DRAWN_BITS { ", drawn in groups" } else { "" },
    );
    let seen = Seen { ends: [found.least, found.greatest], counts: &found.counts };
    let plot = weights(&seen, &Seen { ends: codes.ends, counts: &codes.counts }, has_steps, &about);
    Some(Figure { label: layer.label.clone(), plot, about })
}

fn range_figure(tensor: &StoredTensor) -> Option<Figure> {
    let (covered, seen) = (tensor.code_range?, tensor.seen?);
    let error = tensor.relative_error.map_or(String::new(), |error| format!(", relative error {}", short(error)));
    let [low, high] = seen.map(short);
    let [from, to] = covered.map(short);
    let about = format!("seen {low} to {high}; codes {from} to {to} ({}, {}){error}", tensor.range, tensor.why);
    let plot = values(&Seen { ends: seen, counts: &tensor.counts }, covered, &about);
    Some(Figure { label: tensor.name.clone(), plot, about })
}

/// The layers that harm most first; bars are their powers, by decibels.
fn alone_rows(alone: &[StoredAlone]) -> Vec<BarRow> {
    let mut found: Vec<&StoredAlone> = alone.iter().filter(|layer| layer.sqnr_db.is_some()).collect();
    found.sort_by(|a, b| a.sqnr_db.unwrap_or(f64::INFINITY).total_cmp(&b.sqnr_db.unwrap_or(f64::INFINITY)));
    let decibels_of = |layer: &&StoredAlone| layer.sqnr_db.filter(|db| db.is_finite());
    let least = found.iter().filter_map(decibels_of).fold(f64::INFINITY, f64::min);
    let most = found.iter().filter_map(decibels_of).fold(f64::NEG_INFINITY, f64::max);
    let row = |layer: &&StoredAlone| {
        let sqnr_db = layer.sqnr_db.unwrap_or(f64::INFINITY);
        let share = 0.05 + 0.95 * (most - sqnr_db) / (most - least).max(f64::MIN_POSITIVE);
        let number = decibels(sqnr_db);
        BarRow { label: layer.label.clone(), plot: bar(share, &number), number }
    };
    found.iter().map(row).collect()
}

fn curve(parts: &Parts) -> String {
    let Some(budget) = &parts.budget else { return String::new() };
    let points: Vec<(f64, f64)> =
        budget.curve.iter().filter_map(|point| Some((point.bytes as f64, point.sqnr_db?))).collect();
    let sqnr_db = [&parts.measured, &parts.held_out].into_iter().flatten().find_map(|found| found.sqnr_db);
    Chart {
        points: &points,
        here: sqnr_db.map(|sqnr_db| (parts.bytes_after as f64, sqnr_db)),
        x_name: "size of the file",
        y_name: "SQNR of the outputs",
        x_text: &|x| bytes(x.max(0.0) as u64),
        y_text: &decibels,
    }
    .svg()
}

/// What stays floats, by operator and reason, most bytes first.
fn float_reasons(parts: &Parts) -> Vec<ReasonRow> {
    let mut groups: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for weight in &parts.float_weights {
        let group = groups.entry(format!("{}: {}", weight.operators.join(", "), weight.reason)).or_default();
        *group = (group.0 + 1, group.1 + weight.bytes);
    }
    let mut groups: Vec<(String, (usize, u64))> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let most = groups.first().map_or(1, |(_, (_, bytes))| *bytes).max(1) as f64;
    let row = |(reason, (count, stored)): (String, (usize, u64))| {
        let plot = bar(stored as f64 / most, &bytes(stored));
        ReasonRow { reason, count, bytes: stored, plot }
    };
    groups.into_iter().map(row).collect()
}
