//! What settings choose from.

use onnxquant_quant::Method;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

/// How layers are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodChoice {
    /// Several methods a layer; the one with the least error on validation samples is kept.
    Auto,
    /// One method for all.
    Fixed(Method),
}

impl Serialize for MethodChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(method) => method.serialize(serializer),
        }
    }
}

/// What becomes of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activations {
    /// They stay floats: only weights are quantized.
    #[default]
    Float,
    /// Codes on fixed scales, found by calibration.
    Static,
    /// Codes on scales that are made at run time.
    Dynamic,
    /// Static behind convolutions, dynamic elsewhere.
    Auto,
}

/// In which form weights of MatMul and Gemm are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The one that is fast in the oldest version of the runtime that is asked for.
    #[default]
    Auto,
    /// `DequantizeLinear`: standard ONNX.
    Dq,
    /// The runtime's own operator, `com.microsoft.MatMulNBits`.
    #[serde(rename = "matmulnbits")]
    MatMulNBits,
}

/// What runs the float model on samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EngineChoice {
    /// The embedded one; where it cannot run the model, or gives something else than ONNX Runtime, that.
    #[default]
    Auto,
    /// The embedded one, which is tract.
    Tract,
    /// ONNX Runtime.
    Ort,
}

impl EngineChoice {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// What a decoder keeps of the tokens behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KvCache {
    /// Keys and values as the model has them.
    #[default]
    Float,
    /// Codes of 8 bits, on a scale for each head and channel.
    Int8,
}

impl KvCache {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) fn is_float(&self) -> bool {
        *self == Self::Float
    }
}

/// Bits of an activation on a fixed scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub enum ActivationBits {
    /// 8 everywhere.
    #[default]
    #[serde(rename = "8")]
    Eight,
    /// 16 everywhere.
    #[serde(rename = "16")]
    Sixteen,
    /// 16 where 8 would miss the accuracy that is asked for.
    #[serde(rename = "mixed")]
    Mixed,
}

/// What the bits of every layer are chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Budget {
    /// At most so many bits a weight, on the average over the weights of the quantized layers.
    AverageBits(f64),
    /// At most so many bytes in the file.
    TargetBytes(u64),
    /// The smallest file whose held-out outputs reach this SQNR in dB.
    MinSqnrDb(f64),
}

impl Budget {
    /// The bits between which layers choose.
    pub(crate) const WIDTHS: [u32; 4] = [2, 3, 4, 8];
}
