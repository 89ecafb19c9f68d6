//! How codes are stored.

use onnxquant_ir::onnx::tensor_proto::DataType;

use super::byte_planes::PLANES_OPSET;

/// How codes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// In a type of ONNX that holds them.
    Native(DataType),
    /// In planes of this many bits together.
    Planes {
        /// Bits a code.
        bits: u32,
    },
}

impl Codes {
    /// Bits that a code takes in the file.
    pub fn bits(self) -> u32 {
        match self {
            Self::Native(DataType::Int2 | DataType::Uint2) => 2,
            Self::Native(DataType::Int4 | DataType::Uint4) => 4,
            Self::Native(_) => 8,
            Self::Planes { bits } => bits,
        }
    }

    /// What their operators need of the default opset.
    pub fn needed_opset(self) -> i64 {
        match self {
            Self::Native(DataType::Int2 | DataType::Uint2) => 25,
            Self::Native(DataType::Int4 | DataType::Uint4) => 21,
            Self::Native(DataType::Float8e4m3fn) => 19,
            Self::Native(_) => 7,
            Self::Planes { .. } => PLANES_OPSET,
        }
    }
}

impl std::fmt::Display for Codes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Native(storage) => f.write_str(storage.as_str_name()),
            Self::Planes { bits: 1 } => f.write_str("a plane of 1 bit"),
            Self::Planes { bits } => write!(f, "planes of {bits} bits"),
        }
    }
}
