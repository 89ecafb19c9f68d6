//! Decodes a weight by operators that ONNX Runtime computes once, when it loads the model.
//!
//! ```text
//! Cast(codes) -> [Sub(zero points) ->] Mul(scales)
//! ```
//!
//! What runs is the float layer, at its speed; the file holds the codes. A `DequantizeLinear` before a convolution would be
//! computed at every run instead, and so would one before a MatMul in versions that do not fuse it. Codes below 8 bits
//! are put together from planes (see [`crate::byte_planes`]): casts of 4-bit types exist from version 1.23 on only.
//!
//! FP8 codes are decoded in f32 in models of every float type, and the product is rounded to that type:
//!
//! ```text
//! Cast(codes) -> Mul(scales) [-> Cast]
//! ```
//!
//! The runtime has kernels for a Mul of f16 on no CPU, and folds none.
//!
//! Scales of a Conv have the shape `[M, 1, ...]`, of a ConvTranspose that of [`crate::layers`], those of a MatMul or Gemm `[M]`, weight `[K, M]` (`transB = 0`).
//! Scales in blocks along K are not written in this form.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, TensorError, ValueId, int_attribute, tensor};

use super::codes::Codes;
use super::packed_weight::PackedWeight;
use crate::find::sites::Site;
use crate::graph::insert::insert;
use crate::write::byte_planes::write_planes;

/// Writes `weight` before the layer; returns the initializers that hold it.
pub(crate) fn write_folded(
    graph: &mut Graph,
    site: &Site,
    name: &str,
    weight: &PackedWeight,
    stored: Codes,
) -> Result<Vec<ValueId>, TensorError> {
    let (codes, mut held, base) = match stored {
        Codes::Native(_) => {
            let codes = graph.add_constant(&format!("{name}_quantized"), weight.codes.clone());
            (codes, vec![codes], 0)
        }
        Codes::Planes { bits } => {
            let codes = tensor::to_codes(&weight.codes)?;
            let (fields, base) = weight.fields(&codes, bits, 8);
            let codes = codes.into_iter().map(|code| (code + base) as u8);
            let dims = tensor::shape(&weight.codes)?;
            let (value, planes) = write_planes(graph, site.node, name, &codes.collect::<Vec<u8>>(), &dims, fields);
            (value, planes, base)
        }
    };
    let dtype = match stored {
        Codes::Native(DataType::Float8e4m3fn) => DataType::Float,
        _ => site.dtype,
    };
    let to = |dtype: DataType| vec![int_attribute("to", i64::from(dtype as i32))];
    let mut steps = insert(graph, site.node, "Cast", &[codes], format!("{name}_codes"), to(dtype));
    let zero_points = weight.real_zero_points(dtype, base)?;
    if let Some(zero_points) = zero_points {
        let zero_points = graph.add_constant(&format!("{name}_zero_point"), zero_points);
        held.push(zero_points);
        steps = insert(graph, site.node, "Sub", &[steps, zero_points], format!("{name}_steps"), vec![]);
    }
    let scale = graph.add_constant(&format!("{name}_scale"), weight.scale_as(dtype)?);
    held.push(scale);
    let mut decoded = insert(graph, site.node, "Mul", &[steps, scale], format!("{name}_dequantized"), vec![]);
    if dtype != site.dtype {
        decoded = insert(graph, site.node, "Cast", &[decoded], format!("{name}_rounded"), to(site.dtype));
    }
    graph.set_input(site.node, 1, Some(decoded));
    graph.remove_attribute(site.node, "transB");
    graph.remove_if_unused(site.weight);
    Ok(held)
}
