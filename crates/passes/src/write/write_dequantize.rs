//! Decodes a weight by a `DequantizeLinear`, which ONNX Runtime fuses with the MatMul or Gemm behind it.

use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, TensorError, ValueId, int_attribute};
use onnxquant_quant::Granularity;

use super::codes::Codes;
use super::keep_fusible::keep_fusible;
use super::packed_weight::PackedWeight;
use crate::find::sites::Site;
use crate::graph::insert::insert;
use crate::layers::Decoding;

fn attributes(granularity: Granularity) -> Vec<AttributeProto> {
    match granularity {
        Granularity::Tensor => vec![],
        Granularity::Channel => vec![int_attribute("axis", 1)],
        Granularity::Block(size) => {
            let size = i64::try_from(size).expect("a block of weights in memory fits 63 bits");
            vec![int_attribute("axis", 0), int_attribute("block_size", size)]
        }
    }
}

/// What the codes of a layer need of the default opset.
pub(crate) fn needed_opset(site: &Site, storage: DataType, granularity: Granularity) -> i64 {
    let of_type = Codes::Native(storage).needed_opset();
    let of_form = match (site.layer.decoding(), granularity) {
        (Decoding::Folded, _) => 7,
        (_, Granularity::Tensor) => 10,
        (_, Granularity::Channel) => 13,
        (_, Granularity::Block(_)) => 21,
    };
    // Below 19 the scales of DequantizeLinear are f32.
    let of_scale = match (site.layer.decoding(), site.dtype) {
        (Decoding::Folded, _) | (_, DataType::Float) => 7,
        _ => 19,
    };
    of_type.max(of_form).max(of_scale)
}

/// Writes a `DequantizeLinear` before a MatMul or Gemm; returns the initializers of the weight.
pub(crate) fn write_dequantize(
    graph: &mut Graph,
    site: &Site,
    name: &str,
    weight: &PackedWeight,
) -> Result<Vec<ValueId>, TensorError> {
    let tensors = [
        ("quantized", Some(weight.codes.clone())),
        ("scale", Some(weight.scale.clone())),
        ("zero_point", weight.coded_zero_points()?),
    ];
    let tensors = tensors.into_iter().filter_map(|(what, tensor)| Some((what, tensor?)));
    let inputs: Vec<ValueId> =
        tensors.map(|(what, tensor)| graph.add_constant(&format!("{name}_{what}"), tensor)).collect();
    let attributes = attributes(weight.granularity);
    let decoded = insert(graph, site.node, "DequantizeLinear", &inputs, format!("{name}_dequantized"), attributes);
    graph.set_input(site.node, 1, Some(decoded));
    graph.remove_attribute(site.node, "transB");
    graph.remove_if_unused(site.weight);
    keep_fusible(graph, site);
    Ok(inputs)
}
