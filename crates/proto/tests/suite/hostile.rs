//! Bytes made to break a reader: an error or a model, never a panic.

use onnxquant_proto::{Bytes, decode_model, encode_model};
use proptest::prelude::*;

use crate::errors::refusal;
use crate::round_trip::with_initializer;
use crate::sample::short_model;

/// Decodes; what decodes must be encodable and stay the same from then on.
fn try_model(bytes: &[u8]) {
    let Ok(model) = decode_model(Bytes::copy_from_slice(bytes)) else { return };
    let once = encode_model(&model).expect("no larger than its input");
    let again = decode_model(once.clone().into()).expect("what was encoded decodes");
    assert_eq!(encode_model(&again).expect("no larger than its input"), once);
}

fn length_delimited(key: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![key];
    let mut length = payload.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).expect("seven bits"));
    bytes.extend(payload);
    bytes
}

/// A model whose graph is given encoded.
fn with_graph(graph: &[u8]) -> Vec<u8> {
    let mut model = vec![0x08, 8];
    model.extend(length_delimited(0x3a, graph));
    model
}

fn sample() -> Vec<u8> {
    encode_model(&short_model()).expect("sample is small")
}

#[test]
fn sample_cut_at_any_byte_does_not_panic() {
    let bytes = sample();
    for length in 0..bytes.len() {
        try_model(&bytes[..length]);
    }
}

#[test]
fn sample_with_any_byte_changed_does_not_panic() {
    let mut bytes = sample();
    for position in 0..bytes.len() {
        let original = bytes[position];
        for value in [0, 0xff, original ^ 1, original ^ 0x80, original.wrapping_add(8)] {
            bytes[position] = value;
            try_model(&bytes);
        }
        bytes[position] = original;
    }
}

#[test]
fn lengths_that_overflow_are_refused() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let two_to_63 = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    let too_long = [0xff; 11];
    for (length, expected) in [
        (&huge[..], "says it has 9223372036854775807 bytes"),
        (&two_to_63, "says it has 9223372036854775808 bytes"),
        (&too_long, "more than 64 bits"),
    ] {
        let text = refusal(&[&[0x08, 8, 0x3a], length].concat());
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn length_past_the_enclosing_message_is_refused() {
    // A graph of two bytes holds a node of five, which the file does have.
    let text = refusal(&[0x08, 8, 0x3a, 2, 0x0a, 5, 0x22, 3, b'a', b'b', b'c']);
    assert!(text.contains("in `GraphProto` at byte 4: a field says it has 5 bytes, but only 0 are left"), "{text}");
}

#[test]
fn groups_and_wrong_wire_types_are_refused() {
    let rows: [(&[u8], &str); 6] = [
        (&[0x3b, 0x3c], "field `graph` has wire type 3"),
        (&[0x08, 8, 0x9b, 0x06, 0x9c, 0x06], "field number 99"),
        (&[0x0a, 1, 8], "field `ir_version` has wire type 2"),
        (&[0x38, 1], "field `graph` has wire type 0"),
        (&[0x0f, 1], "15 is not the key of a field"),
        (&[0x00, 1], "0 is not the key of a field"),
    ];
    for (bytes, expected) in rows {
        let text = refusal(bytes);
        assert!(text.contains(expected), "{text}");
    }
}

/// `levels` graphs, each but the innermost holding one node with the next as attribute.
fn nested_graphs(levels: usize) -> Vec<u8> {
    let graph = (1..levels).fold(vec![0x12, 1, b'g'], |inner, _| {
        let attribute = length_delimited(0x32, &inner);
        length_delimited(0x0a, &length_delimited(0x2a, &attribute))
    });
    with_graph(&graph)
}

/// An input whose type is `levels` sequences around a tensor.
fn nested_types(levels: usize) -> Vec<u8> {
    let r#type = (0..levels).fold(vec![0x0a, 0], |inner, _| length_delimited(0x22, &length_delimited(0x0a, &inner)));
    with_graph(&length_delimited(0x5a, &length_delimited(0x12, &r#type)))
}

#[test]
fn nesting_ten_thousand_deep_is_refused() {
    for bytes in [nested_graphs(10_000), nested_types(10_000)] {
        let text = refusal(&bytes);
        assert!(text.contains("nested deeper than 100 levels"), "{text}");
    }
}

/// The walk over the bytes and prost must agree on the limit.
#[test]
fn nesting_is_accepted_up_to_the_limit_of_prost() {
    // One level for the outer graph, three for each further: 100 = 1 + 33 * 3.
    assert_eq!(refusal(&nested_graphs(34)), "accepted");
    assert!(refusal(&nested_graphs(35)).contains("nested deeper than 100 levels"));
    // Graph, input, type, its tensor: 4 levels; two for each sequence.
    assert_eq!(refusal(&nested_types(48)), "accepted");
    assert!(refusal(&nested_types(49)).contains("nested deeper than 100 levels"));
}

#[test]
fn empty_nodes_that_would_fill_the_memory_are_refused() {
    let few = [0x0a, 0].repeat(100_000);
    assert_eq!(refusal(&with_graph(&few)), "accepted");
    let many = [0x0a, 0].repeat(1_000_000);
    let text = refusal(&with_graph(&many));
    assert!(text.contains("far too much for 2000006 bytes of input"), "{text}");
}

#[test]
fn giant_shapes_take_no_memory() {
    let max = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(refusal(&with_initializer(&max.repeat(8))), "accepted");
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        try_model(&bytes);
        try_model(&with_graph(&bytes));
    }

    #[test]
    fn random_fields_do_not_panic(fields in prop::collection::vec((0u8..128, prop::collection::vec(0u8..32, 0..12)), 0..40)) {
        let bytes: Vec<u8> = fields.iter().flat_map(|(key, payload)| length_delimited(*key | 2, payload)).collect();
        try_model(&with_graph(&bytes));
    }

    #[test]
    fn random_damage_does_not_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = sample();
        for (position, value) in damage {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        try_model(&bytes);
    }
}
