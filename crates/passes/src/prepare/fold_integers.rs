//! Computes shapes, axes and indices that follow from constants alone.
//!
//! Exporters write an argument such as the `pads` of a Pad as a little program of its own:
//! `ConstantOfShape -> Concat -> Reshape -> Slice -> Transpose -> Reshape -> Cast`. Every node of it becomes an
//! initializer of the same name, so that other passes find a constant there.
//!
//! Computed is whatever operators of movement and arithmetic make of constants. Exact.
//!
//! Not folded: a node with an input that is no constant (of a `Constant` node before it was lifted, too), a
//! graph output, tensors of more than [`MAX_ELEMENTS`] elements, results of other types, and whatever the
//! specification leaves open: overflow, division by zero, an index out of range, floats that have no
//! integer. Subgraphs are not entered.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, IR_WITH_PLAIN_INITIALIZERS, Model, Node, ValueId, tensor};

use crate::graph::evaluate::{Constant, Values, evaluate};

/// No tensor with more elements is read or made, except that the shape of any constant is known.
pub const MAX_ELEMENTS: usize = 1024;

/// Folds every such node of the main graph; returns how many.
///
/// Below IR version 4, where initializers must also be inputs, the version is raised to 4.
pub fn fold_integers(model: &mut Model) -> usize {
    let graph = model.graph_mut();
    let mut folded = 0;
    for id in graph.order().to_vec() {
        let node = graph.node(id);
        let Some(result) = integers(graph, node) else { continue };
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

/// The integers that `node` makes of constants.
fn integers(graph: &Graph, node: &Node) -> Option<TensorProto> {
    let results = evaluate(node, &Small(graph), MAX_ELEMENTS)?;
    let [result] = results.as_slice() else { return None };
    let is_integer = matches!(result.dtype(), DataType::Int32 | DataType::Int64);
    (is_integer && result.len() <= MAX_ELEMENTS).then(|| result.to_tensor())
}

/// The small constants of a graph.
struct Small<'a>(&'a Graph);

impl Values for Small<'_> {
    fn constant(&self, value: ValueId) -> Option<Constant> {
        let count = self.shape(value)?.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim));
        count.filter(|&count| count <= MAX_ELEMENTS)?;
        Constant::read(self.0.value(value).constant()?)
    }

    fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        tensor::shape(self.0.value(value).constant()?).ok()
    }
}

#[cfg(test)]
#[path = "fold_integers_tests.rs"]
mod tests;
