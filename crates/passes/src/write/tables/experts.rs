//! Weights of experts, as `QMoE` of ONNX Runtime takes them.
//!
//! # Shapes and units
//!
//! Experts `E` multiply with `[E, N, K]`, twice. Codes have 8 or 4 bits, with `2^(bits - 1)` for 0, and a scale for every 32 of
//! a row:
//!
//! | `MoE` | `QMoE` | holds | shape |
//! |---|---|---|---|
//! | 2, 4 | 2, 5 | codes, low nibble first | uint8 `[E, N, K * bits / 8]` |
//! | | 3, 6 | scales | `[E, N, K / 32]` |
//! | 3, 5 | 4, 7 | biases | `[E, N]` |
//!
//! # Method
//!
//! The scales of a weight wait behind the inputs of `MoE` until the other weight is codes too; then the node becomes `QMoE`.
//!
//! Not for operators whose routing weights are not normalized, which `QMoE` computes otherwise, that have a third weight or
//! rows that are no multiple of 32, or whose weights others read too: these are decoded as a whole when the model is loaded.
//!
//! # References
//!
//! `MoE` and `QMoE` in ONNX Runtime's ContribOperators.md; tried in the versions 1.24 to 1.32. The latter compute blocks of 8
//! bits with activations rounded to int8.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, NodeId, TensorError, Use, ValueId, int_attribute, tensor};

use super::MIN_ELEMENTS;
use super::table::{CodedTable, Table, TableKind};
use crate::layers::is_mixture;
use crate::runtime::nbits::MICROSOFT;
use crate::write::write_nbits::packed;

/// Columns that share a scale.
pub const EXPERT_BLOCK: usize = 32;
/// Where the operator reads its weights.
const WEIGHTS: [usize; 2] = [2, 4];
/// Where it reads a third one.
const GATES: usize = 6;
/// Where their scales wait.
const SCALES: [usize; 2] = [8, 9];
/// Where `QMoE` reads what `MoE` has: tokens, routing, weights, scales, biases.
const ORDER: [usize; 8] = [0, 1, 2, SCALES[0], 3, 4, SCALES[1], 5];

impl Table {
    /// The same as the weight of experts, where all of its operator's can be codes.
    pub fn of_experts(self, graph: &Graph) -> Option<Self> {
        let &[node] = &self.readers[..] else { return None };
        let reader = graph.node(node);
        let is_weight = |slot: usize| {
            let Some(value) = reader.input(slot) else { return false };
            let [Use::Input(..)] = graph.value(value).uses() else { return false };
            graph.value(value).constant().is_some_and(|weight| is_codable(weight) || is_codes(weight))
        };
        let fits = self.kind == TableKind::Whole && takes_codes(reader) && WEIGHTS.into_iter().all(is_weight);
        fits.then_some(Self { kind: TableKind::Experts, ..self })
    }
}

/// Whether `QMoE` computes what this node does.
fn takes_codes(node: &Node) -> bool {
    is_mixture(node)
        && node.input(GATES).is_none()
        && node.int("normalize_routing_weights", 0) == 1
        && node.int("use_sparse_mixer", 0) == 0
        && node.int("swiglu_fusion", 0) <= 1
}

fn is_codable(weight: &TensorProto) -> bool {
    let Ok(&[experts, rows, columns]) = tensor::shape(weight).as_deref() else { return false };
    let is_whole = columns.is_multiple_of(EXPERT_BLOCK) && experts * rows * columns >= MIN_ELEMENTS;
    is_whole && tensor::data_type(weight) == Ok(DataType::Float)
}

/// Whether it is written already.
fn is_codes(weight: &TensorProto) -> bool {
    tensor::data_type(weight) == Ok(DataType::Uint8)
}

/// Codes and scales as the operator has them.
pub(super) fn constants(graph: &Graph, table: &Table, coded: &CodedTable) -> Result<[TensorProto; 2], TensorError> {
    let shape = graph.value(table.value).constant().map_or(Ok(table.dims.to_vec()), tensor::shape)?;
    let outer = &shape[..shape.len().saturating_sub(1)];
    let zero = 1 << (coded.bits - 1);
    let codes = packed(coded.bits, coded.codes.iter().map(|&code| (zero + i16::from(code)) as u8));
    let row = |columns: usize| [outer, &[columns]].concat();
    let codes = tensor::from_raw(DataType::Uint8, &row(coded.columns * coded.bits as usize / 8), codes);
    Ok([codes, tensor::from_f32(&row(coded.columns / coded.block), &coded.scales)])
}

/// Lets the operator read codes, and makes it `QMoE` when both weights are.
pub(super) fn decode(graph: &mut Graph, table: &Table, bits: u32, [codes, scales]: [ValueId; 2]) {
    let Some(node) = table.reader() else { return };
    let Some(at) = WEIGHTS.into_iter().position(|slot| graph.node(node).input(slot) == Some(table.value)) else {
        return;
    };
    graph.set_input(node, WEIGHTS[at], Some(codes));
    graph.set_input(node, SCALES[at], Some(scales));
    if SCALES.into_iter().all(|slot| graph.node(node).input(slot).is_some()) {
        become_quantized(graph, node, bits);
    }
}

fn become_quantized(graph: &mut Graph, node: NodeId, bits: u32) {
    let inputs = ORDER.map(|slot| graph.node(node).input(slot));
    inputs.into_iter().enumerate().for_each(|(slot, value)| graph.set_input(node, slot, value));
    let given = inputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    graph.truncate_inputs(node, given);
    graph.set_operator(node, MICROSOFT, "QMoE");
    graph.set_attribute(node, int_attribute("expert_weight_bits", i64::from(bits)));
    graph.set_attribute(node, int_attribute("block_size", EXPERT_BLOCK as i64));
}

#[cfg(test)]
#[path = "experts_tests.rs"]
mod tests;
