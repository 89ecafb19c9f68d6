//! Normalizations together with the sum before them.

use onnxquant_proto::onnx::NodeProto;

use super::attention::positions;
use super::builder::{Builder, float, int};
use super::{has_input, has_output, input, number};

const EPSILON: f32 = 1e-12;

/// Means and deviations as outputs are for training.
pub(super) fn refused_skip(node: &NodeProto) -> Option<&'static str> {
    let has_inputs = (0..3).all(|place| has_input(node, place));
    (!has_inputs || has_output(node, 1) || has_output(node, 2)).then_some("it knows no such output of this operator")
}

/// `SkipLayerNormalization`: input, skip, gamma, beta, bias; the simplified one has no beta.
pub(super) fn write_skip(b: &mut Builder<'_>, node: &NodeProto) {
    let is_simplified = node.op_type() == "SkipSimplifiedLayerNormalization";
    let (beta, bias) = if is_simplified { (None, input(node, 3)) } else { (input(node, 3), input(node, 4)) };
    let mut sum = b.op("Add", &[&node.input[0], &node.input[1]]);
    if let Some(bias) = bias {
        sum = b.op("Add", &[&sum, bias]);
    }
    let kind = if is_simplified { "SimplifiedLayerNormalization" } else { "LayerNormalization" };
    let inputs: Vec<&str> = [sum.as_str(), &node.input[2]].into_iter().chain(beta).collect();
    let normalized = b.op_with(kind, &inputs, attributes(node));
    b.output(node, 0, &normalized);
    b.output(node, 3, &sum);
}

fn attributes(node: &NodeProto) -> Vec<onnxquant_proto::onnx::AttributeProto> {
    vec![int("axis", -1), float("epsilon", number(node, "epsilon").unwrap_or(EPSILON))]
}

pub(super) fn refused_embed(node: &NodeProto) -> Option<&'static str> {
    let has_inputs = [0, 2, 3, 5, 6].iter().all(|&place| has_input(node, place));
    (!has_inputs || has_output(node, 1)).then_some("it knows no lengths of a mask as an output of this operator")
}

/// `EmbedLayerNormalization`: ids, segments, tables of words, positions and segments, gamma, beta, mask, positions.
pub(super) fn write_embed(b: &mut Builder<'_>, node: &NodeProto) {
    let mut sum = b.rows(&node.input[2], &node.input[0]);
    let at = match input(node, 8) {
        Some(given) => given.to_owned(),
        None => positions(b, &node.input[0], 1, None),
    };
    let of_positions = b.rows(&node.input[3], &at);
    sum = b.op("Add", &[&sum, &of_positions]);
    if let (Some(segments), Some(table)) = (input(node, 1), input(node, 4)) {
        let of_segments = b.rows(table, segments);
        sum = b.op("Add", &[&sum, &of_segments]);
    }
    let normalized = b.op_with("LayerNormalization", &[&sum, &node.input[5], &node.input[6]], attributes(node));
    b.output(node, 0, &normalized);
    b.output(node, 2, &sum);
}
