//! The number of dimensions of a value.

use onnxquant_ir::{Graph, ValueId, tensor};

use crate::graph::declared::declared_tensor;

/// Longest way that is followed.
const MAX_STEPS: usize = 8;

/// Dimensions of `value`, as the file says or the operators that make it; `None` where neither does.
pub(crate) fn rank(graph: &Graph, value: ValueId) -> Option<usize> {
    followed(graph, value, MAX_STEPS)
}

fn followed(graph: &Graph, value: ValueId, steps: usize) -> Option<usize> {
    let steps = steps.checked_sub(1)?;
    declared(graph, value).or_else(|| {
        let (_, node) = graph.producer(value)?;
        let of = |slot: usize| followed(graph, node.input(slot)?, steps);
        match node.op_type() {
            _ if !node.domain().is_empty() => None,
            "Transpose" => node.ints("perm").map(<[i64]>::len).or_else(|| of(0)),
            "Gemm" => Some(2),
            "Reshape" => Some(tensor::to_i64(graph.value(node.input(1)?).constant()?).ok()?.len()),
            "Conv" | "ConvTranspose" => of(1),
            // The result has the dimensions of the operand with the most.
            "Add" | "Sub" | "Mul" | "Div" => Some(of(0)?.max(of(1)?)),
            "MatMul" => Some(of(0)?.max(of(1)?)).filter(|_| of(0) > Some(1) && of(1) > Some(1)),
            "Relu" | "Gelu" | "Erf" | "Sigmoid" | "Tanh" | "Clip" | "Sqrt" | "Softmax" | "LayerNormalization"
            | "Identity" | "Cast" | "Dropout" => of(0),
            _ => None,
        }
    })
}

fn declared(graph: &Graph, value: ValueId) -> Option<usize> {
    match graph.value(value).tensor() {
        Some(tensor) => Some(tensor.dims.len()),
        None => declared_tensor(graph, value)?.shape.as_ref().map(|shape| shape.dim.len()),
    }
}
