//! One element of a tensor as a number.

use half::{bf16, f16};
use onnxquant_ir::onnx::tensor_proto::DataType;

/// A number of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar {
    /// Of int32, int64 or bool.
    Integer(i64),
    /// Of a float type.
    Real(f64),
}

impl Scalar {
    /// What the bits of an element mean; `None` for types that hold no numbers to compute with.
    pub(super) fn read(dtype: DataType, bits: u64) -> Option<Self> {
        Some(match dtype {
            DataType::Float => Self::Real(f64::from(f32::from_bits(bits as u32))),
            DataType::Double => Self::Real(f64::from_bits(bits)),
            DataType::Float16 => Self::Real(f16::from_bits(bits as u16).to_f64()),
            DataType::Bfloat16 => Self::Real(bf16::from_bits(bits as u16).to_f64()),
            DataType::Int64 => Self::Integer(bits as i64),
            DataType::Int32 => Self::Integer(i64::from(bits as u32 as i32)),
            DataType::Bool => Self::Integer(i64::from(bits != 0)),
            _ => return None,
        })
    }

    /// The bits of this number as `dtype`, to which a float is rounded; `None` where it is of the other kind or an
    /// integer out of range.
    ///
    /// A short float is rounded by way of f32, as the runtime does.
    pub(super) fn write(self, dtype: DataType) -> Option<u64> {
        Some(match (self, dtype) {
            (Self::Real(x), DataType::Float) => u64::from((x as f32).to_bits()),
            (Self::Real(x), DataType::Double) => x.to_bits(),
            (Self::Real(x), DataType::Float16) => u64::from(f16::from_f32(x as f32).to_bits()),
            (Self::Real(x), DataType::Bfloat16) => u64::from(bf16::from_f32(x as f32).to_bits()),
            (Self::Integer(x), DataType::Int64) => x as u64,
            (Self::Integer(x), DataType::Int32) => u64::from(i32::try_from(x).ok()? as u32),
            (Self::Integer(x @ (0 | 1)), DataType::Bool) => x as u64,
            _ => return None,
        })
    }

    /// The number as `dtype` has it: floats lose their fraction where it is an integer type.
    pub(super) fn cast(self, dtype: DataType) -> Option<Self> {
        Some(match (self, dtype) {
            (Self::Integer(x), DataType::Bool) => Self::Integer(i64::from(x != 0)),
            (Self::Real(x), DataType::Bool) => Self::Integer(i64::from(x != 0.0)),
            (Self::Real(x), DataType::Int32 | DataType::Int64) => Self::Integer(truncated(x)?),
            (Self::Integer(x), DataType::Double) => Self::Real(x as f64),
            (Self::Integer(x), DataType::Float | DataType::Float16 | DataType::Bfloat16) => {
                Self::Real(f64::from(x as f32))
            }
            _ => self,
        })
    }

    pub(super) fn real(self) -> Option<f64> {
        match self {
            Self::Real(x) => Some(x),
            Self::Integer(_) => None,
        }
    }
}

/// The integer part of a number that int64 holds.
fn truncated(x: f64) -> Option<i64> {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    (x.abs() < BOUND).then_some(x as i64)
}
