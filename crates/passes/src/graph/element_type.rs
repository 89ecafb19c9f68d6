//! The type of a value's elements.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, ValueId};

use crate::graph::declared::declared_tensor;

/// Longest way that is followed.
const MAX_STEPS: usize = 16;

/// Whether `value` holds numbers of f32, as the file says or the operators that make it.
pub(crate) fn is_f32(graph: &Graph, value: ValueId) -> bool {
    followed(graph, value, MAX_STEPS) == Some(DataType::Float as i32)
}

fn followed(graph: &Graph, value: ValueId, steps: usize) -> Option<i32> {
    let steps = steps.checked_sub(1)?;
    declared(graph, value).or_else(|| {
        let (_, node) = graph.producer(value)?;
        let of = |slot: usize| followed(graph, node.input(slot)?, steps);
        match node.op_type() {
            _ if !node.domain().is_empty() => None,
            "Cast" => i32::try_from(node.int("to", 0)).ok(),
            // The result has the type of the first input.
            "Add"
            | "Sub"
            | "Mul"
            | "Div"
            | "Pow"
            | "Max"
            | "Min"
            | "MatMul"
            | "Gemm"
            | "Conv"
            | "ConvTranspose"
            | "Relu"
            | "LeakyRelu"
            | "HardSigmoid"
            | "HardSwish"
            | "Gelu"
            | "Erf"
            | "Sigmoid"
            | "Tanh"
            | "Clip"
            | "Sqrt"
            | "Exp"
            | "Softmax"
            | "LayerNormalization"
            | "BatchNormalization"
            | "InstanceNormalization"
            | "MaxPool"
            | "AveragePool"
            | "GlobalAveragePool"
            | "ReduceMean"
            | "ReduceSum"
            | "Transpose"
            | "Reshape"
            | "Flatten"
            | "Squeeze"
            | "Unsqueeze"
            | "Concat"
            | "Slice"
            | "Split"
            | "Gather"
            | "Pad"
            | "Resize"
            | "Expand"
            | "Identity"
            | "Dropout"
                if node.output(0) == Some(value) || node.is("Split") =>
            {
                of(0)
            }
            "Where" => of(1),
            _ => None,
        }
    })
}

fn declared(graph: &Graph, value: ValueId) -> Option<i32> {
    match graph.value(value).tensor() {
        Some(tensor) => Some(tensor.data_type()),
        None => declared_tensor(graph, value).map(|tensor| tensor.elem_type()).filter(|&code| code != 0),
    }
}
