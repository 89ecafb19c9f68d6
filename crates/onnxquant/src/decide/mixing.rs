//! Which operators a common scale would spoil.
//!
//! A Concat that puts boxes in pixels beside scores below 1 gives both one scale, on which all scores are 0. It stays in
//! float where the scale of its result would cost one of its inputs most of what the input's own scale leaves
//! ([`is_ruined`]), and so does what follows it up to an output or to an operator that reads floats: its inputs then have
//! scales of their own. Where only layers read it the Concat stays on codes, because layers round their input to one
//! scale anyway.

use std::collections::{HashMap, HashSet};

use onnxquant_ir::{Graph, NodeId, Use, ValueId};
use onnxquant_passes::integer::kernels::{Kernel, Unit};
use onnxquant_quant::RangeMethod;

use crate::config::Config;
use crate::error::Error;
use crate::plan::assignment::Assignment;
use crate::plan::scales::{Histograms, Rules};

/// A common scale may cost an input so much error, over its power, before it is ruined, and so many times what its own
/// scale costs: 20 dB and 10 dB.
const RUINED: f64 = 0.01;
const MUCH_MORE: f64 = 10.0;

/// Whether an error on a common scale ruins what has this error on its own; both over the power of the values.
fn is_ruined(common: f64, own: f64) -> bool {
    common > RUINED && common > MUCH_MORE * own
}

/// The operators that must stay in float, because a Concat would put what differs in scale on one.
pub(super) fn mixing_scales(
    graph: &Graph,
    assignment: &Assignment,
    histograms: &Histograms,
    config: &Config,
) -> Result<HashSet<NodeId>, Error> {
    let units: HashMap<NodeId, &Unit> = assignment.regions().units.iter().map(|unit| (unit.node, unit)).collect();
    let seen = seen_as_floats(graph, &units);
    let mut found = HashSet::new();
    for unit in assignment.regions().units.iter().filter(|unit| graph.node(unit.node).is("Concat")) {
        let is_seen = unit.outputs.iter().any(|value| seen.contains(value));
        if is_seen && ruins(unit, assignment.rules(graph, config), histograms)? {
            take_with_followers(graph, &units, &seen, unit, &mut found);
        }
    }
    Ok(found)
}

/// Whether the result's scale ruins one of the inputs.
fn ruins(unit: &Unit, rules: Rules<'_>, histograms: &Histograms) -> Result<bool, Error> {
    let params = |value| histograms.params(rules, value, RangeMethod::MinMax);
    let Some(&result) = unit.outputs.first() else { return Ok(false) };
    let common = params(result)?;
    for &(_, input) in &unit.inputs {
        let on_common = histograms.relative_error(rules.graph, input, common)?;
        let on_own = histograms.relative_error(rules.graph, input, params(input)?)?;
        if is_ruined(on_common, on_own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The values whose numbers reach an output, or a reader of floats, before a layer rounds them.
fn seen_as_floats(graph: &Graph, units: &HashMap<NodeId, &Unit>) -> HashSet<ValueId> {
    let mut seen: HashSet<ValueId> = HashSet::new();
    for (_, node) in graph.nodes().collect::<Vec<_>>().into_iter().rev() {
        let is_seen = |value: &&ValueId| {
            graph.value(**value).uses().iter().any(|user| match user {
                Use::Input(reader, _) => match units.get(reader) {
                    Some(unit) => hands_on(unit) && unit.outputs.iter().any(|made| seen.contains(made)),
                    None => true,
                },
                Use::GraphOutput(_) | Use::Capture(_) => true,
            })
        };
        let outputs: Vec<ValueId> = node.outputs().iter().flatten().filter(is_seen).copied().collect();
        seen.extend(outputs);
    }
    seen
}

/// Whether a unit gives its result the scale of what it reads, or one like it. Layers do not.
fn hands_on(unit: &Unit) -> bool {
    !matches!(unit.kernel, Kernel::Linear | Kernel::Product)
}

/// The unit, and those that hand its numbers on to where they are seen as floats.
fn take_with_followers(
    graph: &Graph,
    units: &HashMap<NodeId, &Unit>,
    seen: &HashSet<ValueId>,
    unit: &Unit,
    found: &mut HashSet<NodeId>,
) {
    let mut waiting = vec![unit];
    while let Some(unit) = waiting.pop() {
        if !found.insert(unit.node) {
            continue;
        }
        let uses = unit.outputs.iter().flat_map(|value| graph.value(*value).uses());
        let readers = uses.filter_map(|user| match user {
            Use::Input(reader, _) => units.get(reader).copied(),
            _ => None,
        });
        let is_seen = |unit: &&Unit| hands_on(unit) && unit.outputs.iter().any(|made| seen.contains(made));
        waiting.extend(readers.filter(is_seen));
    }
}

#[cfg(test)]
#[path = "mixing_tests.rs"]
mod tests;
