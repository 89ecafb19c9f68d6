//! Who reads a value.

use onnxquant_ir::{Graph, NodeId, Use, ValueId};

/// The node, and its slot, that alone reads `value`.
pub(crate) fn only_reader(graph: &Graph, value: ValueId) -> Option<(NodeId, usize)> {
    match graph.value(value).uses() {
        [Use::Input(reader, slot)] => Some((*reader, *slot)),
        _ => None,
    }
}
