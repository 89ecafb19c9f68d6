//! Keeps ONNX Runtime from computing on codes what is to stay in float.
//!
//! # Problem
//!
//! The runtime takes a node for one on codes wherever it stands between a `DequantizeLinear` and a `QuantizeLinear`,
//! whatever was meant:
//!
//! | node | what the runtime makes of it |
//! |---|---|
//! | Conv, ConvTranspose, Gemm with a float weight | it quantizes the weight itself, on one scale for all channels |
//! | the same with a weight on codes, made for float activations | an integer kernel, for which the codes were not made |
//! | MatMul, Gemm with a weight on codes | the same without a `QuantizeLinear` behind |
//! | AveragePool, GlobalAveragePool in a form without a kernel | a node that does not load, or throws |
//! | Resize that interpolates, where both scales are equal | the same on codes, whose fractions it cuts |
//!
//! Relu and Clip may stand between the node and the `QuantizeLinear`, and operators that move elements on both sides:
//! the runtime moves conversions over them.
//!
//! # Method
//!
//! Such a node reads its input through a `Sum` of one operand, which the runtime leaves where it is.
//!
//! # Guarantee
//!
//! The same numbers; the node is computed in float at every level of optimization.
//!
//! # Cost
//!
//! A copy of the input.
//!
//! # References
//!
//! In ONNX Runtime: `weight_bias_quantization.cc`, `qdq_selectors.cc`, `qdq_propagation.cc`.

use std::collections::HashSet;

use onnxquant_ir::{Graph, Node, NodeId, Use, ValueId};

use crate::graph::insert::insert;
use crate::layers;

/// Operators over which the runtime moves conversions.
const MOVES: [&str; 9] =
    ["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "MaxPool", "Identity", "Expand"];

/// Lets the nodes that would be taken for such on codes, and are not of `coded`, read what the runtime does not take for
/// codes; returns how many there are. `decoded` are the values that were decoded for regions: what the model itself
/// decodes is left alone.
pub fn keep_float(graph: &mut Graph, coded: &HashSet<NodeId>, decoded: &HashSet<ValueId>) -> usize {
    let meant = |&(id, node): &(NodeId, &Node)| !coded.contains(&id) && is_taken(graph, node, decoded);
    let taken: Vec<NodeId> = graph.nodes().filter(meant).map(|(id, _)| id).collect();
    for &node in &taken {
        let Some(input) = graph.node(node).input(0) else { continue };
        let name = format!("{}_float_input", graph.label(node));
        let read = insert(graph, node, "Sum", &[input], name, vec![]);
        graph.set_input(node, 0, Some(read));
    }
    taken.len()
}

/// Whether the runtime would compute the node on codes.
fn is_taken(graph: &Graph, node: &Node, decoded: &HashSet<ValueId>) -> bool {
    if !node.domain().is_empty() || !node.input(0).is_some_and(|input| is_decoded(graph, input, decoded)) {
        return false;
    }
    let weight_on_codes = || node.input(1).is_some_and(|weight| is_decoded_constant(graph, weight));
    let encoded = || node.output(0).is_some_and(|output| is_encoded(graph, output));
    if let Some(layer) = layers::layer(node) {
        let to_floats = layer.on_codes().is_some_and(|kernels| kernels.to_floats.is_some());
        return to_floats && weight_on_codes() || layer.float_weight_becomes_codes() && encoded();
    }
    match node.op_type() {
        "AveragePool" | "GlobalAveragePool" => encoded(),
        "Resize" => node.text("mode", "nearest") != "nearest" && encoded(),
        _ => false,
    }
}

/// Whether the value is one of `decoded`, or such a one that was moved.
fn is_decoded(graph: &Graph, mut value: ValueId, decoded: &HashSet<ValueId>) -> bool {
    while !decoded.contains(&value) {
        let mover = graph.producer(value).filter(|(_, node)| MOVES.iter().any(|op_type| node.is(op_type)));
        match mover.and_then(|(_, node)| node.input(0)) {
            Some(before) => value = before,
            None => return false,
        }
    }
    true
}

/// Whether the value is decoded from codes in the file. Operators may put codes of few bits together first.
fn is_decoded_constant(graph: &Graph, value: ValueId) -> bool {
    let decoded = graph.producer(value).filter(|(_, node)| node.is("DequantizeLinear"));
    let mut codes = decoded.and_then(|(_, node)| node.input(0));
    while let Some(value) = codes {
        match graph.producer(value) {
            Some((_, node)) => codes = node.input(0),
            None => return graph.value(value).constant().is_some(),
        }
    }
    false
}

/// Whether the value, behind activations and moves that alone read it, becomes codes.
fn is_encoded(graph: &Graph, mut value: ValueId) -> bool {
    loop {
        let uses = graph.value(value).uses();
        let reader = |user: &Use| match user {
            Use::Input(node, 0) => Some(graph.node(*node)),
            _ => None,
        };
        if uses.iter().filter_map(reader).any(|node| node.is("QuantizeLinear")) {
            return true;
        }
        let [only] = uses else { return false };
        let passed = |node: &&Node| node.is("Relu") || node.is("Clip") || MOVES.iter().any(|op_type| node.is(op_type));
        match reader(only).filter(passed).and_then(|node| node.output(0)) {
            Some(behind) => value = behind,
            None => return false,
        }
    }
}

#[cfg(test)]
#[path = "keep_float_tests.rs"]
mod tests;
