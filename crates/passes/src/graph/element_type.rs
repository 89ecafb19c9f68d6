//! The type of a value's elements.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::type_proto;
use onnxquant_ir::{Graph, ValueId};

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
    let found = graph.value(value);
    if let Some(tensor) = found.tensor() {
        return Some(tensor.data_type());
    }
    let port = graph.inputs().iter().chain(graph.outputs()).find(|port| port.value == value);
    let info = port.map(|port| &port.info).or_else(|| graph.value_info(found.name()))?;
    match info.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor.elem_type()).filter(|&code| code != 0),
        _ => None,
    }
}
