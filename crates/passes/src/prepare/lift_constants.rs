//! Turns `Constant` nodes into initializers.
//!
//! Exporters such as PaddlePaddle's hold their weights in `Constant` nodes. An initializer of the same name
//! means the same and is what the other passes look for.
//!
//! Not lifted: constants that are graph outputs, sparse tensors and strings. Subgraphs are not entered.

use onnxquant_ir::onnx::{AttributeProto, TensorProto};
use onnxquant_ir::{Model, Node, NodeId, tensor};

/// Lifts every dense numeric `Constant` of the main graph; returns how many.
///
/// Below IR version 4, where initializers must also be inputs, the version is raised to 4.
pub fn lift_constants(model: &mut Model) -> usize {
    let found = constants(model);
    if !found.is_empty() {
        model.raise_ir_version(onnxquant_ir::IR_WITH_PLAIN_INITIALIZERS);
    }
    let lifted =
        found.into_iter().filter(|(id, tensor)| model.graph_mut().node_to_constant(*id, tensor.clone()).is_ok());
    lifted.count()
}

fn constants(model: &Model) -> Vec<(NodeId, TensorProto)> {
    let graph = model.graph();
    let constant = |(id, node): (NodeId, &Node)| {
        let liftable = node.is("Constant") && node.output(0).is_some_and(|value| !graph.is_output(value));
        Some((id, liftable.then(|| value_of(node))??))
    };
    graph.nodes().filter_map(constant).collect()
}

/// The tensor that a `Constant` node makes, unless it is sparse or of strings.
fn value_of(node: &Node) -> Option<TensorProto> {
    let [attribute] = node.attributes() else { return None };
    let AttributeProto { t, floats, ints, .. } = attribute;
    match attribute.name() {
        "value" => t.as_deref().filter(|tensor| tensor.string_data.is_empty()).cloned(),
        "value_float" => Some(tensor::from_f32(&[], &[attribute.f()])),
        "value_floats" => Some(tensor::from_f32(&[floats.len()], floats)),
        "value_int" => Some(tensor::from_i64(&[], &[attribute.i()])),
        "value_ints" => Some(tensor::from_i64(&[ints.len()], ints)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "lift_constants_tests.rs"]
mod tests;
