//! `onnxquant report`: what changed from one stored report to another, or a page of one.

use std::path::Path;

use onnxquant::{Changes, Fact, Files, LayerChange, LayerState, StoredReport, report_schema};

use crate::args::ReportArgs;
use crate::host::Host;
use crate::screen::fitted;
use crate::sink;
use crate::table::{Table, listed, quoted, short};

/// Layers that are listed.
const SHOWN: usize = 20;

pub(crate) fn run(args: &ReportArgs, host: &Host<'_>) -> anyhow::Result<String> {
    let Some(old) = &args.old else { return Ok(report_schema()?) };
    let stored = StoredReport::read(old)?;
    if let Some(path) = &args.html {
        Files::default().reads("the stored report", old).reports("the page", path).check()?;
        sink::write(path, &stored.page()?)?;
    }
    match &args.new {
        Some(new) => Ok(text(&changes(&stored, new)?, host.columns)),
        None => Ok(String::new()),
    }
}

fn changes(old: &StoredReport, new: &Path) -> anyhow::Result<Changes> {
    Ok(old.changes(&StoredReport::read(new)?))
}

fn text(found: &Changes, columns: Option<usize>) -> String {
    let mut text = found.facts.iter().map(fact).collect::<String>();
    if found.settings.is_empty() {
        text += "settings are the same\n";
    }
    text += &found.settings.iter().map(|setting| format!("setting {}", fact(setting))).collect::<String>();
    let count = |is: &dyn Fn(&LayerChange) -> bool| found.layers.iter().filter(|layer| is(layer)).count();
    let (better, worse) = (count(&LayerChange::is_better), count(&LayerChange::is_worse));
    text +=
        &format!("layers better {better}, worse {worse}, otherwise changed {}\n", found.layers.len() - better - worse);
    for (what, labels) in
        [("gone", &found.gone), ("added", &found.added)].into_iter().filter(|(_, labels)| !labels.is_empty())
    {
        let names = listed(labels.iter().map(|label| quoted(label)));
        text += &format!("layers {what} {}: {names}\n", labels.len());
    }
    text += &layers(&found.layers, columns);
    fitted(text, columns)
}

/// What both say, or what both say alike.
fn fact(fact: &Fact) -> String {
    let Fact { name, old, new } = fact;
    if old == new { format!("{name}: {old}\n") } else { format!("{name}: {old} -> {new}\n") }
}

fn layers(found: &[LayerChange], columns: Option<usize>) -> String {
    if found.is_empty() {
        return String::new();
    }
    let head = ["layer", "bits", "method", "activations", "error"];
    let row = |layer: &LayerChange| {
        let both = |of: &dyn Fn(&LayerState) -> String| {
            let (old, new) = (of(&layer.old), of(&layer.new));
            if old == new { old } else { format!("{old} -> {new}") }
        };
        let error = |state: &LayerState| state.error.map_or("-".to_owned(), short);
        vec![
            layer.label.clone(),
            both(&|state| state.bits.to_string()),
            both(&|state| state.method.clone()),
            both(&|state| state.activations.clone()),
            both(&error),
        ]
    };
    let more = found.len().saturating_sub(SHOWN);
    let rows = Table { spare: &[3, 2], ..Table::new(&head, found.iter().take(SHOWN).map(row)) };
    let text = rows.text(columns);
    if more > 0 { format!("{text}and {more} more\n") } else { text }
}
