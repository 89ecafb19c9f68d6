use onnxquant_ir::int_attribute;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, NodeProto};

use super::*;
use crate::testing::{
    array, assert_unchanged, assert_valid, constant_named, floats, message, model, node, numbers, op_types, run,
};

fn codes(dims: &[usize]) -> TensorProto {
    let count = dims.iter().product::<usize>();
    tensor::from_codes(DataType::Uint8, dims, (0..count).map(|index| (index * 37 % 256) as i16))
}

/// Numbers > 0 that are exact in f16.
fn scales(dims: &[usize]) -> TensorProto {
    tensor::from_f32(dims, &numbers(dims.iter().product(), 4).into_iter().map(|x| x.abs() + 0.125).collect::<Vec<_>>())
}

fn zero_points(dims: &[usize]) -> TensorProto {
    tensor::from_codes(DataType::Uint8, dims, (0..dims.iter().product::<usize>()).map(|index| index as i16))
}

fn dequantize(inputs: &[&str], axis: i64, block_size: i64) -> NodeProto {
    let attributes = vec![int_attribute("axis", axis), int_attribute("block_size", block_size)];
    node("DequantizeLinear", inputs, &["w"], attributes)
}

fn identity() -> NodeProto {
    node("Identity", &["w"], &["y"], vec![])
}

#[test]
fn dequantize_of_constants_becomes_what_it_computes() {
    let table: [(&[usize], &[usize], i64, i64); 11] = [
        (&[3, 4], &[], 1, 0),
        (&[3, 4], &[1], 0, 0),
        (&[3, 4], &[4], 1, 0),
        (&[3, 4], &[3], 0, 0),
        (&[3, 4], &[3], -2, 0),
        (&[3, 4, 2], &[4], 1, 0),
        (&[5, 4], &[3, 4], 0, 2),
        (&[5, 4], &[5, 2], -1, 3),
        (&[], &[], 0, 0),
        (&[], &[1], 0, 0),
        (&[4], &[4], 0, 0),
    ];
    for (dims, scale_dims, axis, block_size) in table {
        for zero_point in [false, true] {
            let what = format!("{dims:?} by {scale_dims:?} along {axis} in blocks of {block_size}");
            let inputs: &[&str] = if zero_point { &["q", "s", "z"] } else { &["q", "s"] };
            let constants = vec![("q", codes(dims)), ("s", scales(scale_dims)), ("z", zero_points(scale_dims))];
            let mut model = model("x", constants, vec![dequantize(inputs, axis, block_size), identity()], "y");
            let x = ndarray::ArrayD::zeros(vec![1]);
            let before = run(&model, &x);
            assert_eq!(decode_weights(&mut model).unwrap(), 1, "{what}");
            assert_valid(&model);
            assert_eq!(run(&model, &x), before, "{what}");
            assert_eq!(op_types(&model), ["Identity"], "{what}");
            assert!(["q", "s"].iter().all(|name| model.graph().find(name).is_none()), "{what}");
            assert_eq!(decode_weights(&mut model).unwrap(), 0, "{what}: idempotent");
        }
    }
}

fn product(to: DataType, sub: bool) -> Vec<NodeProto> {
    let cast = node("Cast", &["q"], &["c"], vec![int_attribute("to", to as i64)]);
    let sub = sub.then(|| node("Sub", &["c", "z"], &["d"], vec![]));
    let steps = if sub.is_some() { "d" } else { "c" };
    let mul = node("Mul", &[steps, "s"], &["w"], vec![]);
    std::iter::once(cast).chain(sub).chain([mul, identity()]).collect()
}

#[test]
fn product_of_constants_becomes_what_it_computes() {
    let table: [(&[usize], &[usize], &[usize]); 6] = [
        (&[4, 3, 2], &[], &[]),
        (&[4, 3, 2], &[4, 1, 1], &[4, 1, 1]),
        (&[4, 3, 2], &[4, 1, 1], &[]),
        (&[4, 3, 2], &[], &[4, 1, 1]),
        (&[4, 3, 2], &[2], &[3, 1]),
        (&[4, 3, 2], &[4, 3, 2], &[1]),
    ];
    for (dims, scale_dims, zero_dims) in table {
        for sub in [false, true] {
            let zero_point = tensor::from_f32(zero_dims, &numbers(zero_dims.iter().product(), 5));
            let constants = vec![("q", codes(dims)), ("s", scales(scale_dims)), ("z", zero_point)];
            let mut model = model("x", constants, product(DataType::Float, sub), "y");
            let x = ndarray::ArrayD::zeros(vec![1]);
            let before = run(&model, &x);
            assert_eq!(decode_weights(&mut model).unwrap(), 1);
            assert_valid(&model);
            assert_eq!(run(&model, &x), before, "{scale_dims:?} {zero_dims:?}");
            assert_eq!(op_types(&model), ["Identity"]);
        }
    }
}

#[test]
fn what_decodes_no_constant_is_left_alone() {
    let f16 = |dims: &[usize]| tensor::from_f32_as(DataType::Float16, dims, &vec![1.0; dims.iter().product()]);
    let integers = |dims: &[usize]| tensor::from_i64(dims, &vec![2; dims.iter().product()]);
    let of = |q: TensorProto, s: TensorProto, z: TensorProto| vec![("q", q), ("s", s), ("z", z)];
    let float_z = || floats(&[], 1);
    let dq =
        |inputs: &[&str], more: Vec<AttributeProto>| vec![node("DequantizeLinear", inputs, &["w"], more), identity()];
    let mut foreign = product(DataType::Float, true);
    foreign[1].domain = Some("com.example".into());
    let table = vec![
        ("activation", of(codes(&[4]), scales(&[]), zero_points(&[])), dq(&["x", "s", "z"], vec![]), "y"),
        ("computed scale", of(codes(&[4]), scales(&[]), zero_points(&[])), dq(&["q", "x"], vec![]), "y"),
        ("computed zero point", of(codes(&[4]), scales(&[]), zero_points(&[])), dq(&["q", "s", "x"], vec![]), "y"),
        ("graph output", of(codes(&[4]), scales(&[]), zero_points(&[])), dq(&["q", "s", "z"], vec![]), "y w"),
        (
            "output of another type",
            of(codes(&[4]), scales(&[]), zero_points(&[])),
            dq(&["q", "s"], vec![int_attribute("output_dtype", 10)]),
            "y",
        ),
        (
            "32-bit codes",
            of(tensor::from_raw(DataType::Int32, &[1], vec![0; 4]), scales(&[]), float_z()),
            dq(&["q", "s"], vec![]),
            "y",
        ),
        ("integer product", of(codes(&[4]), integers(&[]), float_z()), product(DataType::Int64, false), "y"),
        ("cast to another type", of(codes(&[4]), scales(&[]), float_z()), product(DataType::Float16, false), "y"),
        ("zero point of another type", of(codes(&[4]), scales(&[]), f16(&[])), product(DataType::Float, true), "y"),
        ("scale of higher rank", of(codes(&[4]), scales(&[2, 4]), float_z()), product(DataType::Float, false), "y"),
        ("codes that are spread", of(codes(&[1]), scales(&[4]), float_z()), product(DataType::Float, false), "y"),
        (
            "zero point that spreads",
            of(codes(&[4]), scales(&[]), floats(&[3, 1], 1)),
            product(DataType::Float, true),
            "y",
        ),
        ("foreign operator", of(codes(&[4]), scales(&[]), float_z()), foreign, "y"),
    ];
    for (what, constants, nodes, outputs) in table {
        let mut proto = message("x", constants, nodes, outputs);
        let import = onnxquant_ir::onnx::OperatorSetIdProto { domain: Some("com.example".into()), version: Some(1) };
        proto.opset_import.push(import);
        assert_unchanged(what, proto, |model| decode_weights(model).unwrap());
    }
}

#[test]
fn hostile_shapes_end_in_a_result_or_an_error_never_a_panic() {
    const FAR: usize = 1 << 40;
    let empty = |dtype, dims: &[usize]| tensor::from_raw(dtype, dims, vec![]);
    let table: [(&[usize], &[usize], i64, i64); 5] = [
        (&[0, FAR, FAR], &[0, FAR, FAR], 0, 2),
        (&[0, FAR, FAR], &[0], 0, 0),
        (&[0, FAR], &[0, 1], 1, i64::MAX),
        (&[0], &[0], -1, 0),
        (&[0, 3], &[0, 3], 0, i64::MAX),
    ];
    for (dims, scale_dims, axis, block_size) in table {
        let constants = vec![("q", empty(DataType::Uint8, dims)), ("s", empty(DataType::Float, scale_dims))];
        let mut model = model("x", constants, vec![dequantize(&["q", "s"], axis, block_size), identity()], "y");
        assert_eq!(decode_weights(&mut model).unwrap(), 1, "{dims:?}");
        assert_eq!(tensor::shape(constant_named(model.graph(), "w")).unwrap(), dims);
    }
}

#[test]
fn scale_that_does_not_fit_is_an_error() {
    let constants = vec![("q", codes(&[4, 3])), ("s", scales(&[2, 5]))];
    let mut model = model("x", constants, vec![dequantize(&["q", "s"], 1, 0), identity()], "y");
    let error = decode_weights(&mut model).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "tensor `q`: scale or zero point of shape [2, 5] does not fit codes of shape [4, 3]");
}

#[test]
fn shared_codes_are_decoded_for_each_and_go_with_the_last() {
    let second = NodeProto { output: vec!["v".into()], ..dequantize(&["q", "s"], 0, 0) };
    let nodes = vec![dequantize(&["q", "s"], 0, 0), second, node("Add", &["w", "v"], &["y"], vec![])];
    let mut model = model("x", vec![("q", codes(&[4])), ("s", scales(&[4]))], nodes, "y");
    assert_eq!(decode_weights(&mut model).unwrap(), 2);
    assert_valid(&model);
    assert_eq!(array(constant_named(model.graph(), "w")), array(constant_named(model.graph(), "v")));
    assert!(model.graph().find("q").is_none());
}
