//! Decodes a weight by a `DequantizeLinear`, which ONNX Runtime fuses with the MatMul or Gemm behind it. Compilers for
//! accelerators want it before convolutions too.
//!
//! Weights so large that sums inside the fused operator would overflow are kept from it by a `Max` with the least finite
//! number, which changes none of them: `DequantizeLinear -> Max -> MatMul`.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, TensorProto};
use onnxquant_ir::{Graph, TensorError, ValueId, int_attribute, tensor};
use onnxquant_quant::Granularity;

use super::codes::Codes;
use super::keep_fusible::keep_fusible;
use super::packed_weight::PackedWeight;
use crate::find::sites::Site;
use crate::graph::insert::insert;
use crate::layers::Decoding;

fn attributes(graph: &Graph, site: &Site, granularity: Granularity) -> Result<Vec<AttributeProto>, TensorError> {
    Ok(match granularity {
        Granularity::Tensor => vec![],
        Granularity::Channel => vec![int_attribute("axis", output_axis(graph, site)?)],
        Granularity::Block(size) => {
            let size = i64::try_from(size).expect("a block of weights in memory fits 63 bits");
            vec![int_attribute("axis", 0), int_attribute("block_size", size)]
        }
    })
}

/// The axis of the codes that counts the outputs.
pub(crate) fn output_axis(graph: &Graph, site: &Site) -> Result<i64, TensorError> {
    let axis = match site.layer.decoding() {
        // `[K, M]`
        Decoding::Fused => Some(1),
        Decoding::Folded => site.layer.output_axis(graph.node(site.node), site.view.weight_shape().len()),
    };
    axis.and_then(|axis| i64::try_from(axis).ok()).ok_or_else(|| TensorError {
        tensor: graph.value(site.weight).name().to_owned(),
        problem: "has no axis of outputs, along which a DequantizeLinear takes scales".to_owned(),
    })
}

/// Scales or zero points as a `DequantizeLinear` takes them: of a convolution they have the rank of its weight elsewhere.
fn along_axis(site: &Site, tensor: TensorProto) -> TensorProto {
    match (site.layer.decoding(), tensor.dims.len()) {
        (Decoding::Fused, _) | (_, 0) => tensor,
        _ => TensorProto { dims: vec![tensor.dims.iter().product()], ..tensor },
    }
}

/// What the codes of a layer need of the default opset.
pub(crate) fn needed_opset(site: &Site, storage: DataType, granularity: Granularity) -> i64 {
    let of_type = Codes::Native(storage).needed_opset();
    let of_form = match granularity {
        Granularity::Tensor => 10,
        Granularity::Channel => 13,
        Granularity::Block(_) => 21,
    };
    // Below 19 the scales of DequantizeLinear are f32.
    let of_scale = if site.dtype == DataType::Float { 7 } else { 19 };
    of_type.max(of_form).max(of_scale)
}

/// Writes a `DequantizeLinear` before a layer; returns the initializers of the weight.
pub(crate) fn write_dequantize(
    graph: &mut Graph,
    site: &Site,
    name: &str,
    weight: &PackedWeight,
) -> Result<Vec<ValueId>, TensorError> {
    let tensors = [
        ("quantized", Some(weight.codes.clone())),
        ("scale", Some(along_axis(site, weight.scale.clone()))),
        ("zero_point", weight.coded_zero_points()?.map(|tensor| along_axis(site, tensor))),
    ];
    let tensors = tensors.into_iter().filter_map(|(what, tensor)| Some((what, tensor?)));
    let inputs: Vec<ValueId> =
        tensors.map(|(what, tensor)| graph.add_constant(&format!("{name}_{what}"), tensor)).collect();
    let attributes = attributes(graph, site, weight.granularity)?;
    let decoded = insert(graph, site.node, "DequantizeLinear", &inputs, format!("{name}_dequantized"), attributes);
    let is_fusible = site.layer.decoding() == Decoding::Fused;
    let read = if is_fusible && !weight.may_round_inputs() { unfused(graph, site, name, decoded) } else { decoded };
    graph.set_input(site.node, 1, Some(read));
    graph.remove_attribute(site.node, "transB");
    graph.remove_if_unused(site.weight);
    if is_fusible && read == decoded {
        keep_fusible(graph, site);
    }
    Ok(inputs)
}

/// The same finite numbers as `decoded` behind an operator with which the runtime fuses nothing.
fn unfused(graph: &mut Graph, site: &Site, name: &str, decoded: ValueId) -> ValueId {
    let least = graph.add_constant(&format!("{name}_least"), tensor::from_f32_as(site.dtype, &[], &[f32::MIN]));
    insert(graph, site.node, "Max", &[decoded, least], format!("{name}_finite"), vec![])
}
