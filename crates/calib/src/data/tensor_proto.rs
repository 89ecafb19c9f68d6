//! Reads `TensorProto` messages: the inputs of ONNX's own test data sets.

use onnxquant_proto::onnx::TensorProto;
use prost::Message;

use super::npy::decode;
use crate::error::FormatError;
use crate::tensor::{ElementType, Tensor};

/// Name and value of an encoded `TensorProto`.
pub(crate) fn read_tensor_proto(bytes: &[u8], limit: u64) -> Result<(String, Tensor), FormatError> {
    if bytes.len() as u64 > limit {
        return Err(FormatError::TooLarge { needed: bytes.len() as u64, limit });
    }
    let proto = TensorProto::decode(bytes).map_err(|e| FormatError::TensorProto(e.to_string()))?;
    Ok((proto.name.clone().unwrap_or_default(), to_tensor(&proto)?))
}

/// The value of a tensor.
pub(crate) fn to_tensor(proto: &TensorProto) -> Result<Tensor, FormatError> {
    let fail = |what: String| FormatError::TensorProto(what);
    if !proto.external_data.is_empty() {
        return Err(fail("its data are in another file".into()));
    }
    let code = proto.data_type.unwrap_or_default();
    let element =
        ElementType::from_onnx(code).ok_or_else(|| FormatError::ElementType(format!("TensorProto.DataType {code}")))?;
    let shape: Vec<usize> = proto
        .dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| fail(format!("it has the negative dimension {d}"))))
        .collect::<Result<_, _>>()?;
    let raw = match &proto.raw_data {
        Some(raw) => raw.to_vec(),
        None => typed_fields(proto, element).ok_or_else(|| fail(format!("a {element} value is out of range")))?,
    };
    let count = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    if count.and_then(|n| n.checked_mul(element.bytes())) != Some(raw.len()) {
        return Err(fail(format!("shape {shape:?} of {element} does not match {} bytes of data", raw.len())));
    }
    decode(&raw, element, &shape, false, false).ok_or_else(|| fail(format!("shape {shape:?} cannot be used")))
}

/// The values of the typed fields as little-endian bytes.
fn typed_fields(proto: &TensorProto, element: ElementType) -> Option<Vec<u8>> {
    fn narrow<T, const N: usize>(values: &[i32], bytes: impl Fn(T) -> [u8; N]) -> Option<Vec<u8>>
    where
        T: TryFrom<i32>,
    {
        let arrays = values.iter().map(|&v| T::try_from(v).ok().map(&bytes)).collect::<Option<Vec<_>>>()?;
        Some(arrays.concat())
    }
    Some(match element {
        ElementType::F32 => proto.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ElementType::F64 => proto.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ElementType::I64 => proto.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ElementType::U64 => proto.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ElementType::U32 => {
            let values = proto.uint64_data.iter().map(|&v| u32::try_from(v).ok());
            values.collect::<Option<Vec<_>>>()?.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        ElementType::I32 => proto.int32_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ElementType::I16 => narrow(&proto.int32_data, i16::to_le_bytes)?,
        ElementType::I8 => narrow(&proto.int32_data, i8::to_le_bytes)?,
        ElementType::U16 | ElementType::F16 => narrow(&proto.int32_data, u16::to_le_bytes)?,
        ElementType::U8 | ElementType::Bool => narrow(&proto.int32_data, u8::to_le_bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn raw_and_typed_data_read_alike() {
        let typed = TensorProto {
            name: Some("x".into()),
            dims: vec![2],
            data_type: Some(3),
            int32_data: vec![-1, 2],
            ..TensorProto::default()
        };
        let raw = TensorProto { int32_data: vec![], raw_data: Some(vec![0xff, 2].into()), ..typed.clone() };
        for proto in [typed, raw] {
            let (name, tensor) = read_tensor_proto(&proto.encode_to_vec(), 100).unwrap();
            assert_eq!((name.as_str(), tensor), ("x", Tensor::I8(array![-1_i8, 2].into_dyn())));
        }
    }

    #[test]
    fn shapes_that_do_not_match_are_errors() {
        for dims in [vec![3], vec![-1], vec![i64::MAX, i64::MAX], vec![]] {
            let proto = TensorProto {
                dims: dims.clone(),
                data_type: Some(1),
                float_data: vec![1.0, 2.0],
                ..TensorProto::default()
            };
            assert!(read_tensor_proto(&proto.encode_to_vec(), 100).is_err(), "{dims:?}");
        }
        assert!(read_tensor_proto(b"\xff\xff\xff\xff", 100).is_err());
    }
}
