//! Checked reading and building of `TensorProto`.
//!
//! A tensor's numbers are held either in `raw_data` (little-endian, fixed width, sub-byte types packed low
//! bits first) or in a typed field, as the ONNX specification describes under *TensorProto*. Everything here
//! takes both forms, checks counts before it allocates, and never trusts a declared shape.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};
use onnxquant_proto::onnx::TensorProto;
use onnxquant_proto::onnx::tensor_proto::DataType;
use onnxquant_proto::{data_type_bits, give_back};

/// A tensor whose payload does not match its declaration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tensor `{tensor}`: {problem}")]
pub struct TensorError {
    /// Name of the tensor.
    pub tensor: String,
    /// What is wrong.
    pub problem: String,
}

impl TensorError {
    pub(crate) fn new(tensor: &str, problem: impl Into<String>) -> Self {
        Self { tensor: tensor.to_owned(), problem: problem.into() }
    }
}

/// The bit that says that a number of 8 bits is negative.
const FP8_SIGN: u8 = 0x80;

/// The data type, or an error for a number this build does not know.
pub fn data_type(tensor: &TensorProto) -> Result<DataType, TensorError> {
    DataType::try_from(tensor.data_type())
        .map_err(|_| TensorError::new(tensor.name(), format!("unknown data type {}", tensor.data_type())))
}

/// The shape, every dimension checked to be >= 0.
pub fn shape(tensor: &TensorProto) -> Result<Vec<usize>, TensorError> {
    let checked = |&dim: &i64| {
        usize::try_from(dim).map_err(|_| TensorError::new(tensor.name(), format!("negative dimension {dim}")))
    };
    tensor.dims.iter().map(checked).collect()
}

/// The number of elements, with overflow checked.
pub fn element_count(tensor: &TensorProto) -> Result<usize, TensorError> {
    let overflow = || TensorError::new(tensor.name(), format!("shape {:?} overflows", tensor.dims));
    shape(tensor)?.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim)).ok_or_else(overflow)
}

/// Bytes that `count` elements of `bits` bits take when packed, or `None` on overflow.
pub fn packed_len(count: usize, bits: u32) -> Option<usize> {
    Some(count.checked_mul(bits as usize)?.div_ceil(8))
}

/// Checks that the payload holds exactly the declared elements.
pub fn check_payload(tensor: &TensorProto) -> Result<(), TensorError> {
    let error = |problem: String| Err(TensorError::new(tensor.name(), problem));
    let count = element_count(tensor)?;
    let dtype = data_type(tensor)?;
    if dtype == DataType::Undefined {
        return error("data type is undefined".to_owned());
    }
    if tensor.raw_data.is_some() && typed_entries(tensor) > 0 {
        return error("holds its numbers twice, in raw_data and in a typed field".to_owned());
    }
    let (found, expected, unit) = match (&tensor.raw_data, data_type_bits(dtype)) {
        (Some(_), None) => return error("strings cannot be held in raw_data".to_owned()),
        (Some(raw), Some(bits)) => (raw.len(), packed_len(count, bits), "bytes of raw_data"),
        (None, bits) => (typed_len(tensor, dtype), typed_expected(count, dtype, bits), "typed entries"),
    };
    if Some(found) == expected {
        return Ok(());
    }
    let expected = expected.map_or("more than memory holds".to_owned(), |n| n.to_string());
    error(format!("shape {:?} of {} needs {expected} {unit}, found {found}", tensor.dims, dtype.as_str_name()))
}

/// Entries in all typed fields.
fn typed_entries(tensor: &TensorProto) -> usize {
    let integers = tensor.int32_data.len() + tensor.int64_data.len() + tensor.uint64_data.len();
    integers + tensor.float_data.len() + tensor.double_data.len() + tensor.string_data.len()
}

/// Entries in the typed field that `dtype` uses.
fn typed_len(tensor: &TensorProto, dtype: DataType) -> usize {
    match dtype {
        DataType::Float | DataType::Complex64 => tensor.float_data.len(),
        DataType::Double | DataType::Complex128 => tensor.double_data.len(),
        DataType::Int64 => tensor.int64_data.len(),
        DataType::Uint32 | DataType::Uint64 => tensor.uint64_data.len(),
        DataType::String => tensor.string_data.len(),
        _ => tensor.int32_data.len(),
    }
}

/// Entries the typed field must have: complex numbers take two, sub-byte types share one.
fn typed_expected(count: usize, dtype: DataType, bits: Option<u32>) -> Option<usize> {
    match (dtype, bits) {
        (DataType::Complex64 | DataType::Complex128, _) => count.checked_mul(2),
        (_, Some(bits)) if bits < 8 => packed_len(count, bits),
        _ => Some(count),
    }
}

/// Whether the tensor holds real numbers that can be weights: f32, f16, bf16 or f64.
pub fn is_float(tensor: &TensorProto) -> bool {
    matches!(data_type(tensor), Ok(DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double))
}

/// The numbers of a float tensor as f32 (f64 is rounded).
pub fn to_f32(tensor: &TensorProto) -> Result<Cow<'_, [f32]>, TensorError> {
    check_payload(tensor)?;
    let raw = tensor.raw_data.as_deref();
    let halves = |bits: fn(u16) -> f32| match raw {
        Some(raw) => words(raw).map(|word: [u8; 2]| bits(u16::from_le_bytes(word))).collect(),
        None => tensor.int32_data.iter().map(|&word| bits(word as u16)).collect::<Vec<f32>>(),
    };
    let numbers = match (data_type(tensor)?, raw) {
        (DataType::Float, None) => Cow::Borrowed(tensor.float_data.as_slice()),
        (DataType::Float, Some(raw)) => Cow::Owned(words(raw).map(f32::from_le_bytes).collect()),
        (DataType::Double, None) => Cow::Owned(tensor.double_data.iter().map(|&x| x as f32).collect()),
        (DataType::Double, Some(raw)) => Cow::Owned(words(raw).map(|word| f64::from_le_bytes(word) as f32).collect()),
        (DataType::Float16, _) => Cow::Owned(halves(|word| f16::from_bits(word).to_f32())),
        (DataType::Bfloat16, _) => Cow::Owned(halves(|word| bf16::from_bits(word).to_f32())),
        (other, _) => return Err(TensorError::new(tensor.name(), format!("{} is no float type", other.as_str_name()))),
    };
    // They are a copy now.
    raw.into_iter().for_each(give_back);
    Ok(numbers)
}

/// The numbers of an int64 or int32 tensor.
pub fn to_i64(tensor: &TensorProto) -> Result<Vec<i64>, TensorError> {
    check_payload(tensor)?;
    Ok(match (data_type(tensor)?, tensor.raw_data.as_deref()) {
        (DataType::Int64, None) => tensor.int64_data.clone(),
        (DataType::Int64, Some(raw)) => words(raw).map(i64::from_le_bytes).collect(),
        (DataType::Int32, None) => tensor.int32_data.iter().map(|&x| i64::from(x)).collect(),
        (DataType::Int32, Some(raw)) => words(raw).map(|word| i64::from(i32::from_le_bytes(word))).collect(),
        (other, _) => return Err(TensorError::new(tensor.name(), format!("{} is not int64", other.as_str_name()))),
    })
}

/// The packed little-endian bytes of any fixed-width tensor.
pub fn to_raw(tensor: &TensorProto) -> Result<Bytes, TensorError> {
    check_payload(tensor)?;
    if let Some(raw) = &tensor.raw_data {
        return Ok(raw.clone());
    }
    let dtype = data_type(tensor)?;
    let wide =
        |bits: u32| tensor.int32_data.iter().flat_map(move |x| x.to_le_bytes().into_iter().take(bits as usize / 8));
    Ok(match (dtype, data_type_bits(dtype)) {
        (_, None) => return Err(TensorError::new(tensor.name(), "strings have no fixed width")),
        (DataType::Float | DataType::Complex64, _) => tensor.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        (DataType::Double | DataType::Complex128, _) => {
            tensor.double_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        (DataType::Int64, _) => tensor.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        (DataType::Uint64, _) => tensor.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        (DataType::Uint32, _) => tensor.uint64_data.iter().flat_map(|x| (*x as u32).to_le_bytes()).collect(),
        (_, Some(bits)) => wide(bits.max(8)).collect(),
    })
}

/// Splits raw bytes into fixed-width words; a short rest, which `check_payload` excludes, is dropped.
fn words<const N: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; N]> {
    raw.as_chunks::<N>().0.iter().copied()
}

/// A tensor of `dims` with packed little-endian bytes; the caller vouches for their number.
pub fn from_raw(dtype: DataType, dims: &[usize], raw: impl Into<Bytes>) -> TensorProto {
    TensorProto {
        dims: dims.iter().map(|&dim| i64::try_from(dim).expect("a dimension of data in memory fits 63 bits")).collect(),
        data_type: Some(dtype as i32),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

/// An f32 tensor.
pub fn from_f32(dims: &[usize], numbers: &[f32]) -> TensorProto {
    from_raw(DataType::Float, dims, numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

/// A tensor of real numbers stored as `dtype`, one of f32, f16, bf16, f64.
pub fn from_f32_as(dtype: DataType, dims: &[usize], numbers: &[f32]) -> TensorProto {
    let raw: Vec<u8> = match dtype {
        DataType::Float16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        DataType::Bfloat16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        DataType::Double => numbers.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        _ => return from_f32(dims, numbers),
    };
    from_raw(dtype, dims, raw)
}

/// An int32 tensor.
pub fn from_i32(dims: &[usize], numbers: &[i32]) -> TensorProto {
    from_raw(DataType::Int32, dims, numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

/// An int64 tensor.
pub fn from_i64(dims: &[usize], numbers: &[i64]) -> TensorProto {
    from_raw(DataType::Int64, dims, numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

/// A tensor of codes packed as `dtype`: integers (8, 4 or 2 bits, signed or unsigned; low bits first) or FP8 E4M3, of
/// which a code is the bit pattern of the magnitude, below 0 where the number is.
///
/// Each code must lie in the range of the type; its low bits are stored.
pub fn from_codes(dtype: DataType, dims: &[usize], codes: impl IntoIterator<Item = i16>) -> TensorProto {
    if dtype == DataType::Float8e4m3fn {
        let pattern = |code: i16| (code.unsigned_abs() as u8 & !FP8_SIGN) | if code < 0 { FP8_SIGN } else { 0 };
        return from_raw(dtype, dims, codes.into_iter().map(pattern).collect::<Vec<u8>>());
    }
    let bits = data_type_bits(dtype).filter(|bits| *bits <= 8).expect("codes are stored in types of at most 8 bits");
    let (per_byte, mask) = (8 / bits, ((1u16 << bits) - 1) as i16);
    let (mut raw, mut byte, mut filled) = (Vec::new(), 0u8, 0);
    for code in codes {
        byte |= ((code & mask) as u8) << (filled * bits);
        filled += 1;
        if filled == per_byte {
            raw.push(byte);
            (byte, filled) = (0, 0);
        }
    }
    if filled > 0 {
        raw.push(byte);
    }
    from_raw(dtype, dims, raw)
}

/// Whether the tensor is of a type that stores codes: integers of 8, 4 or 2 bits, signed or unsigned, or FP8 E4M3.
pub fn holds_codes(tensor: &TensorProto) -> bool {
    data_type(tensor).is_ok_and(|dtype| is_signed(dtype) || is_unsigned(dtype) || dtype == DataType::Float8e4m3fn)
}

fn is_signed(dtype: DataType) -> bool {
    matches!(dtype, DataType::Int8 | DataType::Int4 | DataType::Int2)
}

fn is_unsigned(dtype: DataType) -> bool {
    matches!(dtype, DataType::Uint8 | DataType::Uint4 | DataType::Uint2)
}

/// The codes of a tensor that [`from_codes`] can make.
pub fn to_codes(tensor: &TensorProto) -> Result<Vec<i16>, TensorError> {
    let dtype = data_type(tensor)?;
    let signed = is_signed(dtype);
    let Some(bits) = data_type_bits(dtype).filter(|_| holds_codes(tensor)) else {
        return Err(TensorError::new(tensor.name(), format!("{} holds no quantized codes", dtype.as_str_name())));
    };
    let (raw, count) = (to_raw(tensor)?, element_count(tensor)?);
    if dtype == DataType::Float8e4m3fn {
        let code = |&byte: &u8| i16::from(byte & !FP8_SIGN) * if byte & FP8_SIGN == 0 { 1 } else { -1 };
        return Ok(raw.iter().map(code).collect());
    }
    let (per_byte, mask) = (8 / bits, ((1u16 << bits) - 1) as u8);
    let extend = |code: u8| match signed {
        true => i16::from((code << (8 - bits)) as i8 >> (8 - bits)),
        false => i16::from(code),
    };
    let codes = raw.iter().flat_map(|&byte| (0..per_byte).map(move |slot| (byte >> (slot * bits)) & mask));
    Ok(codes.take(count).map(extend).collect())
}

#[cfg(test)]
#[path = "tensor_tests.rs"]
mod tests;
