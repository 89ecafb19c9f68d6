//! Tensors of this crate to and from tract's.

use tract_onnx::prelude::{DatumType, Tensor as TractTensor, TractResult, f16};

use tract_onnx::tract_core::internal::bail;

use crate::tensor::{Tensor, with_array};

/// A copy for tract, as `datum_type` (models in half precision are run in single precision).
pub(crate) fn to_tract(tensor: &Tensor, datum_type: DatumType) -> TractResult<TractTensor> {
    let converted: TractTensor = with_array!(tensor, a => match a.as_slice() {
        Some(elements) => TractTensor::from_shape(a.shape(), elements)?,
        None => a.clone().into(),
    });
    if converted.datum_type() == datum_type {
        return Ok(converted);
    }
    Ok(converted.cast_to_dt(datum_type)?.into_owned())
}

/// Takes over one of tract's tensors. Types that only tract has become 64-bit integers.
pub(crate) fn from_tract(tensor: TractTensor) -> TractResult<Tensor> {
    Ok(match tensor.datum_type() {
        DatumType::F32 => Tensor::F32(tensor.into_plain_array::<f32>()?),
        DatumType::F64 => Tensor::F64(tensor.into_plain_array::<f64>()?),
        DatumType::F16 => Tensor::F16(tensor.into_plain_array::<f16>()?),
        DatumType::I32 => Tensor::I32(tensor.into_plain_array::<i32>()?),
        DatumType::I16 => Tensor::I16(tensor.into_plain_array::<i16>()?),
        DatumType::I8 => Tensor::I8(tensor.into_plain_array::<i8>()?),
        DatumType::U64 => Tensor::U64(tensor.into_plain_array::<u64>()?),
        DatumType::U32 => Tensor::U32(tensor.into_plain_array::<u32>()?),
        DatumType::U16 => Tensor::U16(tensor.into_plain_array::<u16>()?),
        DatumType::U8 => Tensor::U8(tensor.into_plain_array::<u8>()?),
        DatumType::Bool => Tensor::Bool(tensor.into_plain_array::<bool>()?),
        DatumType::String => bail!("a tensor of strings cannot be observed"),
        _ => Tensor::I64(tensor.cast_to_dt(DatumType::I64)?.into_owned().into_plain_array::<i64>()?),
    })
}
