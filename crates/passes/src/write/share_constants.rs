//! Lets layers that read one weight share what is stored of it.
//!
//! # Problem
//!
//! Every layer is written by itself, with initializers of its own. Where several layers read one weight and got the same
//! codes, these would lie in the file once a layer, while the float weight lay there once.
//!
//! # Method
//!
//! Initializers of the same type, shape and bytes become one, the first. The nodes that decode them stay those of each
//! layer: ONNX Runtime folds and fuses them one by one.
//!
//! # Cost
//!
//! Initializers of equal type and shape are compared in pairs, up to the first byte that differs.
//!
//! # Failure
//!
//! Not for weights in `DequantizeLinear` before a MatMul or Gemm with float activations: the runtime makes one node of
//! nodes that read the same, and does not fuse a weight that two layers read. The caller leaves these out.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::{Graph, GraphError, ValueId};

/// Bytes of the numbers in these initializers.
pub fn stored_bytes(graph: &Graph, stored: &[ValueId]) -> usize {
    let numbers = |&value: &ValueId| graph.value(value).constant()?.raw_data.as_ref().map(bytes::Bytes::len);
    stored.iter().filter_map(numbers).sum()
}

/// Makes equal initializers of `layers` one. Each list keeps those that no list before it has.
pub fn share_constants(graph: &mut Graph, layers: &mut [&mut Vec<ValueId>]) -> Result<(), GraphError> {
    let mut kept: Vec<ValueId> = Vec::new();
    for layer in layers {
        let mut own = Vec::with_capacity(layer.len());
        for &value in layer.iter() {
            let equal = |&other: &ValueId| same(graph.value(other).constant(), graph.value(value).constant());
            match kept.iter().copied().find(equal) {
                Some(first) => {
                    graph.replace_uses(value, first)?;
                    graph.remove_if_unused(value);
                }
                None => own.push(value),
            }
        }
        kept.extend(&own);
        **layer = own;
    }
    Ok(())
}

fn same(a: Option<&TensorProto>, b: Option<&TensorProto>) -> bool {
    a.zip(b).is_some_and(|(a, b)| {
        let head = |tensor: &TensorProto| (tensor.data_type(), tensor.dims.clone());
        a.raw_data.is_some() && head(a) == head(b) && a.raw_data == b.raw_data
    })
}

#[cfg(test)]
#[path = "share_constants_tests.rs"]
mod tests;
