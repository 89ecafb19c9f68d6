//! Tensors that make outputs without a layer in between.
//!
//! What reaches an output only through Sigmoid, Softmax, Concat, Reshape and the like decides by its largest values:
//! cut them off, and no score exceeds one half, while the mean error of the scores hardly shows it. So the ranges of such
//! tensors hold all values that were seen ([`unclipped`]), unless the settings name a method.

use std::collections::HashSet;

use onnxquant_ir::{Graph, Node, Use, ValueId};
use onnxquant_quant::RangeMethod;

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

#[cfg(test)]
#[path = "exposed_tests.rs"]
mod tests;
