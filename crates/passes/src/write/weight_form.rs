//! How the weight of a layer lies in the file, and the one place that writes it.
//!
//! | form | layers | what ONNX Runtime makes of it |
//! |---|---|---|
//! | [`Dequantize`](WeightForm::Dequantize) | MatMul, Gemm | `MatMulNBits`, from 1.26 on; 4 bits in blocks before a MatMul in all versions |
//! | the same | Conv, ConvTranspose | a float layer, decoded at every run: for compilers that want it |
//! | [`NBits`](WeightForm::NBits) | MatMul, Gemm | the operator itself: `MatMulNBits` |
//! | [`Folded`](WeightForm::Folded) | all | a float layer, decoded when the model loads |
//!
//! All mean `real = scale * (code - zero_point)`; a code of FP8 is the number itself.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, TensorError, ValueId};
use onnxquant_quant::Granularity;

use super::add_to_bias::add_to_bias;
pub use super::codes::Codes;
use super::packed_weight::PackedWeight;
use super::write_dequantize::{needed_opset, write_dequantize};
use super::write_folded::write_folded;
use super::write_nbits::write_nbits;
use crate::find::sites::Site;
use crate::graph::constant_chain;

/// How the weight of a layer with float activations is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightForm {
    /// `DequantizeLinear` of codes of this type. Before a convolution ONNX Runtime computes it at every run.
    Dequantize(DataType),
    /// `com.microsoft.MatMulNBits`.
    NBits {
        /// Bits of a code that the kernel reads, 4 or 8.
        bits: u32,
        /// Inputs that share a scale.
        block: usize,
        /// How the codes are stored.
        codes: Codes,
    },
    /// `Cast -> [Sub ->] Mul`.
    Folded(Codes),
}

impl WeightForm {
    /// What the form needs of the default opset.
    pub fn needed_opset(self, site: &Site, granularity: Granularity) -> i64 {
        match self {
            Self::Dequantize(storage) => needed_opset(site, storage, granularity),
            Self::NBits { codes, .. } | Self::Folded(codes) => codes.needed_opset(),
        }
    }

    /// How the codes are stored, as a reader of the report knows it.
    pub fn storage(self) -> String {
        match self {
            // Two in a byte.
            Self::NBits { bits: 4, codes: Codes::Native(_), .. } => Codes::Native(DataType::Uint4).to_string(),
            Self::NBits { codes, .. } | Self::Folded(codes) => codes.to_string(),
            Self::Dequantize(storage) => Codes::Native(storage).to_string(),
        }
    }

    /// Bits that a code takes in the file.
    pub fn stored_bits(self) -> u32 {
        match self {
            Self::NBits { bits, codes: Codes::Native(_), .. } => bits,
            Self::NBits { codes, .. } | Self::Folded(codes) => codes.bits(),
            Self::Dequantize(storage) => Codes::Native(storage).bits(),
        }
    }

    /// The operators, as a reader of the report knows them.
    pub fn operators(self) -> &'static str {
        match self {
            Self::Dequantize(_) => "DequantizeLinear",
            Self::NBits { .. } => "MatMulNBits",
            Self::Folded(_) => "Cast, Mul",
        }
    }
}

/// Writes the codes of `site` into the graph in place of its float weight; returns the initializers of codes, scales and
/// zero points.
pub fn write_weight(
    graph: &mut Graph,
    site: &Site,
    weight: &PackedWeight,
    form: WeightForm,
) -> Result<Vec<ValueId>, TensorError> {
    if weight.correction.iter().any(|&c| c != 0.0) {
        add_to_bias(graph, site, &weight.correction);
    }
    let source = constant_chain::source(graph, site.weight).unwrap_or(site.weight);
    let name = graph.value(source).name().to_owned();
    match form {
        WeightForm::Dequantize(storage) => write_dequantize(graph, site, &name, &weight.stored_as(storage)?),
        WeightForm::NBits { bits, block, codes } => write_nbits(graph, site, &name, weight, (bits, block, codes)),
        WeightForm::Folded(Codes::Native(storage)) => {
            write_folded(graph, site, &name, &weight.stored_as(storage)?, Codes::Native(storage))
        }
        WeightForm::Folded(codes) => write_folded(graph, site, &name, weight, codes),
    }
}
