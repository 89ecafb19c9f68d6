//! Tensors that make outputs without a layer in between, and what their codes must not spoil.
//!
//! # Problem
//!
//! What reaches an output only through Sigmoid, Softmax, Concat, Reshape and the like decides by its largest values:
//! cut them off, and no score exceeds one half, while the mean error of the scores hardly shows it. And a Concat that
//! puts boxes in pixels beside scores below 1 gives both one scale, on which all scores are 0.
//!
//! # Method
//!
//! - The ranges of such tensors hold all values that were seen ([`unclipped`]), unless the settings name a method.
//! - A Concat stays in float where the scale of its result would cost one of its inputs most of what the input's own
//!   scale leaves ([`is_ruined`]), and so does what follows it up to an output or to an operator that reads floats: its
//!   inputs then have scales of their own. Where only layers read it the Concat stays on codes, because layers round
//!   their input to one scale anyway.

use std::collections::{HashMap, HashSet};

use onnxquant_ir::{Graph, Node, NodeId, Use, ValueId};
use onnxquant_passes::integer::kernels::{Kernel, Unit};
use onnxquant_quant::RangeMethod;

use super::IntegerPlan;
use super::scales::Histograms;
use crate::config::Config;
use crate::error::Error;

/// Operators that move numbers or map each by itself, or share them out between themselves.
const PASSING: [&str; 23] = [
    "Sigmoid",
    "HardSigmoid",
    "Tanh",
    "Softmax",
    "LogSoftmax",
    "Concat",
    "Identity",
    "Cast",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "Tile",
    "Pad",
    "Relu",
    "Clip",
    "Resize",
    "DepthToSpace",
];
/// Those of them whose other inputs are shapes, places and the like.
const READING_ONE: [&str; 8] = ["Reshape", "Slice", "Gather", "Expand", "Tile", "Pad", "Clip", "Resize"];
/// The same where all but one operand are constants.
const PASSING_WITH_CONSTANTS: [&str; 4] = ["Add", "Sub", "Mul", "Div"];
/// A common scale may cost an input so much error, over its power, before it is ruined, and so many times what its own
/// scale costs: 20 dB and 10 dB.
const RUINED: f64 = 0.01;
const MUCH_MORE: f64 = 10.0;

/// The values that reach an output without a layer in between, whatever else they reach.
pub(super) fn exposed(graph: &Graph) -> HashSet<ValueId> {
    let mut exposed: HashSet<ValueId> = HashSet::new();
    for (_, node) in graph.nodes().collect::<Vec<_>>().into_iter().rev() {
        let made = node.outputs().iter().flatten().copied();
        let made: Vec<ValueId> = made.filter(|value| is_exposed(graph, &exposed, *value)).collect();
        exposed.extend(made);
    }
    let inputs = graph.inputs().iter().map(|port| port.value).filter(|value| is_exposed(graph, &exposed, *value));
    let inputs: Vec<ValueId> = inputs.collect();
    exposed.extend(inputs);
    exposed
}

fn is_exposed(graph: &Graph, exposed: &HashSet<ValueId>, value: ValueId) -> bool {
    let uses = graph.value(value).uses();
    let passes = |user: &Use| match user {
        Use::Input(reader, slot) => {
            let reader = graph.node(*reader);
            let moved = *slot == 0 || !READING_ONE.iter().any(|op| reader.is(op));
            moved && is_passing(graph, reader) && reader.outputs().iter().flatten().any(|made| exposed.contains(made))
        }
        Use::GraphOutput(_) => true,
        Use::Capture(_) => false,
    };
    uses.iter().any(passes)
}

fn is_passing(graph: &Graph, node: &Node) -> bool {
    let computed = node.inputs().iter().flatten().filter(|value| graph.value(**value).constant().is_none()).count();
    PASSING.iter().any(|op_type| node.is(op_type))
        || computed == 1 && PASSING_WITH_CONSTANTS.iter().any(|op_type| node.is(op_type))
}

/// The method for a tensor that must keep its largest values: the same where it clips none, else the range of all values.
pub(super) fn unclipped(range: RangeMethod) -> RangeMethod {
    match range {
        RangeMethod::MinMax | RangeMethod::Stretched(_) => range,
        _ => RangeMethod::MinMax,
    }
}

/// Whether an error on a common scale ruins what has this error on its own; both over the power of the values.
fn is_ruined(common: f64, own: f64) -> bool {
    common > RUINED && common > MUCH_MORE * own
}

/// The operators that must stay in float, because a Concat would put what differs in scale on one.
pub(super) fn mixing_scales(
    graph: &Graph,
    integers: &IntegerPlan,
    histograms: &Histograms,
    config: &Config,
) -> Result<HashSet<NodeId>, Error> {
    let units: HashMap<NodeId, &Unit> = integers.regions.units.iter().map(|unit| (unit.node, unit)).collect();
    let seen = seen_as_floats(graph, &units);
    let mut found = HashSet::new();
    for unit in integers.regions.units.iter().filter(|unit| graph.node(unit.node).is("Concat")) {
        let is_seen = unit.outputs.iter().any(|value| seen.contains(value));
        if is_seen && ruins(graph, unit, integers, histograms, config)? {
            take_with_followers(graph, &units, &seen, unit, &mut found);
        }
    }
    Ok(found)
}

/// Whether the result's scale ruins one of the inputs.
fn ruins(
    graph: &Graph,
    unit: &Unit,
    integers: &IntegerPlan,
    histograms: &Histograms,
    config: &Config,
) -> Result<bool, Error> {
    let params = |value| histograms.params(graph, integers, value, RangeMethod::MinMax, config);
    let Some(&result) = unit.outputs.first() else { return Ok(false) };
    let common = params(result)?;
    for &(_, input) in &unit.inputs {
        let on_common = histograms.relative_error(graph, input, common)?;
        let on_own = histograms.relative_error(graph, input, params(input)?)?;
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
#[path = "exposed_tests.rs"]
mod tests;
