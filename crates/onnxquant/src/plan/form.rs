//! Chooses the form in which a layer's weight is written.
//!
//! | layer | bits | form |
//! |---|---|---|
//! | MatMul, Gemm | 8 to 5 | `MatMulNBits` of 8 bits where `--ort-min` has it (1.22), else folded when the model loads; so is what `MatMulNBits` would make slower than floats |
//! | | 4 | `MatMulNBits` of 4 bits |
//! | | 3 to 1 | the same, stored in planes of so many bits |
//! | Conv, ConvTranspose | 8 to 5 | int8, folded when the model loads |
//! | | 4 to 1 | planes, folded when the model loads |
//! | all | FP8 | folded when the model loads |
//!
//! What the operator cannot have (blocks without a power of two from 16 on in them, bf16) is a `DequantizeLinear`, and
//! so is every MatMul and Gemm under `--format dq`.
//!
//! Planes need opset 18. Where `--opset-max` is below, and in layers so small that the operators would take more bytes
//! than they save, codes are stored in 4 or 8 bits.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_passes::byte_planes::PLANES_OPSET;
use onnxquant_passes::ort_version::OrtVersion;
use onnxquant_passes::sites::Site;
use onnxquant_passes::weight_form::{Codes, WeightForm};
use onnxquant_passes::write_nbits::block_of;
use onnxquant_quant::{Alphabet, Granularity, Symmetry};

use crate::config::{Config, Format};
use crate::error::Error;

/// Bytes that the operators which join planes take in the file, about.
const JOINING_BYTES: usize = 1500;

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) config: &'a Config,
    /// Bits a weight of the layer.
    pub(crate) bits: u32,
    pub(crate) granularity: Granularity,
    /// `MatMulNBits` of 8 bits would be slower than floats.
    pub(crate) is_slow: bool,
}

impl Wanted<'_> {
    /// The form for a layer with float activations.
    pub(crate) fn form(&self, label: &str, site: &Site) -> Result<WeightForm, Error> {
        if let Some(floats) = self.float_type() {
            return Ok(WeightForm::Folded(Codes::Native(floats)));
        }
        if !site.view.is_dense() {
            return Ok(WeightForm::Folded(self.byte_codes(site)));
        }
        let (inputs, outputs) = (site.view.inputs(), site.view.outputs());
        let nbits = self.nbits(site, inputs);
        match (self.config.format, nbits) {
            (Format::Dq, _) => Ok(WeightForm::Dequantize(self.dequantize_type(outputs))),
            (Format::Auto, Some(form)) if self.is_slow && self.folds(site, form) => {
                Ok(WeightForm::Folded(self.byte_codes(site)))
            }
            (_, Some(form)) => Ok(form),
            (Format::MatMulNBits, None) => Err(self.refused(label, site)),
            (Format::Auto, None) => Ok(match self.granularity {
                Granularity::Block(_) => WeightForm::Dequantize(self.dequantize_type(outputs)),
                _ => WeightForm::Folded(self.byte_codes(site)),
            }),
        }
    }

    /// How the codes of a layer with integer activations are stored.
    pub(crate) fn byte_codes(&self, site: &Site) -> Codes {
        match self.bits {
            bits @ 0..=4 if self.planes_pay(site, 8) => Codes::Planes { bits },
            _ => Codes::Native(self.pick(DataType::Int8, DataType::Uint8)),
        }
    }

    /// Whether planes make the file smaller than codes of `native` bits.
    fn planes_pay(&self, site: &Site, native: u32) -> bool {
        let saved_bits = site.parameters().saturating_mul((native - self.bits) as usize);
        self.config.opset_max >= PLANES_OPSET && saved_bits / 8 > JOINING_BYTES
    }

    /// The type of codes that stand for floats.
    fn float_type(&self) -> Option<DataType> {
        match self.config.alphabet {
            Alphabet::Integers => None,
            Alphabet::E4m3 => Some(DataType::Float8e4m3fn),
        }
    }

    /// The smallest type that holds the codes in memory.
    pub(crate) fn packed_type(&self) -> DataType {
        match self.bits {
            _ if self.float_type().is_some() => self.float_type().unwrap_or_default(),
            0..=2 => self.pick(DataType::Int2, DataType::Uint2),
            3..=4 => self.pick(DataType::Int4, DataType::Uint4),
            _ => self.pick(DataType::Int8, DataType::Uint8),
        }
    }

    fn nbits(&self, site: &Site, inputs: usize) -> Option<WeightForm> {
        let oldest = self.config.ort_min;
        let block = block_of(self.granularity, inputs, self.bits)?;
        let known_type = match site.dtype {
            DataType::Float => true,
            DataType::Float16 => oldest >= OrtVersion::HALF_NBITS,
            _ => false,
        };
        let native = Codes::Native(DataType::Uint8);
        let (bits, codes) = match self.bits {
            0..=3 if self.planes_pay(site, 4) => (4, Codes::Planes { bits: self.bits }),
            0..=4 => (4, native),
            _ => (8, native),
        };
        let has_kernel = known_type && (bits == 4 || oldest >= OrtVersion::EIGHT_BIT_NBITS);
        has_kernel.then_some(WeightForm::NBits { bits, block, codes })
    }

    /// Whether the codes can as well become floats when the model loads, at float speed. Of f16 they cannot: the runtime
    /// folds no product of them.
    fn folds(&self, site: &Site, form: WeightForm) -> bool {
        let of_bytes = matches!(form, WeightForm::NBits { bits: 8, .. });
        of_bytes && site.dtype == DataType::Float && !matches!(self.granularity, Granularity::Block(_))
    }

    fn refused(&self, label: &str, site: &Site) -> Error {
        let why = match block_of(self.granularity, 1, self.bits) {
            None => "its blocks have to hold a power of two from 16 on".to_owned(),
            Some(_) if site.dtype == DataType::Bfloat16 => "it has no kernel for bf16".to_owned(),
            Some(_) => {
                format!("8 bits need --ort-min {}, f16 {}", OrtVersion::EIGHT_BIT_NBITS, OrtVersion::HALF_NBITS)
            }
        };
        Error::Usage(format!("`{label}` cannot be written as MatMulNBits: {why}"))
    }

    /// The smallest type for `DequantizeLinear` that opset and runtime have.
    ///
    /// The fused 2-bit kernel of ONNX Runtime 1.32 is right for multiples of 4 outputs only: other layers take the next
    /// wider type.
    fn dequantize_type(&self, outputs: usize) -> DataType {
        const OUTPUTS_OF_TWO_BIT_KERNEL: usize = 4;
        let opset = self.config.opset_max;
        let two_bits = opset >= 25
            && self.config.ort_min >= OrtVersion::TWO_BIT_TYPES
            && outputs.is_multiple_of(OUTPUTS_OF_TWO_BIT_KERNEL);
        match self.bits {
            0..=2 if two_bits => self.pick(DataType::Int2, DataType::Uint2),
            0..=4 if opset >= 21 => self.pick(DataType::Int4, DataType::Uint4),
            _ => self.pick(DataType::Int8, DataType::Uint8),
        }
    }

    fn pick(&self, signed: DataType, unsigned: DataType) -> DataType {
        match self.config.symmetry {
            Symmetry::Symmetric => signed,
            Symmetry::Asymmetric => unsigned,
        }
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
