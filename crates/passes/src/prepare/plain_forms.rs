//! Writes products with a constant matrix in the forms in which layers are found: `Gemm` without factors, `MatMul` with
//! the constant on the right, `Conv`.
//!
//! # Method
//!
//! | found | becomes |
//! |---|---|
//! | `Gemm` with `alpha`, `beta` or `transA` | a plain one: factors go into weight and bias, the input through a `Transpose` |
//! | `MatMul` with the constant on the left | `Transpose -> MatMul -> Transpose`, where the rank of the other side is known |
//! | `MatMul` with a constant of leading dimensions of 1 | one with a matrix, where the result has as many dimensions anyway |
//! | `Einsum` that is a product with a constant matrix | `MatMul`, between `Transpose` and `Reshape` where axes have to move |
//! | `FusedMatMul` of the runtime's domain | `MatMul` |
//! | `FusedGemm`, `FusedConv` of that domain | `Gemm` or `Conv` and the activation, which the runtime fuses again |
//!
//! # Guarantee
//!
//! Exact in real arithmetic; results change by rounding only, and only where a factor is not a power of 2.
//!
//! # Failure
//!
//! Left alone: products of two activations, factors of a weight that others read too, an Einsum with a label in both
//! operands and the result, sums over an axis of one operand, or repeated labels; values of which the rank is needed and
//! not known. Subgraphs are not entered.

mod einsum;
mod fused;
mod gemm;
mod matmul;
mod scaled;

use onnxquant_ir::Model;

/// Rewrites every such node of the main graph; returns how many.
pub fn write_plain_forms(model: &mut Model) -> usize {
    let opset = model.opset("").unwrap_or_default();
    let graph = model.graph_mut();
    let nodes = graph.order().to_vec();
    let mut rewritten = 0;
    for id in nodes {
        let was_fused = fused::unfuse(graph, id, opset);
        let is_plain =
            gemm::write_plain(graph, id) || matmul::write_plain(graph, id, opset) || einsum::write_plain(graph, id);
        rewritten += usize::from(was_fused || is_plain);
    }
    rewritten
}

#[cfg(test)]
#[path = "plain_forms_tests.rs"]
mod tests;
