//! Weights times a factor.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId, Use, ValueId, tensor};

use crate::graph::constant_chain;

/// The constant behind `value` times `factor`, of the same type; `None` where it is none that can be a weight, or where
/// the product is not finite.
pub(super) fn scaled(graph: &Graph, value: ValueId, factor: f32) -> Option<TensorProto> {
    let tensor = constant_chain::resolve(graph, value)?.tensor;
    let dtype = tensor::data_type(&tensor).ok().filter(|dtype| is_weight(*dtype))?;
    let numbers = tensor::to_f32(&tensor).ok()?.iter().map(|x| x * factor).collect::<Vec<f32>>();
    let product = tensor::from_f32_as(dtype, &tensor::shape(&tensor).ok()?, &numbers);
    let is_finite = tensor::to_f32(&product).ok()?.iter().all(|x| x.is_finite());
    is_finite.then_some(product)
}

/// The types of weights.
pub(super) fn is_weight(dtype: DataType) -> bool {
    matches!(dtype, DataType::Float | DataType::Float16 | DataType::Bfloat16)
}

/// Whether only `reader` reads the constant behind `value`, by way of whatever stands between.
pub(super) fn is_own(graph: &Graph, value: ValueId, reader: NodeId) -> bool {
    let [Use::Input(node, _)] = graph.value(value).uses() else { return false };
    let before = graph.producer(value);
    *node == reader && before.is_none_or(|(id, node)| node.input(0).is_some_and(|value| is_own(graph, value, id)))
}

/// Lets input `slot` of `node` be `tensor`; what it was goes where nothing else reads it.
pub(super) fn replace_constant(graph: &mut Graph, node: NodeId, slot: usize, tensor: TensorProto) {
    let old = graph.node(node).input(slot);
    let name = old.map_or("constant", |old| graph.value(old).name()).to_owned();
    let new = graph.add_constant(&format!("{name}_scaled"), tensor);
    graph.set_input(node, slot, Some(new));
    if let Some(old) = old {
        graph.remove_if_unused(old);
    }
}
