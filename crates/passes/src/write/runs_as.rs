//! Predicts what ONNX Runtime makes of a quantized layer, from the graph that is written.
//!
//! | weight | input | layer | kernel |
//! |---|---|---|---|
//! | `MatMulNBits` | float | | `MatMulNBits` |
//! | codes | codes made at run time | `MatMulInteger` | `DynamicQuantizeMatMul`; `MatMulIntegerToFloat` where several layers share the codes |
//! | `DequantizeLinear` | `DequantizeLinear` | Conv, then `QuantizeLinear` | `QLinearConv` |
//! | | | Conv, float result | not fused: float, decoded at every run |
//! | | | Gemm; MatMul, then an Add of a constant | `QGemm` |
//! | | | MatMul, then `QuantizeLinear` | `QLinearMatMul` |
//! | | | MatMul, float result | `MatMulIntegerToFloat` |
//! | `DequantizeLinear`, 4 bits in blocks | float | MatMul | `MatMulNBits` |
//! | `DequantizeLinear` of f32 scales, in blocks of a power of two from 16 to 256, per tensor or per channel | float | MatMul, Gemm | `MatMulNBits` from 1.26 on, before decoded at every run |
//! | `DequantizeLinear` else | float | | float, decoded at every run |
//! | `DequantizeLinear -> Max` of weights too large for integers | float | MatMul, Gemm | the same |
//! | constants, `Cast -> Mul` of them | float | | float; decoded once, when the model loads |
//!
//! The rules are those of ONNX Runtime's x86-64 CPU provider at its full optimization level, found by trial.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, NodeId, ValueId};

use crate::graph::readers;
use crate::layers::{self, Decoding, Layer};
pub use crate::runtime::kernel::{Kernel, RunsAs};
use crate::runtime::nbits::is_nbits;
use crate::runtime::ort_version::OrtVersion;

/// What the layer at `node` of a written graph runs as in ONNX Runtime from version `oldest` on.
pub fn runs_as(graph: &Graph, node: NodeId, oldest: OrtVersion) -> RunsAs {
    let layer = graph.node(node);
    if is_nbits(layer) {
        return RunsAs::fast(Kernel::MatMulNBits);
    }
    if layer.is("MatMulInteger") {
        let shared = layer.input(0).is_some_and(|codes| graph.value(codes).uses().len() > 1);
        return RunsAs::fast(if shared { Kernel::MatMulIntegerToFloat } else { Kernel::DynamicQuantizeMatMul });
    }
    let decoded_of = |node: &Node, slot: usize| {
        graph.producer(node.input(slot)?).filter(|(_, node)| node.is("DequantizeLinear")).map(|(_, node)| node)
    };
    let decoded = |slot: usize| decoded_of(layer, slot);
    let weight = layer.input(1).and_then(|weight| graph.producer(weight));
    if weight.is_some_and(|(_, node)| node.is("Max") && decoded_of(node, 0).is_some()) {
        return RunsAs::slow("weights so large that sums of integers overflow are not fused");
    }
    match (decoded(0), decoded(1)) {
        (Some(_), Some(_)) => on_codes(graph, layer),
        (None, Some(weight)) => weight_only(graph, layer, weight, oldest),
        (_, None) => RunsAs::fast(Kernel::Float),
    }
}

/// Input and weight are decoded from codes.
fn on_codes(graph: &Graph, layer: &Node) -> RunsAs {
    let result = layer.output(0);
    let to_codes = result.is_some_and(|result| is_coded(graph, result));
    let adds_constant = result.is_some_and(|result| adds_constant(graph, result));
    let Some(kernels) = layers::layer(layer).and_then(Layer::on_codes) else {
        return RunsAs::slow("there is no kernel that takes its codes");
    };
    let on_floats = kernels.plus_constant.filter(|_| adds_constant).or(kernels.to_floats);
    match Some(kernels.to_codes).filter(|_| to_codes).or(on_floats) {
        Some(kernel) => RunsAs::fast(kernel),
        None => RunsAs::slow("a Conv on codes is fused only where its result is stored as codes"),
    }
}

/// The only reader of a value.
fn only_reader(graph: &Graph, value: ValueId) -> Option<&Node> {
    readers::only_reader(graph, value).map(|(reader, _)| graph.node(reader))
}

/// Whether a value goes into codes alone, over a Relu or Clip too.
fn is_coded(graph: &Graph, value: ValueId) -> bool {
    only_reader(graph, value).is_some_and(|reader| match reader.op_type() {
        "QuantizeLinear" => true,
        "Relu" | "Clip" => {
            let behind = reader.output(0).and_then(|result| only_reader(graph, result));
            behind.is_some_and(|behind| behind.is("QuantizeLinear"))
        }
        _ => false,
    })
}

/// Whether a decoded constant is added to a value, and nothing else is done with it.
fn adds_constant(graph: &Graph, value: ValueId) -> bool {
    let Some(add) = only_reader(graph, value).filter(|reader| reader.is("Add")) else { return false };
    let is_constant = |node: &Node| {
        node.is("DequantizeLinear") && node.input(0).is_some_and(|codes| graph.value(codes).constant().is_some())
    };
    let mut others = add.inputs().iter().flatten().filter(|&&input| input != value);
    others.any(|&input| graph.producer(input).is_some_and(|(_, node)| is_constant(node)))
}

/// The weight alone is decoded from codes.
fn weight_only(graph: &Graph, layer: &Node, weight: &Node, oldest: OrtVersion) -> RunsAs {
    let of_layer = layers::layer(layer);
    if of_layer.is_some_and(|layer| layer.decoding() == Decoding::Folded) {
        return RunsAs::slow("DequantizeLinear before a Conv is not fused");
    }
    let constant = |slot: usize| weight.input(slot).and_then(|value| graph.value(value).constant());
    let has_type = |tensor: Option<&TensorProto>, types: &[DataType]| {
        tensor.is_some_and(|tensor| types.iter().any(|&dtype| tensor.data_type() == dtype as i32))
    };
    let block = weight.int("block_size", 0);
    let fits = block == 0 || (16..=256).contains(&block) && block & (block - 1) == 0;
    let four_bits = has_type(constant(0), &[DataType::Int4, DataType::Uint4]);
    let is_known_early = of_layer.is_some_and(Layer::fuses_blocks_of_four_bits);
    if !has_type(constant(1), &[DataType::Float, DataType::Float16]) {
        RunsAs::slow("there is no kernel for scales of this type")
    } else if !fits {
        RunsAs::slow("blocks that are no power of two from 16 to 256 are not fused")
    } else if oldest >= OrtVersion::FUSES_ALL_DEQUANTIZE || (four_bits && block > 0 && is_known_early) {
        RunsAs::fast(Kernel::MatMulNBits)
    } else {
        RunsAs::slow("DequantizeLinear of this kind is fused from ONNX Runtime 1.26 on")
    }
}

#[cfg(test)]
#[path = "runs_as_tests.rs"]
mod tests;
