//! A class of processors, and what its integer products do to codes.
//!
//! ONNX Runtime multiplies activations of 8 bits by weights of 8 bits in blocks of inputs. On x86 processors without
//! VNNI the instruction (`vpmaddubsw`) adds the products of two neighbours in 16 bits, saturating: unsigned activations
//! of up to 255 times codes of up to 127, twice, do not fit. Where codes keep the pair rule
//! ([`onnxquant_quant::PairRule`]) nothing saturates, whatever the activations are.
//!
//! Depthwise kernels (one channel in, one out, a group) widen codes before they multiply.
//!
//! VNNI (`vpdpbusd`) and the dot products of Arm add in 32 bits.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use onnxquant_quant::{MatrixView, PairRule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::convolution::aligned_channels;

/// Where a file is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cpu {
    /// Any of the others.
    #[default]
    Portable,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512, without VNNI.
    Avx512,
    /// x86-64 with VNNI, of AVX or AVX-512.
    Vnni,
    /// 64-bit Arm.
    Arm64,
}

impl Cpu {
    /// All classes.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Vnni, Self::Arm64];

    /// The class of the processor on which this runs; `Portable` for one of another kind.
    pub fn native() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            match (has!("avx512vnni") || has!("avxvnni"), has!("avx512bw"), has!("avx2")) {
                (true, _, _) => Self::Vnni,
                (_, true, _) => Self::Avx512,
                (_, _, true) => Self::Avx2,
                _ => Self::Portable,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Portable }
    }

    /// Whether sums of two products are cut to 16 bits.
    pub fn saturates(self) -> bool {
        matches!(self, Self::Portable | Self::Avx2 | Self::Avx512)
    }

    /// Those on which integer layers are exact, where `saturating` says whether codes of a pair can saturate.
    pub fn exact_on(saturating: bool) -> Vec<Self> {
        Self::ALL.into_iter().filter(|cpu| !(saturating && cpu.saturates())).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Vnni => "vnni",
            Self::Arm64 => "arm64",
        }
    }
}

/// The rule that the codes of a layer must keep where products saturate; none where its kernel widens them first.
///
/// `aligned`: the layer is one that [`align_channels`](crate::align_channels) reaches.
pub fn pair_rule(view: &MatrixView, aligned: bool) -> Option<PairRule> {
    if view.is_dense() {
        return Some(PairRule::dense(view.inputs()));
    }
    // A transposed one has no integer kernel.
    let conv = view.plain_conv()?;
    let channels = conv.in_channels / conv.groups.max(1);
    let widened = channels == 1 && conv.out_channels == conv.groups;
    let written = if aligned { aligned_channels(conv) } else { channels };
    (!widened).then(|| PairRule::convolution(channels, view.positions(), written))
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl JsonSchema for Cpu {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Cpu".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Cpu::ALL.map(Cpu::name) })
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `native` is the class of this processor.
impl FromStr for Cpu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|cpu| cpu.name() == text);
        named
            .or_else(|| (text == "native").then(Self::native))
            .ok_or_else(|| "expected `portable`, `avx2`, `avx512`, `vnni`, `arm64` or `native`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_to_their_class() {
        for cpu in Cpu::ALL {
            assert_eq!(cpu.to_string().parse(), Ok(cpu));
        }
        assert_eq!("native".parse(), Ok(Cpu::native()));
        assert!("sse".parse::<Cpu>().is_err_and(|message| message.contains("portable")));
        assert!(Cpu::default().saturates() && !Cpu::Vnni.saturates() && !Cpu::Arm64.saturates());
    }
}
