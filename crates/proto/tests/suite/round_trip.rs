//! What is read is what was written.

use std::io;

use onnxquant_proto::onnx::{AttributeProto, ModelProto, TensorProto};
use onnxquant_proto::{Bytes, Message, WriteError, decode_model, encode_model, encode_to_writer};

use crate::sample::{sample_model, smallest_model};

#[test]
fn sample_model_comes_back_equal_and_byte_for_byte() {
    let bytes = encode_model(&sample_model()).expect("sample is small");
    let model = decode_model(bytes.clone().into()).expect("sample is valid");
    assert_eq!(model, sample_model());
    assert_eq!(encode_model(&model).expect("sample is small"), bytes);
}

#[test]
fn streamed_bytes_equal_encoded_bytes() {
    for model in [sample_model(), smallest_model(), ModelProto::default()] {
        let mut streamed = Vec::new();
        encode_to_writer(&model, &mut streamed).expect("a vector takes everything");
        assert_eq!(streamed, encode_model(&model).expect("model is small"));
    }
}

#[test]
fn present_zero_stays_apart_from_absent() {
    let zero = AttributeProto { f: Some(0.0), i: Some(0), s: Some(vec![]), ..Default::default() };
    let again = AttributeProto::decode(zero.encode_to_vec().as_slice()).expect("just encoded");
    assert_eq!(again, zero);
    assert_eq!((again.f, again.r#type), (Some(0.0), None));
}

#[test]
fn raw_data_is_a_slice_of_the_input() {
    let bytes = Bytes::from(encode_model(&sample_model()).expect("sample is small"));
    let input = bytes.as_ptr_range();
    let model = decode_model(bytes.clone()).expect("sample is valid");
    let graph = model.graph.expect("sample has a graph");
    let raw: Vec<_> = graph.initializer.iter().filter_map(|tensor| tensor.raw_data.as_ref()).collect();
    assert!(raw.len() > 20);
    assert!(raw.iter().filter(|raw| !raw.is_empty()).all(|raw| input.contains(&raw.as_ptr())));
}

/// Writers may pack repeated numbers or not, whatever the schema prefers.
#[test]
fn packed_and_unpacked_numbers_are_both_read() {
    let rows: [(&[u8], TensorProto); 5] = [
        (&[0x0a, 3, 1, 0xac, 0x02], TensorProto { dims: vec![1, 300], ..Default::default() }),
        (&[0x08, 1, 0x08, 0xac, 0x02], TensorProto { dims: vec![1, 300], ..Default::default() }),
        (&[0x25, 0, 0, 0x80, 0x3f], TensorProto { float_data: vec![1.0], ..Default::default() }),
        (&[0x38, 5, 0x3a, 1, 6], TensorProto { int64_data: vec![5, 6], ..Default::default() }),
        (&[0x51, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f], TensorProto { double_data: vec![1.0], ..Default::default() }),
    ];
    for (bytes, expected) in rows {
        let model = with_initializer(bytes);
        let graph = decode_model(model.into()).expect("known fields").graph.expect("has a graph");
        assert_eq!(graph.initializer, [expected]);
    }
}

/// A model with one initializer, given encoded (at most 120 bytes).
pub fn with_initializer(tensor: &[u8]) -> Vec<u8> {
    let length = u8::try_from(tensor.len()).expect("a short tensor");
    let mut model = vec![0x08, 8, 0x3a, length + 2, 0x2a, length];
    model.extend(tensor);
    model
}

#[test]
fn model_of_two_gib_is_not_encoded() {
    let half = Bytes::from(vec![0; 1 << 30]);
    let tensor = TensorProto { raw_data: Some(half), ..Default::default() };
    let mut model = smallest_model();
    model.graph.as_mut().expect("has a graph").initializer = vec![tensor.clone(), tensor];
    let mut written = Vec::new();
    let errors = [encode_model(&model).map(drop), encode_to_writer(&model, &mut written)];
    for error in errors.map(|result| result.expect_err("model is too large")) {
        assert!(matches!(error, WriteError::TooLarge { n_bytes } if n_bytes > 1 << 31));
        assert!(error.to_string().contains("external data"), "{error}");
    }
    assert!(written.is_empty());
}

#[test]
fn failing_writer_is_reported() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = encode_to_writer(&sample_model(), &mut Full).expect_err("writer is full");
    assert!(matches!(error, WriteError::Io(_)));
}
