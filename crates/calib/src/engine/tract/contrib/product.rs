//! `FusedMatMul`: a product of two activations, one of which may be turned, times a factor.

use onnxquant_proto::onnx::NodeProto;

use super::builder::Builder;
use super::{int, number};

pub(super) fn refused(node: &NodeProto) -> Option<&'static str> {
    let is_set = |name: &str| int(node, name).is_some_and(|number| number != 0);
    (is_set("transBatchA") || is_set("transBatchB") || is_set("transA"))
        .then_some("it knows products only whose second factor is turned, in its last two axes")
}

pub(super) fn write(b: &mut Builder<'_>, node: &NodeProto) {
    let [Some(left), Some(right)] = [node.input.first(), node.input.get(1)] else { return };
    let mut product = match int(node, "transB").unwrap_or(0) {
        0 => b.op("MatMul", &[left, right]),
        _ => b.op_with("Einsum", &[left, right], vec![super::builder::text("equation", "...ij,...kj->...ik")]),
    };
    if let Some(factor) = number(node, "alpha").filter(|&factor| factor != 1.0) {
        let factor = b.number(factor);
        product = b.op("Mul", &[&product, &factor]);
    }
    b.output(node, 0, &product);
}
