//! Computes shapes, axes and indices that follow from constants alone.
//!
//! Exporters write an argument such as the `pads` of a Pad as a little program of its own:
//! `ConstantOfShape -> Concat -> Reshape -> Slice -> Transpose -> Reshape -> Cast`. Every node of it becomes an
//! initializer of the same name, so that other passes find a constant there.
//!
//! Computed: `Add`, `Sub`, `Mul`, `Div`, `Cast`, `Concat`, `ConstantOfShape`, `Gather`, `Identity`, `Range`,
//! `Reshape`, `Shape`, `Slice`, `Squeeze`, `Transpose` and `Unsqueeze`, as the specification of each version of
//! the operator says, on int64 and int32. Exact.
//!
//! Not folded: a node with an input that is no constant (of a `Constant` node before it was lifted, too), a
//! graph output, tensors of more than [`MAX_ELEMENTS`] elements, results of other types, and whatever the
//! specification leaves open: overflow, division by zero, an index out of range, floats that have no
//! integer. Subgraphs are not entered.

mod evaluate;

pub use evaluate::MAX_ELEMENTS;
use onnxquant_ir::{IR_WITH_PLAIN_INITIALIZERS, Model};

/// Folds every such node of the main graph; returns how many.
///
/// Below IR version 4, where initializers must also be inputs, the version is raised to 4.
pub fn fold_integers(model: &mut Model) -> usize {
    let graph = model.graph_mut();
    let mut folded = 0;
    for id in graph.order().to_vec() {
        let node = graph.node(id);
        let Some(result) = evaluate::evaluate(graph, node) else { continue };
        let inputs = node.inputs().to_vec();
        if graph.node_to_constant(id, result).is_ok() {
            inputs.into_iter().flatten().for_each(|value| graph.remove_if_unused(value));
            folded += 1;
        }
    }
    if folded > 0 {
        model.raise_ir_version(IR_WITH_PLAIN_INITIALIZERS);
    }
    folded
}

#[cfg(test)]
#[path = "fold_integers_tests.rs"]
mod tests;
