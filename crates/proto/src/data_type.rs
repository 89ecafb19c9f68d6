//! Element types of tensors: names and sizes.

use std::borrow::Cow;

pub use crate::onnx::tensor_proto::DataType;

/// Bits of one element in `raw_data`; none for strings and `UNDEFINED`, which have no raw form.
///
/// Types below eight bits lie packed, the first element in the lowest bits.
pub fn data_type_bits(data_type: DataType) -> Option<u32> {
    use DataType as D;
    Some(match data_type {
        D::Undefined | D::String => return None,
        D::Uint2 | D::Int2 => 2,
        D::Uint4 | D::Int4 | D::Float4e2m1 => 4,
        D::Float6e2m3 | D::Float6e3m2 => 6,
        D::Uint8 | D::Int8 | D::Bool => 8,
        D::Float8e4m3fn | D::Float8e4m3fnuz | D::Float8e5m2 | D::Float8e5m2fnuz => 8,
        D::Float8e8m0 => 8,
        D::Uint16 | D::Int16 | D::Float16 | D::Bfloat16 => 16,
        D::Uint32 | D::Int32 | D::Float => 32,
        D::Uint64 | D::Int64 | D::Double | D::Complex64 => 64,
        D::Complex128 => 128,
    })
}

/// Length of `raw_data` for so many elements: none without a raw form, or past 64 bits.
pub fn raw_data_bytes(data_type: DataType, n_elements: u64) -> Option<u64> {
    let bits = data_type_bits(data_type)?;
    let total = u128::from(n_elements) * u128::from(bits);
    u64::try_from(total.div_ceil(8)).ok()
}

/// The name in the schema, such as `FLOAT` or `INT4`, of a `data_type` field.
pub fn data_type_name(number: i32) -> Cow<'static, str> {
    match DataType::try_from(number) {
        Ok(data_type) => data_type.as_str_name().into(),
        Err(_) => format!("data type {number}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_type_but_two_has_a_size() {
        let without: Vec<_> = (0..=28)
            .filter_map(|number| DataType::try_from(number).ok())
            .filter(|&data_type| data_type_bits(data_type).is_none())
            .collect();
        assert_eq!(without, [DataType::Undefined, DataType::String]);
    }

    #[test]
    fn raw_data_bytes_of_packed_types_round_up() {
        let rows = [
            (DataType::Int4, 3, 2),
            (DataType::Uint2, 5, 2),
            (DataType::Float6e2m3, 4, 3),
            (DataType::Float6e3m2, 5, 4),
            (DataType::Float, 3, 12),
            (DataType::Complex128, 1, 16),
            (DataType::Int2, 0, 0),
        ];
        for (data_type, n_elements, expected) in rows {
            assert_eq!(raw_data_bytes(data_type, n_elements), Some(expected), "{data_type:?}");
        }
    }

    #[test]
    fn raw_data_bytes_past_64_bits_is_none() {
        assert_eq!(raw_data_bytes(DataType::Float, u64::MAX), None);
        assert_eq!(raw_data_bytes(DataType::Uint8, u64::MAX), Some(u64::MAX));
    }

    #[test]
    fn unknown_data_type_is_named_by_its_number() {
        assert_eq!(data_type_name(22), "INT4");
        assert_eq!(data_type_name(77), "data type 77");
    }
}
