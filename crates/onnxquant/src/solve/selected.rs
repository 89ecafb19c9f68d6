//! Which values have rows that data select.
//!
//! Where numbers decide which rows go on, or in which order, the float network and the quantized one may have other rows
//! in the same place.

use std::collections::HashSet;

use onnxquant_ir::{Graph, ValueId};

/// Operators whose results are places, or a choice, that depends on numbers.
const SELECTING: [&str; 6] = ["NonZero", "NonMaxSuppression", "TopK", "Unique", "Compress", "ArgMax"];

/// Everything that depends on a selection.
pub(crate) fn selected(graph: &Graph) -> HashSet<ValueId> {
    let mut selected = HashSet::new();
    for (_, node) in graph.nodes() {
        let mut reads = node.inputs().iter().flatten().chain(node.captures());
        if SELECTING.iter().any(|op_type| node.is(op_type)) || reads.any(|value| selected.contains(value)) {
            selected.extend(node.outputs().iter().flatten());
        }
    }
    selected
}
