//! What the file says of a value that is no constant.

use onnxquant_ir::onnx::type_proto;
use onnxquant_ir::{Graph, ValueId};

/// The type of the elements and the shape of a tensor, as the graph's inputs, outputs or value infos have them.
pub(crate) fn declared_tensor(graph: &Graph, value: ValueId) -> Option<&type_proto::Tensor> {
    let port = graph.inputs().iter().chain(graph.outputs()).find(|port| port.value == value);
    let info = port.map(|port| &port.info).or_else(|| graph.value_info(graph.value(value).name()))?;
    match info.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor),
        _ => None,
    }
}
