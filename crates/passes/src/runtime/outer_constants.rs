//! Constants that bodies read from the graph around them.

use onnxquant_ir::{Graph, Use, ValueId};

/// Whether a constant of a body has to be its own: ONNX Runtime refuses models in whose bodies a `DequantizeLinear` reads
/// codes from outside (1.32). All else that passes write may stand outside, where several bodies share it.
pub fn stays_in_body(graph: &Graph, constant: ValueId) -> bool {
    graph.value(constant).uses().iter().any(|user| match user {
        Use::Input(node, _) => graph.node(*node).is("DequantizeLinear"),
        _ => false,
    })
}
