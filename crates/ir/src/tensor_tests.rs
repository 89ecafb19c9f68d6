use proptest::prelude::*;

use super::*;

const CODE_TYPES: [(DataType, i16, i16); 6] = [
    (DataType::Int8, -128, 127),
    (DataType::Uint8, 0, 255),
    (DataType::Int4, -8, 7),
    (DataType::Uint4, 0, 15),
    (DataType::Int2, -2, 1),
    (DataType::Uint2, 0, 3),
];

#[test]
fn codes_survive_packing_at_every_width() {
    for (dtype, low, high) in CODE_TYPES {
        for count in 0..9 {
            let codes = (low..=high).cycle().take(count).collect::<Vec<i16>>();
            let tensor = from_codes(dtype, &[count], codes.iter().copied());
            assert_eq!(to_codes(&tensor).unwrap(), codes, "{dtype:?}");
        }
    }
}

#[test]
fn codes_of_fp8_are_patterns_with_a_sign() {
    let codes = (-126..=126).collect::<Vec<i16>>();
    let tensor = from_codes(DataType::Float8e4m3fn, &[codes.len()], codes.iter().copied());
    assert!(check_payload(&tensor).is_ok() && holds_codes(&tensor));
    let raw = to_raw(&tensor).unwrap();
    assert_eq!([raw[0], raw[125], raw[126], raw[127], raw[252]], [0xfe, 0x81, 0, 1, 0x7e]);
    assert_eq!(to_codes(&tensor).unwrap(), codes);
    // Zero with a sign, and what is no number.
    let others = from_raw(DataType::Float8e4m3fn, &[3], vec![0x80, 0x7f, 0xff]);
    assert_eq!(to_codes(&others).unwrap(), [0, 127, -127]);
}

#[test]
fn payload_of_wrong_length_is_refused() {
    let mut tensor = from_f32(&[2, 3], &[0.0; 6]);
    assert!(check_payload(&tensor).is_ok());
    tensor.dims = vec![2, 4];
    let error = check_payload(&tensor).unwrap_err().to_string();
    assert_eq!(error, "tensor ``: shape [2, 4] of FLOAT needs 32 bytes of raw_data, found 24");
}

#[test]
fn giant_shape_is_refused_without_allocation() {
    let mut tensor = from_f32(&[], &[1.0]);
    tensor.dims = vec![1 << 40, 1 << 40];
    assert!(check_payload(&tensor).unwrap_err().problem.contains("overflows"));
    tensor.dims = vec![-1];
    assert!(check_payload(&tensor).unwrap_err().problem.contains("negative"));
}

#[test]
fn typed_and_raw_forms_read_alike() {
    let raw = from_f32_as(DataType::Float16, &[2], &[1.5, -2.0]);
    let typed = TensorProto {
        dims: vec![2],
        data_type: Some(DataType::Float16 as i32),
        int32_data: vec![i32::from(f16::from_f32(1.5).to_bits()), i32::from(f16::from_f32(-2.0).to_bits())],
        ..TensorProto::default()
    };
    assert_eq!(to_f32(&raw).unwrap(), to_f32(&typed).unwrap());
    assert_eq!(to_raw(&typed).unwrap(), raw.raw_data.unwrap());
}

fn typed(dtype: DataType, dims: &[i64]) -> TensorProto {
    TensorProto { dims: dims.to_vec(), data_type: Some(dtype as i32), ..TensorProto::default() }
}

/// The specification's packing, one code at a time.
fn packed_naively(codes: &[i16], bits: usize) -> Vec<u8> {
    let mut raw = vec![0u8; (codes.len() * bits).div_ceil(8)];
    for (index, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            let place = index * bits + bit;
            raw[place / 8] |= u8::try_from(code >> bit & 1).unwrap() << (place % 8);
        }
    }
    raw
}

proptest! {
    #[test]
    fn codes_are_packed_low_bits_first_and_read_back(
        (dtype, low, high) in prop::sample::select(CODE_TYPES.to_vec()),
        seeds in prop::collection::vec(any::<u16>(), 0..40),
    ) {
        let span = i32::from(high) - i32::from(low) + 1;
        let codes = seeds.iter().map(|&seed| (i32::from(low) + i32::from(seed) % span) as i16).collect::<Vec<_>>();
        let tensor = from_codes(dtype, &[codes.len()], codes.iter().copied());
        prop_assert!(check_payload(&tensor).is_ok());
        prop_assert_eq!(to_codes(&tensor).unwrap(), codes.clone());
        let bits = data_type_bits(dtype).unwrap() as usize;
        prop_assert_eq!(&to_raw(&tensor).unwrap()[..], packed_naively(&codes, bits));
        // The typed form holds a byte of packed codes in each entry, sign-extended or not.
        let mut other = typed(dtype, &tensor.dims);
        other.int32_data = to_raw(&tensor).unwrap().iter().map(|&byte| i32::from(byte as i8)).collect();
        prop_assert_eq!(to_codes(&other).unwrap(), codes);
    }

    #[test]
    fn floats_of_every_width_are_read_back_alike_in_both_forms(bits in prop::collection::vec(any::<u32>(), 0..20)) {
        let numbers = bits.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<_>>();
        let same = |a: &[f32], b: &[f32]| a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()));
        let dims = [numbers.len()];
        prop_assert!(same(&to_f32(&from_f32(&dims, &numbers)).unwrap(), &numbers));
        let finite = numbers.iter().map(|&x| if x.is_nan() { 0.0 } else { x }).collect::<Vec<_>>();
        for (dtype, expected) in [
            (DataType::Float, finite.clone()),
            (DataType::Double, finite.clone()),
            (DataType::Float16, finite.iter().map(|&x| f16::from_f32(x).to_f32()).collect()),
            (DataType::Bfloat16, finite.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()),
        ] {
            let raw = from_f32_as(dtype, &dims, &finite);
            prop_assert!(is_float(&raw) && check_payload(&raw).is_ok());
            prop_assert!(same(&to_f32(&raw).unwrap(), &expected), "{:?}", dtype);
            let mut other = typed(dtype, &raw.dims);
            match dtype {
                DataType::Float => other.float_data = finite.clone(),
                DataType::Double => other.double_data = finite.iter().map(|&x| f64::from(x)).collect(),
                DataType::Float16 => other.int32_data = finite.iter().map(|&x| f16::from_f32(x).to_bits().into()).collect(),
                _ => other.int32_data = finite.iter().map(|&x| bf16::from_f32(x).to_bits().into()).collect(),
            }
            prop_assert!(same(&to_f32(&other).unwrap(), &expected), "{:?} typed", dtype);
            prop_assert_eq!(to_raw(&other).unwrap(), raw.raw_data.unwrap(), "{:?}", dtype);
        }
    }

    #[test]
    fn integers_are_read_back_alike_in_both_forms(numbers in prop::collection::vec(any::<i64>(), 0..20)) {
        let raw = from_i64(&[numbers.len()], &numbers);
        prop_assert_eq!(to_i64(&raw).unwrap(), numbers.clone());
        let other = TensorProto { int64_data: numbers.clone(), ..typed(DataType::Int64, &raw.dims) };
        prop_assert_eq!(to_i64(&other).unwrap(), numbers.clone());
        prop_assert_eq!(to_raw(&other).unwrap(), raw.raw_data.unwrap());
        let short = numbers.iter().map(|&x| x as i32).collect::<Vec<_>>();
        let other = TensorProto { int32_data: short.clone(), ..typed(DataType::Int32, &raw.dims) };
        let expected = short.iter().map(|&x| i64::from(x)).collect::<Vec<_>>();
        prop_assert_eq!(to_i64(&other).unwrap(), expected.clone());
        prop_assert_eq!(to_i64(&from_raw(DataType::Int32, &[short.len()], to_raw(&other).unwrap())).unwrap(), expected);
    }

    #[test]
    fn any_declaration_is_read_or_refused_without_a_panic(
        dims in prop::collection::vec(prop_oneof![-2i64..5, Just(i64::MAX), Just(i64::MIN), Just(1 << 40)], 0..4),
        data_type in -1i32..30,
        raw in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        words in prop::collection::vec(any::<i32>(), 0..6),
    ) {
        let tensor = TensorProto {
            dims,
            data_type: Some(data_type),
            raw_data: raw.map(Bytes::from),
            int32_data: words,
            ..TensorProto::default()
        };
        let sound = check_payload(&tensor).is_ok();
        let read = [to_f32(&tensor).is_ok(), to_i64(&tensor).is_ok(), to_codes(&tensor).is_ok(), to_raw(&tensor).is_ok()];
        prop_assert!(sound || read == [false; 4]);
    }
}

#[test]
fn every_typed_field_gives_the_packed_bytes() {
    let of = |dtype, dims: &[i64]| typed(dtype, dims);
    let table = [
        (TensorProto { int32_data: vec![-1, 258], ..of(DataType::Int32, &[2]) }, vec![255, 255, 255, 255, 2, 1, 0, 0]),
        (TensorProto { int32_data: vec![-2, 258], ..of(DataType::Int16, &[2]) }, vec![254, 255, 2, 1]),
        (TensorProto { int32_data: vec![65535], ..of(DataType::Uint16, &[1]) }, vec![255, 255]),
        (TensorProto { int32_data: vec![1, 0], ..of(DataType::Bool, &[2]) }, vec![1, 0]),
        (TensorProto { int32_data: vec![0x21, 3], ..of(DataType::Uint4, &[3]) }, vec![0x21, 3]),
        (TensorProto { int32_data: vec![0x7e], ..of(DataType::Float8e4m3fn, &[1]) }, vec![0x7e]),
        (TensorProto { uint64_data: vec![7], ..of(DataType::Uint32, &[]) }, vec![7, 0, 0, 0]),
        (TensorProto { uint64_data: vec![7], ..of(DataType::Uint64, &[]) }, vec![7, 0, 0, 0, 0, 0, 0, 0]),
        (TensorProto { float_data: vec![1.0, 2.0], ..of(DataType::Complex64, &[1]) }, vec![0, 0, 128, 63, 0, 0, 0, 64]),
        (TensorProto { double_data: vec![0.0, 0.0], ..of(DataType::Complex128, &[1]) }, vec![0; 16]),
        (of(DataType::Float, &[0, 3]), vec![]),
    ];
    for (tensor, expected) in table {
        assert_eq!(to_raw(&tensor).unwrap(), expected, "{tensor:?}");
    }
}

#[test]
fn payload_that_does_not_fit_is_refused_with_the_reason() {
    let text = TensorProto { string_data: vec![vec![65]], ..typed(DataType::String, &[1]) };
    assert!(check_payload(&text).is_ok());
    let table = [
        (typed(DataType::Undefined, &[]), "data type is undefined"),
        (TensorProto { data_type: Some(99), ..text.clone() }, "unknown data type 99"),
        (
            TensorProto { raw_data: Some(Bytes::new()), string_data: vec![], ..text.clone() },
            "strings cannot be held in raw_data",
        ),
        (
            TensorProto { float_data: vec![1.0], ..from_f32(&[1], &[1.0]) },
            "holds its numbers twice, in raw_data and in a typed field",
        ),
        (
            TensorProto { int64_data: vec![1], ..typed(DataType::Float, &[1]) },
            "shape [1] of FLOAT needs 1 typed entries, found 0",
        ),
        (
            TensorProto { int32_data: vec![1, 2], ..typed(DataType::Int4, &[2]) },
            "shape [2] of INT4 needs 1 typed entries, found 2",
        ),
        (
            typed(DataType::Complex64, &[1 << 62, 2, 1]),
            "shape [4611686018427387904, 2, 1] of COMPLEX64 needs more than memory holds typed entries, found 0",
        ),
    ];
    for (tensor, expected) in table {
        assert_eq!(check_payload(&tensor).unwrap_err().problem, expected);
    }
    assert_eq!(to_raw(&text).unwrap_err().problem, "strings have no fixed width");
    assert_eq!(to_f32(&from_i64(&[], &[1])).unwrap_err().problem, "INT64 is no float type");
    assert_eq!(to_i64(&from_f32(&[], &[1.0])).unwrap_err().problem, "FLOAT is not int64");
    assert_eq!(to_codes(&from_f32(&[], &[1.0])).unwrap_err().problem, "FLOAT holds no quantized codes");
}

#[test]
fn empty_shape_beside_a_giant_dimension_has_no_elements() {
    let tensor = TensorProto { dims: vec![0, i64::MAX], raw_data: Some(Bytes::new()), ..typed(DataType::Float, &[]) };
    assert_eq!(element_count(&tensor).unwrap(), 0);
    assert!(to_f32(&tensor).unwrap().is_empty());
}
