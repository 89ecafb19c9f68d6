//! Words that flags take, and what they are in the library.

use clap::ValueEnum;
use onnxquant::quant::{Method, Saturation, ScaleRule};
use onnxquant::{ActivationBits, Activations, EngineChoice, Format, KvCache, MethodChoice, Target};

use crate::progress::LogForm;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum MethodName {
    Auto,
    Msq,
    MalySaab,
    CellWalk,
    Gpfq,
    Optq,
    Feedback,
    Saturate,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum SaturationName {
    Max,
    Min,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Scheme {
    /// Weights of 8 bits.
    W8,
    /// Weights of 4 bits.
    W4,
    /// Weights of 3 bits.
    W3,
    /// Weights of 2 bits.
    W2,
    /// Weights of 1 bit.
    W1,
    /// Weights of 8-bit floats (FP8 E4M3), which ONNX Runtime makes floats again when it loads the model.
    Fp8,
    /// Weights and activations of 8 bits, on fixed scales.
    W8a8,
    /// Weights of 4 bits and activations of 8, on fixed scales.
    W4a8,
    /// Weights and activations of 8 bits; the scales of activations are made at run time.
    W8a8Dynamic,
    /// Weights of 8 bits; activations of 8 bits on fixed scales behind convolutions, made at run time elsewhere, where that
    /// saves time. The outputs must keep 20 dB, or what --min-sqnr says.
    Auto,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FormatName {
    Auto,
    Dq,
    Matmulnbits,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogName {
    Plain,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum VerifyName {
    Ort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineName {
    Auto,
    Tract,
    Ort,
}

impl From<EngineName> for EngineChoice {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Auto => Self::Auto,
            EngineName::Tract => Self::Tract,
            EngineName::Ort => Self::Ort,
        }
    }
}

/// Engines that a process of its own tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tried {
    /// The embedded one, then ONNX Runtime.
    All,
    /// ONNX Runtime.
    Runtime,
}

impl LogName {
    /// As it is typed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Json => "json",
        }
    }
}

impl Tried {
    /// As it is typed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Runtime => "runtime",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum EmbeddingBits {
    #[value(name = "8")]
    Eight,
    #[value(name = "4")]
    Four,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum KvCacheName {
    Float,
    Int8,
}

impl From<KvCacheName> for KvCache {
    fn from(name: KvCacheName) -> Self {
        match name {
            KvCacheName::Float => Self::Float,
            KvCacheName::Int8 => Self::Int8,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TargetName {
    /// ONNX Runtime on a CPU.
    OrtCpu,
    /// Compilers for accelerators.
    QdqStrict,
    /// TensorRT: s8 without zero points, float biases.
    Tensorrt,
    /// OpenVINO: u8 or s8, float biases.
    Openvino,
    /// Qualcomm's AI Engine Direct on an HTP: u8 or u16, weights by channel in convolutions alone.
    Qnn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ActivationType {
    U8,
    S8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum BitsName {
    #[value(name = "8")]
    Eight,
    #[value(name = "16")]
    Sixteen,
    Mixed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ScaleName {
    Max,
    LeastSquares,
}

impl MethodName {
    /// The method, whose walk saturates at `saturation` where it does.
    pub(super) fn choice(self, saturation: SaturationName) -> MethodChoice {
        let saturation = match saturation {
            SaturationName::Max => Saturation::Max,
            SaturationName::Min => Saturation::Min,
        };
        MethodChoice::Fixed(match self {
            MethodName::Auto => return MethodChoice::Auto,
            MethodName::Msq => Method::Msq,
            MethodName::MalySaab => Method::MalySaab { saturation },
            MethodName::CellWalk => Method::CellWalk,
            MethodName::Gpfq => Method::Gpfq,
            MethodName::Optq => Method::Optq,
            MethodName::Feedback => Method::Feedback,
            MethodName::Saturate => Method::Saturate,
        })
    }
}

impl Scheme {
    /// Bits of a weight.
    pub(super) fn bits(self) -> u32 {
        match self {
            Scheme::W8 | Scheme::Fp8 | Scheme::W8a8 | Scheme::W8a8Dynamic | Scheme::Auto => 8,
            Scheme::W4 | Scheme::W4a8 => 4,
            Scheme::W3 => 3,
            Scheme::W2 => 2,
            Scheme::W1 => 1,
        }
    }

    /// What becomes of activations.
    pub(super) fn activations(self) -> Activations {
        match self {
            Scheme::W8a8 | Scheme::W4a8 => Activations::Static,
            Scheme::W8a8Dynamic => Activations::Dynamic,
            Scheme::Auto => Activations::Auto,
            Scheme::W8 | Scheme::W4 | Scheme::W3 | Scheme::W2 | Scheme::W1 | Scheme::Fp8 => Activations::Float,
        }
    }
}

impl EmbeddingBits {
    /// The number of bits; none for a table that stays in float.
    pub(super) fn number(self) -> Option<u32> {
        match self {
            EmbeddingBits::Eight => Some(8),
            EmbeddingBits::Four => Some(4),
            EmbeddingBits::Off => None,
        }
    }
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Auto => Format::Auto,
            FormatName::Dq => Format::Dq,
            FormatName::Matmulnbits => Format::MatMulNBits,
        }
    }
}

impl From<TargetName> for Target {
    fn from(name: TargetName) -> Self {
        match name {
            TargetName::OrtCpu => Target::OrtCpu,
            TargetName::QdqStrict => Target::QdqStrict,
            TargetName::Tensorrt => Target::Tensorrt,
            TargetName::Openvino => Target::Openvino,
            TargetName::Qnn => Target::Qnn,
        }
    }
}

impl From<BitsName> for ActivationBits {
    fn from(name: BitsName) -> Self {
        match name {
            BitsName::Eight => ActivationBits::Eight,
            BitsName::Sixteen => ActivationBits::Sixteen,
            BitsName::Mixed => ActivationBits::Mixed,
        }
    }
}

impl From<LogName> for LogForm {
    fn from(name: LogName) -> Self {
        match name {
            LogName::Plain => Self::Plain,
            LogName::Json => Self::Json,
        }
    }
}

impl From<ScaleName> for ScaleRule {
    fn from(name: ScaleName) -> Self {
        match name {
            ScaleName::Max => ScaleRule::Max,
            ScaleName::LeastSquares => ScaleRule::LeastSquares,
        }
    }
}

/// Units of sizes, by what they are in bytes.
const UNITS: [(&str, usize); 6] =
    [("kib", 1 << 10), ("mib", 1 << 20), ("gib", 1 << 30), ("kb", 1_000), ("mb", 1_000_000), ("gb", 1_000_000_000)];

/// A size such as `4GB` or `512MiB`, in bytes.
pub(super) fn parse_bytes(text: &str) -> Result<usize, String> {
    let lower = text.to_ascii_lowercase();
    let read = UNITS.iter().find_map(|(unit, bytes)| {
        let number: f64 = lower.strip_suffix(unit)?.trim().parse().ok()?;
        (number > 0.0 && number * *bytes as f64 <= usize::MAX as f64).then_some((number * *bytes as f64) as usize)
    });
    read.ok_or_else(|| "expected a number and a unit, for example 4GB or 512MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_number_and_a_unit() {
        let read = |text: &str| parse_bytes(text).ok();
        assert_eq!(read("4GB"), Some(4_000_000_000));
        assert_eq!((read("512MiB"), read("1.5 kb")), (Some(512 << 20), Some(1500)));
        for text in ["", "4", "GB", "-1GB", "0GB", "4 TB", "nanGB", "1e300GB", "4G"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
