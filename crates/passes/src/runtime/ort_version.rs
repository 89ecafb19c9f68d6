//! A version of ONNX Runtime, and from which on it does what.
//!
//! All of it was tried: small files of each form were loaded and run in the versions from 1.19 to 1.32.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// A version of ONNX Runtime, from 1.19 on; patch releases are not told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrtVersion {
    minor: u32,
}

/// The oldest version that files are written for.
const OLDEST_MINOR: u32 = 19;

impl OrtVersion {
    /// `MatMulNBits` of f16, and integer MatMul kernels in files of opset 21.
    pub const HALF_NBITS: Self = Self { minor: 20 };
    /// `MatMulNBits` of 8 bits.
    pub const EIGHT_BIT_NBITS: Self = Self { minor: 22 };
    /// `QMoE` in blocks.
    pub const CODES_OF_EXPERTS: Self = Self { minor: 24 };
    /// `DequantizeLinear` of 2-bit types.
    pub const TWO_BIT_TYPES: Self = Self { minor: 24 };
    /// `DequantizeLinear` of 8 bits, per channel, or before a Gemm becomes `MatMulNBits`.
    pub const FUSES_ALL_DEQUANTIZE: Self = Self { minor: 26 };
    /// Caches of `GroupQueryAttention` as codes.
    pub const CACHES_AS_CODES: Self = Self { minor: 27 };
}

impl Default for OrtVersion {
    /// 1.22, of May 2025: the first that runs 8-bit weights on its fast kernels and leaves activations floats.
    fn default() -> Self {
        Self::EIGHT_BIT_NBITS
    }
}

impl fmt::Display for OrtVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

impl JsonSchema for OrtVersion {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OrtVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^1\.\d+$" })
    }
}

impl Serialize for OrtVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for OrtVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>();
        match numbers.as_deref() {
            Some(&[1, minor] | &[1, minor, _]) if minor >= OLDEST_MINOR => Ok(Self { minor }),
            _ => Err(format!("expected a version of ONNX Runtime from 1.{OLDEST_MINOR} on, for example 1.22")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_minor_number() {
        let parse = |text: &str| text.parse::<OrtVersion>();
        assert!(parse("1.19").unwrap() < parse("1.100.2").unwrap());
        assert_eq!(parse("1.22.1").unwrap(), OrtVersion::default());
        assert_eq!(OrtVersion::default().to_string(), "1.22");
        for bad in ["1.18", "1", "2.0", "1.22.1.0", "1.x", "", "v1.22", "1.-3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
