//! Gives a layer inside a region the weight and bias that ONNX Runtime's integer kernels take.
//!
//! ```text
//! DequantizeLinear(w_quantized int8, w_scale [M], 0) -> Conv, Gemm or MatMul
//! DequantizeLinear(b_quantized int32, x_scale * w_scale [M]) -> bias of Conv or Gemm, or Add behind a MatMul
//! ```
//!
//! The bias is given as int32 codes on the scale of the products, the only form that all versions of the runtime fuse
//! to the right numbers. Where it would not fit 31 bits, the output's weight scale is raised until it does: its weights
//! are so small then that their codes hardly matter. For compilers that quantize biases themselves it stays floats.
//!
//! The runtime makes a Gemm of a MatMul and an Add of a constant row. An Add whose constant is stored as 8-bit codes,
//! or is no row, stays as it is.
//!
//! The weight of a Gemm or MatMul is stored `[K, M]` (`transB = 0`). A correction of the layer's mean output goes into
//! its bias (see [`crate::add_to_bias`]).
//!
//! Codes of few bits are stored in planes and become int8 when the model loads (`integer_codes`); the kernels are the
//! same.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId, TensorError, ValueId, int_attribute, tensor};

use crate::find::sites::Site;
use crate::graph::constant_chain;
use crate::graph::insert::insert;
use crate::write::add_to_bias::{Slot, add_to_bias, numbers, row_dims, slot};
use crate::write::byte_planes::write_planes;
use crate::write::codes::Codes;
use crate::write::packed_weight::PackedWeight;
use crate::write::write_dequantize::output_axis;

/// What per-channel codes and int32 biases need of the default opset.
pub const STATIC_OPSET: i64 = 13;

/// Biases stay below this many steps of the products.
const MOST_BIAS_STEPS: f64 = (1 << 30) as f64;

/// Writes the codes of `site` in place of its float weight and bias; its input has codes on `input_scale`; where
/// that is not given the bias stays floats. Returns the
/// initializers that hold the weight.
///
/// # Panics
/// When the weight is not symmetric, per tensor or per channel ([`PackedWeight::is_plain`]).
pub fn write_static(
    graph: &mut Graph,
    site: &Site,
    weight: &PackedWeight,
    stored: Codes,
    input_scale: impl Into<Option<f32>>,
) -> Result<Vec<ValueId>, TensorError> {
    assert!(weight.is_plain(), "integer kernels take symmetric weights");
    if weight.correction.iter().any(|&c| c != 0.0) {
        add_to_bias(graph, site, &weight.correction);
    }
    let mut scales = tensor::to_f32(&weight.scale)?.into_owned();
    let mut codes = weight.codes.clone();
    if let Some(input_scale) = input_scale.into()
        && let Some(slot) = slot(graph, site).filter(|slot| slot.old.is_some())
        && let Some(bias) = numbers(graph, site, &slot)
    {
        codes = make_room(site, weight, &mut scales, &bias, input_scale)?;
        write_bias(graph, &slot, &bias, &scales, input_scale);
    }
    let source = constant_chain::source(graph, site.weight).unwrap_or(site.weight);
    let name = graph.value(source).name().to_owned();
    let dims: &[usize] = if scales.len() == 1 && weight.scale.dims.is_empty() { &[] } else { &[scales.len()] };
    let (codes, mut held) = integer_codes(graph, site.node, &name, weight, codes, stored)?;
    let scale = graph.add_constant(&format!("{name}_scale"), tensor::from_f32(dims, &scales));
    // Gemm is fused with an explicit zero point only.
    let zeros = tensor::from_codes(DataType::Int8, dims, std::iter::repeat_n(0, scales.len()));
    let zero_point = graph.add_constant(&format!("{name}_zero_point"), zeros);
    held.extend([scale, zero_point]);
    let attributes = if dims.is_empty() { vec![] } else { vec![int_attribute("axis", output_axis(graph, site)?)] };
    let output = format!("{name}_dequantized");
    let decoded = insert(graph, site.node, "DequantizeLinear", &[codes, scale, zero_point], output, attributes);
    graph.set_input(site.node, 1, Some(decoded));
    graph.remove_attribute(site.node, "transB");
    graph.remove_if_unused(site.weight);
    Ok(held)
}

/// The codes of `weight`, or `codes` in their place, as int8 before the node `before`; and the initializers that
/// hold them.
pub(crate) fn integer_codes(
    graph: &mut Graph,
    before: NodeId,
    name: &str,
    weight: &PackedWeight,
    codes: TensorProto,
    stored: Codes,
) -> Result<(ValueId, Vec<ValueId>), TensorError> {
    let (dims, numbers) = (tensor::shape(&codes)?, tensor::to_codes(&codes)?);
    let Codes::Planes { bits } = stored else {
        let codes = tensor::from_codes(DataType::Int8, &dims, numbers);
        let codes = graph.add_constant(&format!("{name}_quantized"), codes);
        return Ok((codes, vec![codes]));
    };
    let (fields, base) = weight.fields(&numbers, bits, 8);
    let numbers: Vec<u8> = numbers.into_iter().map(|code| (code + base) as u8).collect();
    let (codes, planes) = write_planes(graph, before, name, &numbers, &dims, fields);
    let cast = |graph: &mut Graph, value: ValueId, to: DataType, what: &str| {
        let to = int_attribute("to", i64::from(to as i32));
        insert(graph, before, "Cast", &[value], format!("{name}_{what}"), vec![to])
    };
    let wide = cast(graph, codes, DataType::Int32, "wide");
    let base = graph.add_constant(&format!("{name}_base"), tensor::from_i32(&[], &[i32::from(base)]));
    let steps = insert(graph, before, "Sub", &[wide, base], format!("{name}_steps"), vec![]);
    Ok((cast(graph, steps, DataType::Int8, "quantized"), planes))
}

/// Raises scales whose bias would not fit, and rounds the codes on them anew.
fn make_room(
    site: &Site,
    weight: &PackedWeight,
    scales: &mut [f32],
    bias: &[f32],
    input_scale: f32,
) -> Result<TensorProto, TensorError> {
    let needed = |b: &f32| (f64::from(b.abs()) / (f64::from(input_scale) * MOST_BIAS_STEPS)) as f32;
    let per_tensor = scales.len() == 1;
    let least: Vec<f32> = match per_tensor {
        true => vec![bias.iter().map(needed).fold(0.0, f32::max)],
        false => bias.iter().map(needed).collect(),
    };
    let ratios: Vec<f32> =
        scales.iter().zip(&least).map(|(scale, least)| (scale / least.max(*scale)).min(1.0)).collect();
    if ratios.iter().all(|&ratio| ratio == 1.0) {
        return Ok(weight.codes.clone());
    }
    scales.iter_mut().zip(&least).for_each(|(scale, least)| *scale = scale.max(*least));
    let shape = tensor::shape(&weight.codes)?;
    let old = tensor::to_codes(&weight.codes)?;
    let ratio = |index: usize| ratios[weight.scale_index(site, index)];
    let rounded = old.iter().enumerate().map(|(i, &code)| (f32::from(code) * ratio(i)).round_ties_even() as i16);
    Ok(tensor::from_codes(tensor::data_type(&weight.codes)?, &shape, rounded))
}

fn write_bias(graph: &mut Graph, slot: &Slot, bias: &[f32], weight_scales: &[f32], input_scale: f32) {
    let Some(old) = slot.old else { return };
    let scale = |m: usize| input_scale * weight_scales[if weight_scales.len() == 1 { 0 } else { m }];
    let code = |(m, &b): (usize, &f32)| (f64::from(b) / f64::from(scale(m))).round_ties_even();
    let limits = (f64::from(i32::MIN), f64::from(i32::MAX));
    let codes: Vec<i32> = bias.iter().enumerate().map(code).map(|code| code.clamp(limits.0, limits.1) as i32).collect();
    let scales: Vec<f32> = (0..weight_scales.len()).map(scale).collect();
    // The integer kernels take one dimension; the rank of an Add's result must stay.
    let shape = if graph.node(slot.node).is("Add") { row_dims(graph, slot, bias.len()) } else { vec![bias.len()] };
    let dims: &[usize] = if scales.len() == 1 && bias.len() != 1 { &[] } else { &[scales.len()] };
    let name = graph.value(old).name().to_owned();
    let codes = graph.add_constant(&format!("{name}_quantized"), tensor::from_i32(&shape, &codes));
    let scale = graph.add_constant(&format!("{name}_scale"), tensor::from_f32(dims, &scales));
    let last = i64::try_from(shape.len() - 1).expect("the rank of a tensor in memory fits 63 bits");
    let attributes = if dims.is_empty() { vec![] } else { vec![int_attribute("axis", last)] };
    let output = format!("{name}_dequantized");
    let decoded = insert(graph, slot.node, "DequantizeLinear", &[codes, scale], output, attributes);
    graph.set_input(slot.node, slot.input, Some(decoded));
    graph.remove_if_unused(old);
}

#[cfg(test)]
#[path = "write_static_tests.rs"]
mod tests;
