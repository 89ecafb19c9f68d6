//! Operators of ONNX Runtime's own domain, written as standard ones.
//!
//! # Problem
//!
//! ONNX Runtime's optimizers and onnxruntime-genai's builder write networks of `com.microsoft` operators. The engine has
//! some of them, under certain conditions; others of the same name do something else.
//!
//! # Method
//!
//! Each becomes the standard operators that its definition names (ONNX Runtime, `docs/ContribOperators.md`). Lengths that
//! depend on the sample come from `Shape`, so that the engine finds them when it makes a plan.
//!
//! | operator | file |
//! |---|---|
//! | `GroupQueryAttention` | [`grouped`] |
//! | `MultiHeadAttention` | [`multi_head`] |
//! | `Attention` | [`packed`] |
//! | `RotaryEmbedding` | [`rotary`] |
//! | `SkipLayerNormalization`, `SkipSimplifiedLayerNormalization`, `EmbedLayerNormalization` | [`normalization`] |
//! | `FusedMatMul` of two activations | [`product`] |
//!
//! # Guarantee
//!
//! What ONNX Runtime computes, to 1e-4: the node tests hold each form against it.
//!
//! # Failure
//!
//! Forms that a lowering does not know are refused with a reason; nothing is computed otherwise.

mod attention;
mod builder;
mod grouped;
mod multi_head;
mod normalization;
mod packed;
mod product;
mod rotary;

use onnxquant_proto::onnx::{GraphProto, NodeProto};

use crate::engine::blocked::{BlockedNode, Fault};
use crate::error::CalibError;
use builder::Builder;

/// The domain of these operators.
const MICROSOFT: &str = "com.microsoft";
/// What the standard operators need: `GatherND` in batches.
const LEAST_OPSET: i64 = 12;

/// How an operator is written as others.
pub(super) struct Lowering {
    op_type: &'static str,
    /// Why a node cannot be written so, where it cannot.
    pub(super) refused: fn(&NodeProto) -> Option<&'static str>,
    write: fn(&mut Builder<'_>, &NodeProto),
}

const LOWERINGS: [Lowering; 8] = [
    Lowering { op_type: "GroupQueryAttention", refused: grouped::refused, write: grouped::write },
    Lowering { op_type: "MultiHeadAttention", refused: multi_head::refused, write: multi_head::write },
    Lowering { op_type: "Attention", refused: packed::refused, write: packed::write },
    Lowering { op_type: "RotaryEmbedding", refused: rotary::refused, write: rotary::write },
    Lowering {
        op_type: "SkipLayerNormalization",
        refused: normalization::refused_skip,
        write: normalization::write_skip,
    },
    Lowering {
        op_type: "SkipSimplifiedLayerNormalization",
        refused: normalization::refused_skip,
        write: normalization::write_skip,
    },
    Lowering {
        op_type: "EmbedLayerNormalization",
        refused: normalization::refused_embed,
        write: normalization::write_embed,
    },
    Lowering { op_type: "FusedMatMul", refused: product::refused, write: product::write },
];

/// The lowering of a node, where there is one for its operator.
pub(super) fn lowering(node: &NodeProto) -> Option<&'static Lowering> {
    let is_of = |lowering: &&Lowering| node.domain() == MICROSOFT && node.op_type() == lowering.op_type;
    LOWERINGS.iter().find(is_of)
}

/// Rewrites all such nodes of a graph, not those of graphs inside it.
pub(super) fn lower(graph: &mut GraphProto, opset: i64) -> Result<(), CalibError> {
    for node in std::mem::take(&mut graph.node) {
        let Some(Lowering { refused, write, .. }) = lowering(&node) else {
            graph.node.push(node);
            continue;
        };
        let too_old = (opset < LEAST_OPSET).then_some("it knows this operator from opset 12 on");
        if let Some(reason) = refused(&node).or(too_old) {
            return Err(CalibError::from(&BlockedNode::new(&node, reason, Fault::Unknown)));
        }
        write(&mut Builder::new(graph, &node, opset), &node);
    }
    Ok(())
}

/// Whether an optional input is there.
fn has_input(node: &NodeProto, place: usize) -> bool {
    input(node, place).is_some()
}

/// An optional input.
fn input(node: &NodeProto, place: usize) -> Option<&str> {
    node.input.get(place).map(String::as_str).filter(|name| !name.is_empty())
}

/// Whether an optional output is wanted.
fn has_output(node: &NodeProto, place: usize) -> bool {
    node.output.get(place).is_some_and(|name| !name.is_empty())
}

/// An integer attribute.
fn int(node: &NodeProto, name: &str) -> Option<i64> {
    Some(node.attribute.iter().find(|attribute| attribute.name() == name)?.i())
}

/// A number attribute.
fn number(node: &NodeProto, name: &str) -> Option<f32> {
    Some(node.attribute.iter().find(|attribute| attribute.name() == name)?.f())
}
