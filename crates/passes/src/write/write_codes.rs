//! Replaces a layer's float weight by codes, scales and the nodes that decode them.
//!
//! A [`PackedWeight`] is what the file holds of a layer. [`write_codes`] writes it in its native form:
//!
//! | layer | form | what the runtime makes of it |
//! |---|---|---|
//! | MatMul, Gemm | `DequantizeLinear` per tensor, channel or block, weight `[K, M]` (`transB = 0`) | `MatMulNBits` |
//! | Conv | `Cast -> [Sub ->] Mul`, scale `[M, 1, ...]` | folded when the model loads: a float Conv |
//! | ConvTranspose | the same, scale `[1, M, 1, ...]`, in groups `[C, M/groups, 1, ...]` | folded likewise |
//!
//! A `DequantizeLinear` before a convolution would be computed at every run instead. Both forms mean
//! `real = scale * (code - zero_point)`, and both give the same f32 numbers, as do the other forms
//! ([`crate::weight_form`]).
//!
//! A correction of the layer's mean output goes into its bias (see [`crate::add_to_bias`]).
//!
//! What comes after a MatMul or Gemm is changed where it would keep the runtime from fusing (see
//! [`crate::keep_fusible`]).
//!
//! Every layer gets its own initializers and its own decoding nodes, also where layers shared a weight; see
//! [`crate::share_constants`]. The float weight goes when nothing reads it any more.

use onnxquant_ir::{Graph, TensorError, tensor};

pub use super::packed_weight::{PackedWeight, without_mirrored_grids};
use super::weight_form::{Codes, WeightForm, write_weight};
use crate::find::sites::Site;
use crate::layers::Decoding;

/// Writes the codes of `site` into the graph in place of its float weight, in the type that holds them.
pub fn write_codes(graph: &mut Graph, site: &Site, weight: &PackedWeight) -> Result<(), TensorError> {
    let storage = tensor::data_type(&weight.codes)?;
    let form = match site.layer.decoding() {
        Decoding::Fused => WeightForm::Dequantize(storage),
        Decoding::Folded => WeightForm::Folded(Codes::Native(storage)),
    };
    write_weight(graph, site, weight, form).map(drop)
}

#[cfg(test)]
#[path = "write_codes_tests.rs"]
mod tests;
