//! The operators whose weights can be codes, and everything that depends on which one it is.
//!
//! | operator | weight | channels of the input | one scale an output | bias |
//! |---|---|---|---|---|
//! | Gemm | `[K, M]`, or `[M, K]` with `transB` | columns | `[M]` | input 2 |
//! | MatMul | `[K, M]` | last axis | `[M]` | an `Add` behind it |
//! | Conv | `[M, C/groups, kernel...]` | axis 1 | `[M, 1, ...]` | input 2 |
//! | ConvTranspose | `[C, M/groups, kernel...]` | axis 1 | `[1, M, 1, ...]`; `[C, M/groups, 1, ...]` in groups | input 2 |
//!
//! A further operator is one more implementation of [`Layer`], and a line in `LAYERS`; its shapes as matrices are a
//! [`MatrixView`](onnxquant_quant::MatrixView).

mod conv;
mod conv_transpose;
mod gemm;
mod layer;
mod matmul;
mod skip_reason;
mod window;

use onnxquant_ir::Node;
use onnxquant_ir::onnx::{GraphProto, NodeProto};
use onnxquant_proto::all_nodes;

pub use layer::{Bias, Channels, Decoding, Layer, OnCodes};
pub use skip_reason::SkipReason;

use crate::runtime::nbits::MICROSOFT;

/// All of them.
const LAYERS: [&dyn Layer; 4] = [&gemm::Gemm, &matmul::MatMul, &conv::Conv, &conv_transpose::ConvTranspose];

/// The layer that a node is, if it is one.
pub(crate) fn layer(node: &Node) -> Option<&'static dyn Layer> {
    LAYERS.into_iter().find(|layer| node.is(layer.op_type()))
}

/// The layer that `node` computes on codes, making integers.
pub(crate) fn of_integer_op(node: &Node) -> Option<&'static dyn Layer> {
    LAYERS.into_iter().find(|layer| layer.integer_op_type().is_some_and(|op_type| node.is(op_type)))
}

/// Whether a node is a recurrent layer, whose weights are inputs 1 and 2 and whose bias is input 3.
pub(crate) fn is_recurrent(node: &Node) -> bool {
    ["LSTM", "GRU", "RNN"].iter().any(|op_type| node.is(op_type))
}

/// Whether a node is a mixture of experts, whose weights are inputs 2, 4 and 6.
pub(crate) fn is_mixture(node: &Node) -> bool {
    node.domain() == MICROSOFT && node.op_type() == "MoE"
}

/// Whether an operator needs all of a weight of so many axes at `slot`, which runtimes pack when they load the model, and is
/// no layer with this weight.
pub(crate) fn is_read_whole(node: &Node, slot: usize, axes: usize) -> bool {
    match slot {
        1 if axes == 2 && layer(node).is_some() => false,
        1 | 2 if is_recurrent(node) => true,
        1 if node.domain() == MICROSOFT && node.op_type() == "Attention" => true,
        2 | 4 | 6 if is_mixture(node) => true,
        0 | 1 => ["MatMul", "Einsum"].iter().any(|op_type| node.is(op_type)) || slot == 0 && node.is("Gemm"),
        _ => false,
    }
}

/// The layer of this name in the default domain.
pub(crate) fn named(op_type: &str) -> Option<&'static dyn Layer> {
    LAYERS.into_iter().find(|layer| layer.op_type() == op_type)
}

/// Whether a body holds weights that could be codes, or are.
pub fn holds_weights(body: &GraphProto) -> bool {
    let reads_table = |node: &NodeProto| matches!(node.op_type(), "Gather" | "DequantizeLinear" | "MatMulNBits");
    all_nodes(&body.node).into_iter().any(|node| could_be_layer(node) || reads_table(node))
}

/// Whether the weights of a node could be codes, or those of what passes make of it.
pub fn could_be_layer(node: &NodeProto) -> bool {
    const OTHERS: [&str; 4] = ["LSTM", "GRU", "RNN", "Einsum"];
    match node.domain() {
        "" | "ai.onnx" => named(node.op_type()).is_some() || OTHERS.contains(&node.op_type()),
        MICROSOFT => ["FusedMatMul", "FusedGemm", "FusedConv", "MoE"].contains(&node.op_type()),
        _ => false,
    }
}
