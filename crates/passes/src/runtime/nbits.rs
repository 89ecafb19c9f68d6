//! The runtime's own operator for weights in blocks.

use onnxquant_ir::Node;

/// Domain of the operator.
pub const MICROSOFT: &str = "com.microsoft";

/// Whether `node` is a `MatMulNBits`.
pub(crate) fn is_nbits(node: &Node) -> bool {
    node.domain() == MICROSOFT && node.op_type() == "MatMulNBits"
}
