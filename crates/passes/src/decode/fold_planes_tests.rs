use onnxquant_ir::onnx::{AttributeProto, NodeProto};
use onnxquant_ir::{Model, int_attribute, text_attribute};

use super::*;
use crate::testing::{assert_valid, constant_named, model, node, op_types};

fn bytes(dims: &[usize], bytes: &[u8]) -> TensorProto {
    tensor::from_raw(DataType::Uint8, dims, bytes.to_vec())
}

fn one(op_type: &str, constants: Vec<(&str, TensorProto)>, attributes: Vec<AttributeProto>) -> Model {
    let names: Vec<&str> = constants.iter().map(|(name, _)| *name).collect();
    let keep: NodeProto = node("Max", &["x", "r"], &["y"], vec![]);
    model("x", constants.clone(), vec![node(op_type, &names, &["r"], attributes), keep], "y")
}

fn right() -> Vec<AttributeProto> {
    vec![text_attribute("direction", "RIGHT")]
}

#[test]
fn operators_compute_what_the_specification_says() {
    let left = vec![text_attribute("direction", "LEFT")];
    let shape = |dims: &[i64]| tensor::from_i64(&[dims.len()], dims);
    let wide = tensor::from_i32(&[2], &[3, -1]);
    type Row = (&'static str, Vec<(&'static str, TensorProto)>, Vec<AttributeProto>, TensorProto);
    let table: Vec<Row> = vec![
        ("BitShift", vec![("a", bytes(&[2], &[0xf3, 1])), ("b", bytes(&[], &[4]))], right(), bytes(&[2], &[15, 0])),
        ("BitShift", vec![("a", bytes(&[2], &[0xf3, 1])), ("b", bytes(&[], &[4]))], left, bytes(&[2], &[0x30, 16])),
        (
            "BitShift",
            vec![("a", bytes(&[1, 2], &[0xf3, 1])), ("b", bytes(&[2, 1], &[0, 1]))],
            right(),
            bytes(&[2, 2], &[0xf3, 1, 0x79, 0]),
        ),
        ("BitwiseAnd", vec![("a", bytes(&[2], &[12, 3])), ("b", bytes(&[], &[6]))], vec![], bytes(&[2], &[4, 2])),
        ("BitwiseOr", vec![("a", bytes(&[2], &[12, 3])), ("b", bytes(&[2], &[1, 4]))], vec![], bytes(&[2], &[13, 7])),
        (
            "Reshape",
            vec![("a", bytes(&[4], &[1, 2, 3, 4])), ("b", shape(&[2, -1]))],
            vec![],
            bytes(&[2, 2], &[1, 2, 3, 4]),
        ),
        (
            "Slice",
            vec![("a", bytes(&[4], &[1, 2, 3, 4])), ("b", shape(&[0])), ("c", shape(&[3]))],
            vec![],
            bytes(&[3], &[1, 2, 3]),
        ),
        (
            "Cast",
            vec![("a", bytes(&[1], &[200]))],
            vec![int_attribute("to", DataType::Int32 as i64)],
            tensor::from_i32(&[1], &[200]),
        ),
        ("Sub", vec![("a", wide), ("b", tensor::from_i32(&[], &[4]))], vec![], tensor::from_i32(&[2], &[-1, -5])),
        (
            "Cast",
            vec![("a", tensor::from_i32(&[2], &[-5, 127]))],
            vec![int_attribute("to", DataType::Int8 as i64)],
            tensor::from_codes(DataType::Int8, &[2], [-5, 127]),
        ),
    ];
    for (op_type, constants, attributes, expected) in table {
        let mut model = one(op_type, constants, attributes);
        assert_eq!(fold_planes(model.graph_mut()), 1, "{op_type}");
        assert_valid(&model);
        assert_eq!(op_types(&model), ["Max"]);
        let found = TensorProto { name: None, ..constant_named(model.graph(), "r").clone() };
        assert_eq!(found, expected, "{op_type}");
        assert_eq!(fold_planes(model.graph_mut()), 0, "{op_type}: idempotent");
    }
}

#[test]
fn what_is_not_certain_is_left_alone() {
    let two = || ("a", bytes(&[2], &[1, 2]));
    let to = |dtype: DataType| vec![int_attribute("to", dtype as i64)];
    let list = |numbers: &[i64]| tensor::from_i64(&[numbers.len()], numbers);
    let long: Vec<u8> = vec![1; 64];
    type Row = (&'static str, &'static str, Vec<(&'static str, TensorProto)>, Vec<AttributeProto>);
    let table: Vec<Row> = vec![
        ("shift by 8", "BitShift", vec![two(), ("b", bytes(&[], &[8]))], right()),
        ("no direction", "BitShift", vec![two(), ("b", bytes(&[], &[1]))], vec![]),
        ("shapes that do not fit", "BitwiseOr", vec![two(), ("b", bytes(&[3], &[1, 2, 3]))], vec![]),
        ("growth", "BitwiseOr", vec![("a", bytes(&[64, 1], &long)), ("b", bytes(&[1, 64], &long))], vec![]),
        ("other type", "BitwiseOr", vec![two(), ("b", tensor::from_i32(&[1], &[1]))], vec![]),
        ("overflow", "Cast", vec![("a", bytes(&[1], &[200]))], to(DataType::Int8)),
        ("cast to float", "Cast", vec![two()], to(DataType::Float)),
        ("uint8 difference", "Sub", vec![two(), ("b", bytes(&[], &[1]))], vec![]),
        ("too short", "Slice", vec![two(), ("b", list(&[0])), ("c", list(&[3]))], vec![]),
        ("not from the start", "Slice", vec![two(), ("b", list(&[1])), ("c", list(&[2]))], vec![]),
        ("other count", "Reshape", vec![two(), ("b", list(&[3]))], vec![]),
    ];
    for (what, op_type, constants, attributes) in table {
        let mut model = one(op_type, constants, attributes);
        let before = model.to_proto();
        assert_eq!(fold_planes(model.graph_mut()), 0, "{what}");
        assert_eq!(model.to_proto(), before, "{what}");
    }
}
