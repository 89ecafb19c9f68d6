//! What the written model is for, and what each of these compilers and runtimes takes.
//!
//! | target | activations | MatMul, Gemm weights | biases | tables |
//! |---|---|---|---|---|
//! | `ort-cpu` | u8, s8, or floats | what is fast there | int32 | decoded row by row |
//! | `qdq-strict` | u8, s8 with the zero point 0, 16 bits | one scale an output | int32 | one scale a row |
//! | `tensorrt` | s8 with the zero point 0 | one scale an output | floats | floats |
//! | `openvino` | u8, s8 with the zero point 0 | one scale an output | floats | one scale a row |
//! | `qnn` | u8, u16 | one scale | int32 | floats |
//!
//! All but the first are *strict*: activations on fixed scales, every operator that can be on codes is, operators of ONNX's
//! own domain alone, and every weight on codes is one int8 constant that a `DequantizeLinear` reads, also beside float
//! activations. Weights have no zero points; those of Conv have one scale an output channel, and a
//! ConvTranspose in groups, whose outputs have no axis of their own, stays in float.
//!
//! # References
//!
//! TensorRT: *Working with Quantized Types* and *Explicit Quantization* in NVIDIA's documentation (docs.nvidia.com/
//! deeplearning/tensorrt): signed codes, symmetric; weights may be constants of int8 behind a `DequantizeLinear`; biases are
//! no quantized input. OpenVINO: *Low Precision Transformations* (docs.openvino.ai): u8 or s8 with zero points, s8
//! weights; biases are added behind the dequantization. QNN: the QNN execution provider of ONNX Runtime
//! (onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider) and the operator definitions of the HTP backend
//! (docs.qualcomm.com): unsigned activations of 8 or 16 bits, s8 weights by channel in convolutions, int32 biases.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::{ActivationBits, Activations, Config, Format};
use crate::error::Error;

/// What the written model is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// ONNX Runtime on a CPU: operators run on codes where that takes less time.
    #[default]
    OrtCpu,
    /// Compilers for accelerators: every operator that can run on codes does, whatever it takes on a CPU.
    QdqStrict,
    /// TensorRT.
    Tensorrt,
    /// OpenVINO.
    Openvino,
    /// Qualcomm's AI Engine Direct, on an HTP.
    Qnn,
}

/// What a target takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takes {
    /// Operators of ONNX's own domain alone, on codes wherever that can be.
    pub(crate) is_strict: bool,
    /// Activations without a sign, with any zero point.
    pub(crate) unsigned: bool,
    /// Activations with a sign.
    pub(crate) signed: bool,
    /// Activations of 16 bits.
    pub(crate) sixteen_bits: bool,
    /// One scale an output for the weight of a MatMul or Gemm.
    pub(crate) dense_by_channel: bool,
    /// Biases on the scale of the products; else floats.
    pub(crate) int32_biases: bool,
    /// Tables of embeddings on codes.
    pub(crate) tables: bool,
    /// It may run on an x86 processor, whose sums of products can saturate.
    pub(crate) on_x86: bool,
}

impl Target {
    /// The table above.
    pub(crate) const fn takes(self) -> Takes {
        let strict = Takes {
            is_strict: true,
            unsigned: true,
            signed: true,
            sixteen_bits: true,
            dense_by_channel: true,
            int32_biases: true,
            tables: true,
            on_x86: true,
        };
        match self {
            Self::OrtCpu => Takes { is_strict: false, sixteen_bits: false, ..strict },
            Self::QdqStrict => strict,
            Self::Tensorrt => Takes {
                unsigned: false,
                sixteen_bits: false,
                int32_biases: false,
                tables: false,
                on_x86: false,
                ..strict
            },
            Self::Openvino => Takes { sixteen_bits: false, int32_biases: false, ..strict },
            Self::Qnn => Takes { signed: false, dense_by_channel: false, tables: false, on_x86: false, ..strict },
        }
    }
}

/// As it is typed.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OrtCpu => "ort-cpu",
            Self::QdqStrict => "qdq-strict",
            Self::Tensorrt => "tensorrt",
            Self::Openvino => "openvino",
            Self::Qnn => "qnn",
        })
    }
}

impl Config {
    /// Whether codes of activations have a sign.
    pub(crate) fn is_signed(&self) -> bool {
        self.signed_activations || !self.target.takes().unsigned
    }

    /// Whether codes of weights must keep the rule under which products cannot saturate.
    pub(crate) fn saturates(&self) -> bool {
        self.cpu.saturates() && self.target.takes().on_x86
    }

    /// What contradicts the target.
    pub(super) fn check_target(&self) -> Result<(), Error> {
        let (target, takes) = (self.target, self.target.takes());
        let is_wide = self.activation_bits != ActivationBits::Eight;
        let problems = [
            (
                self.target == Target::OrtCpu && is_wide,
                "has no kernels for activations of 16 bits: use `--target qdq-strict`",
            ),
            (
                self.target == Target::OrtCpu && self.power_of_two,
                "loses accuracy alone by scales that are powers of two: use `--target qdq-strict`",
            ),
            (
                takes.is_strict && self.activations == Activations::Dynamic,
                "takes activations on fixed scales: use `--scheme w8a8`, `w4a8` or `auto`",
            ),
            (takes.is_strict && self.activations != Activations::Static, "takes activations on fixed scales"),
            (
                takes.is_strict && self.format == Format::MatMulNBits,
                "takes standard operators alone: leave out --format",
            ),
            (takes.is_strict && self.embeddings == Some(4), "takes tables of 8 bits: use `--embeddings 8` or `off`"),
            (!takes.signed && self.signed_activations, "takes activations without a sign: leave out --activation-type"),
            (!takes.sixteen_bits && is_wide, "takes activations of 8 bits: leave out --activation-bits"),
        ];
        match problems.iter().find(|(is_one, _)| *is_one) {
            Some((_, problem)) => Err(Error::Usage(format!("`--target {target}` {problem}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_a_target_are_refused_with_its_name() {
        let fine = Config { activations: Activations::Static, ..Config::default() };
        for target in [Target::OrtCpu, Target::QdqStrict, Target::Tensorrt, Target::Openvino, Target::Qnn] {
            let config = Config { target, ..fine.clone() };
            assert!(config.check().is_ok(), "{target}");
            let strict = target != Target::OrtCpu;
            let table = [
                (Config { activations: Activations::Dynamic, ..config.clone() }, strict),
                (Config { activations: Activations::Float, ..config.clone() }, strict),
                (Config { format: Format::MatMulNBits, ..config.clone() }, strict),
                (Config { embeddings: Some(4), ..config.clone() }, strict),
                (Config { signed_activations: true, ..config.clone() }, target == Target::Qnn),
                (
                    Config { activation_bits: ActivationBits::Sixteen, ..config.clone() },
                    ![Target::QdqStrict, Target::Qnn].contains(&target),
                ),
                (Config { power_of_two: true, ..config }, target == Target::OrtCpu),
            ];
            for (at, (config, is_refused)) in table.iter().enumerate() {
                let found = config.check().err().map(|error| error.to_string());
                let is_named = found.as_ref().is_some_and(|text| text.contains(&format!("`--target {target}`")));
                assert_eq!(is_named, *is_refused, "{target}, setting {at}: {found:?}");
            }
        }
    }
}
