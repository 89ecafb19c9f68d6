//! Tensors of calibration data: the element types ONNX graph inputs use.

use std::borrow::Cow;
use std::fmt;

use half::f16;
use ndarray::{ArrayD, IxDyn};

/// The element type of a [`Tensor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-bit float (IEEE half).
    F16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 8-bit signed integer.
    I8,
    /// 64-bit unsigned integer.
    U64,
    /// 32-bit unsigned integer.
    U32,
    /// 16-bit unsigned integer.
    U16,
    /// 8-bit unsigned integer.
    U8,
    /// Boolean, one byte an element.
    Bool,
}

impl ElementType {
    /// The type for a code of ONNX's `TensorProto.DataType`, if data can be fed as that type.
    pub fn from_onnx(code: i32) -> Option<Self> {
        Some(match code {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            12 => Self::U32,
            13 => Self::U64,
            _ => return None,
        })
    }

    /// The code of ONNX's `TensorProto.DataType`.
    pub(crate) fn to_onnx(self) -> i32 {
        match self {
            Self::F32 => 1,
            Self::U8 => 2,
            Self::I8 => 3,
            Self::U16 => 4,
            Self::I16 => 5,
            Self::I32 => 6,
            Self::I64 => 7,
            Self::Bool => 9,
            Self::F16 => 10,
            Self::F64 => 11,
            Self::U32 => 12,
            Self::U64 => 13,
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether the type is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16)
    }

    /// Whether the type is an integer type (booleans are not).
    pub fn is_integer(self) -> bool {
        !self.is_float() && self != Self::Bool
    }

    /// The name numpy gives the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::F16 => "float16",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I16 => "int16",
            Self::I8 => "int8",
            Self::U64 => "uint64",
            Self::U32 => "uint32",
            Self::U16 => "uint16",
            Self::U8 => "uint8",
            Self::Bool => "bool",
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A dense tensor in C order.
#[derive(Debug, Clone, PartialEq)]
pub enum Tensor {
    /// 32-bit floats.
    F32(ArrayD<f32>),
    /// 64-bit floats.
    F64(ArrayD<f64>),
    /// 16-bit floats.
    F16(ArrayD<f16>),
    /// 64-bit signed integers.
    I64(ArrayD<i64>),
    /// 32-bit signed integers.
    I32(ArrayD<i32>),
    /// 16-bit signed integers.
    I16(ArrayD<i16>),
    /// 8-bit signed integers.
    I8(ArrayD<i8>),
    /// 64-bit unsigned integers.
    U64(ArrayD<u64>),
    /// 32-bit unsigned integers.
    U32(ArrayD<u32>),
    /// 16-bit unsigned integers.
    U16(ArrayD<u16>),
    /// 8-bit unsigned integers.
    U8(ArrayD<u8>),
    /// Booleans.
    Bool(ArrayD<bool>),
}

/// Evaluates `$body` with `$a` bound to the array inside a [`Tensor`].
macro_rules! with_array {
    ($tensor:expr, $a:ident => $body:expr) => {
        match $tensor {
            $crate::Tensor::F32($a) => $body,
            $crate::Tensor::F64($a) => $body,
            $crate::Tensor::F16($a) => $body,
            $crate::Tensor::I64($a) => $body,
            $crate::Tensor::I32($a) => $body,
            $crate::Tensor::I16($a) => $body,
            $crate::Tensor::I8($a) => $body,
            $crate::Tensor::U64($a) => $body,
            $crate::Tensor::U32($a) => $body,
            $crate::Tensor::U16($a) => $body,
            $crate::Tensor::U8($a) => $body,
            $crate::Tensor::Bool($a) => $body,
        }
    };
}
pub(crate) use with_array;

impl Tensor {
    /// Zeros.
    pub(crate) fn zeros(element_type: ElementType, shape: &[usize]) -> Self {
        match element_type {
            ElementType::F32 => Self::F32(ArrayD::zeros(shape)),
            ElementType::F64 => Self::F64(ArrayD::zeros(shape)),
            ElementType::F16 => Self::F16(ArrayD::from_elem(shape, f16::ZERO)),
            ElementType::I64 => Self::I64(ArrayD::zeros(shape)),
            ElementType::I32 => Self::I32(ArrayD::zeros(shape)),
            ElementType::I16 => Self::I16(ArrayD::zeros(shape)),
            ElementType::I8 => Self::I8(ArrayD::zeros(shape)),
            ElementType::U64 => Self::U64(ArrayD::zeros(shape)),
            ElementType::U32 => Self::U32(ArrayD::zeros(shape)),
            ElementType::U16 => Self::U16(ArrayD::zeros(shape)),
            ElementType::U8 => Self::U8(ArrayD::zeros(shape)),
            ElementType::Bool => Self::Bool(ArrayD::from_elem(shape, false)),
        }
    }

    /// Floats that `next` gives, in C order; integers of 1 and true.
    pub fn filled(element_type: ElementType, shape: &[usize], mut next: impl FnMut() -> f32) -> Self {
        match element_type {
            ElementType::F32 => Self::F32(ArrayD::from_shape_simple_fn(shape, next)),
            ElementType::F64 => Self::F64(ArrayD::from_shape_simple_fn(shape, || f64::from(next()))),
            ElementType::F16 => Self::F16(ArrayD::from_shape_simple_fn(shape, || f16::from_f32(next()))),
            ElementType::I64 => Self::I64(ArrayD::ones(shape)),
            ElementType::I32 => Self::I32(ArrayD::ones(shape)),
            ElementType::I16 => Self::I16(ArrayD::ones(shape)),
            ElementType::I8 => Self::I8(ArrayD::ones(shape)),
            ElementType::U64 => Self::U64(ArrayD::ones(shape)),
            ElementType::U32 => Self::U32(ArrayD::ones(shape)),
            ElementType::U16 => Self::U16(ArrayD::ones(shape)),
            ElementType::U8 => Self::U8(ArrayD::ones(shape)),
            ElementType::Bool => Self::Bool(ArrayD::from_elem(shape, true)),
        }
    }

    /// The element type.
    pub fn element_type(&self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::F32,
            Self::F64(_) => ElementType::F64,
            Self::F16(_) => ElementType::F16,
            Self::I64(_) => ElementType::I64,
            Self::I32(_) => ElementType::I32,
            Self::I16(_) => ElementType::I16,
            Self::I8(_) => ElementType::I8,
            Self::U64(_) => ElementType::U64,
            Self::U32(_) => ElementType::U32,
            Self::U16(_) => ElementType::U16,
            Self::U8(_) => ElementType::U8,
            Self::Bool(_) => ElementType::Bool,
        }
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        with_array!(self, a => a.shape())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        with_array!(self, a => a.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same, with its elements one after the other in memory.
    pub(crate) fn in_c_order(&self) -> Cow<'_, Self> {
        if with_array!(self, a => a.is_standard_layout()) {
            return Cow::Borrowed(self);
        }
        self.clone().into_shape(self.shape()).map_or(Cow::Borrowed(self), Cow::Owned)
    }

    /// The elements as 32-bit floats, if the tensor is of a floating-point type
    /// (64-bit floats are rounded).
    pub fn to_f32(&self) -> Option<ArrayD<f32>> {
        match self {
            Self::F32(a) => Some(a.clone()),
            Self::F64(a) => Some(a.mapv(narrow)),
            Self::F16(a) => Some(a.mapv(f16::to_f32)),
            _ => None,
        }
    }

    /// The same elements under another shape; `None` if the counts differ.
    pub(crate) fn into_shape(self, shape: &[usize]) -> Option<Self> {
        fn reshape<T: Clone>(a: ArrayD<T>, shape: &[usize]) -> Option<ArrayD<T>> {
            a.as_standard_layout().into_owned().into_shape_with_order(IxDyn(shape)).ok()
        }
        Some(match self {
            Self::F32(a) => Self::F32(reshape(a, shape)?),
            Self::F64(a) => Self::F64(reshape(a, shape)?),
            Self::F16(a) => Self::F16(reshape(a, shape)?),
            Self::I64(a) => Self::I64(reshape(a, shape)?),
            Self::I32(a) => Self::I32(reshape(a, shape)?),
            Self::I16(a) => Self::I16(reshape(a, shape)?),
            Self::I8(a) => Self::I8(reshape(a, shape)?),
            Self::U64(a) => Self::U64(reshape(a, shape)?),
            Self::U32(a) => Self::U32(reshape(a, shape)?),
            Self::U16(a) => Self::U16(reshape(a, shape)?),
            Self::U8(a) => Self::U8(reshape(a, shape)?),
            Self::Bool(a) => Self::Bool(reshape(a, shape)?),
        })
    }

    /// Index of the first NaN in C order, if the tensor is of a floating-point type and has one.
    pub fn first_nan(&self) -> Option<Vec<usize>> {
        match self {
            Self::F32(a) => find(a, |x| x.is_nan()),
            Self::F64(a) => find(a, |x| x.is_nan()),
            Self::F16(a) => find(a, |x| x.is_nan()),
            _ => None,
        }
    }
}

/// Index of the first element for which `test` holds, in C order.
pub(crate) fn find<T>(array: &ArrayD<T>, test: impl Fn(&T) -> bool) -> Option<Vec<usize>> {
    if !array.iter().any(&test) {
        return None;
    }
    array.indexed_iter().find(|(_, x)| test(x)).map(|(i, _)| ndarray::Dimension::slice(&i).to_vec())
}

/// The nearest 32-bit float.
#[expect(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
pub(crate) fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_element_types_are_inverse_to_each_other() {
        for element_type in (0..32).filter_map(ElementType::from_onnx) {
            assert_eq!(ElementType::from_onnx(element_type.to_onnx()), Some(element_type));
            let zeros = Tensor::zeros(element_type, &[2, 3]);
            assert_eq!((zeros.element_type(), zeros.shape()), (element_type, &[2, 3][..]));
        }
    }
}
