//! What a migration writes.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{NodeId, tensor};

/// A node's constant input that gets a new tensor.
pub(super) struct Change {
    pub(super) node: NodeId,
    pub(super) slot: usize,
    pub(super) tensor: TensorProto,
}

/// A tensor of the numbers, each rounded once; `None` where one is not finite.
pub(super) fn stored(dtype: DataType, dims: &[usize], numbers: impl Iterator<Item = f64>) -> Option<TensorProto> {
    let tensor = tensor::from_f32_as(dtype, dims, &numbers.map(|x| x as f32).collect::<Vec<_>>());
    let finite = tensor::to_f32(&tensor).ok()?.iter().all(|x| x.is_finite());
    finite.then_some(tensor)
}
