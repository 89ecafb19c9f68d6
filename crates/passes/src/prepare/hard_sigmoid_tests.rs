use ndarray::ArrayD;
use onnxquant_ir::onnx::{GraphProto, ModelProto, NodeProto};

use super::*;
use crate::testing::{
    assert_close, assert_unchanged, assert_valid, floats, info, message, node, numbers, op_types, run, set_constant,
};

fn input() -> ArrayD<f32> {
    // From -8 to 8.
    ArrayD::from_shape_vec(vec![2, 3, 5, 4], numbers(120, 3).into_iter().map(|x| 4.0 * x).collect()).unwrap()
}

fn constants() -> Vec<(&'static str, onnxquant_ir::onnx::TensorProto)> {
    let scalar = |number: f32| tensor::from_f32(&[], &[number]);
    vec![
        ("three", scalar(3.0)),
        ("zero", scalar(0.0)),
        ("six", scalar(6.0)),
        ("sixth", scalar(1.0 / 6.0)),
        ("one", tensor::from_f32(&[1], &[1.0])),
    ]
}

fn plus() -> NodeProto {
    node("Add", &["x", "three"], &["s"], vec![])
}

fn clip() -> NodeProto {
    node("Clip", &["s", "zero", "six"], &["c"], vec![])
}

fn swish() -> ModelProto {
    let nodes =
        vec![plus(), clip(), node("Mul", &["x", "c"], &["m"], vec![]), node("Div", &["m", "six"], &["y"], vec![])];
    message("x", constants(), nodes, "y")
}

#[test]
fn spelled_out_forms_are_fused_and_keep_the_outputs() {
    let after_product = vec![
        node("Add", &["three", "x"], &["s"], vec![]),
        clip(),
        node("Mul", &["c", "x"], &["m"], vec![]),
        node("Mul", &["sixth", "m"], &["y"], vec![]),
    ];
    let before_product =
        vec![plus(), clip(), node("Mul", &["c", "sixth"], &["g"], vec![]), node("Mul", &["x", "g"], &["y"], vec![])];
    let attributes = vec![float_attribute("min", 0.0), float_attribute("max", 6.0)];
    let old_clip = vec![plus(), node("Clip", &["s"], &["c"], attributes), node("Div", &["c", "six"], &["y"], vec![])];
    let alone = vec![plus(), clip(), node("Div", &["c", "six"], &["y"], vec![])];
    let table: Vec<(&str, ModelProto, &[&str])> = vec![
        ("swish", swish(), &["HardSigmoid", "Mul"]),
        ("operands exchanged", message("x", constants(), after_product, "y"), &["HardSigmoid", "Mul"]),
        ("factor first", message("x", constants(), before_product, "y"), &["HardSigmoid", "Mul"]),
        ("sigmoid", message("x", constants(), alone, "y"), &["HardSigmoid"]),
        ("attributes", message("x", constants(), old_clip, "y"), &["HardSigmoid"]),
    ];
    for (what, proto, expected) in table {
        let mut model = Model::from_proto(proto).unwrap();
        let before = run(&model, &input());
        assert_eq!(fuse_hard_sigmoids(&mut model).unwrap(), 1, "{what}");
        assert_valid(&model);
        assert_eq!(op_types(&model), expected, "{what}");
        assert_close(&run(&model, &input()), &before, 1e-5, what);
        assert_eq!(fuse_hard_sigmoids(&mut model).unwrap(), 0, "{what}: idempotent");
        assert_eq!(expand_hard_sigmoids(&mut model).unwrap(), 1, "{what}");
        assert_valid(&model);
        assert_close(&run(&model, &input()), &before, 1e-5, what);
        assert_eq!(fuse_hard_sigmoids(&mut model).unwrap(), 1, "{what}: expanding is undone");
        assert_eq!(op_types(&model), expected, "{what}");
    }
}

#[test]
fn hard_swish_is_spelled_out() {
    let mut model =
        Model::from_proto(message("x", vec![], vec![node("HardSwish", &["x"], &["y"], vec![])], "y")).unwrap();
    assert_eq!(expand_hard_sigmoids(&mut model).unwrap(), 1);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Add", "Clip", "Mul", "Mul"]);
    let expected = input().mapv(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0));
    assert_close(&run(&model, &input()), &[expected], 1e-5, "HardSwish");
    assert_eq!(expand_hard_sigmoids(&mut model).unwrap(), 0, "idempotent");
}

#[test]
fn what_is_no_hard_sigmoid_stays_as_it_is() {
    type Change = fn(&mut GraphProto);
    let table: Vec<(&str, Change)> = vec![
        ("the sum has another reader", |g| g.node.push(node("Relu", &["s"], &["z"], vec![]))),
        ("the Clip has another reader", |g| g.node.push(node("Relu", &["c"], &["z"], vec![]))),
        ("the product has another reader", |g| g.node.push(node("Relu", &["m"], &["z"], vec![]))),
        ("the Clip is an output", |g| g.output.push(info("c"))),
        ("another factor", |g| g.node[3].input[1] = "three".into()),
        ("a quotient the other way round", |g| g.node[3].input = vec!["six".into(), "m".into()]),
        ("from below 0", |g| set_constant(g, "zero", tensor::from_f32(&[], &[-1.0]))),
        ("no upper end", |g| g.node[1].input.truncate(2)),
        ("a shift a channel", |g| set_constant(g, "three", floats(&[3, 1, 1], 1))),
        ("a shift of more dimensions", |g| set_constant(g, "three", tensor::from_f32(&[1, 1, 1, 1, 1], &[3.0]))),
        ("a shift that can be overridden", |g| g.input.push(info("three"))),
        ("another sum", |g| g.node[0].op_type = Some("Sub".into())),
        ("another product", |g| g.node[2].op_type = Some("Add".into())),
    ];
    for (what, change) in table {
        let mut proto = swish();
        change(proto.graph.as_mut().unwrap());
        assert_unchanged(what, proto, |model| fuse_hard_sigmoids(model).unwrap());
    }
}

#[test]
fn models_with_other_floats_are_not_spelled_out() {
    let half = tensor::from_f32_as(DataType::Float16, &[1], &[1.0]);
    let nodes = vec![node("HardSwish", &["x"], &["y"], vec![]), node("Identity", &["half"], &["z"], vec![])];
    let mut model = Model::from_proto(message("x", vec![("half", half)], nodes, "y z")).unwrap();
    assert_eq!(expand_hard_sigmoids(&mut model).unwrap(), 0);
}

#[test]
fn a_value_matters_only_where_its_gate_is_open() {
    let mut model = Model::from_proto(swish()).unwrap();
    let of = |model: &Model, name: &str| floor(model.graph(), model.graph().find(name).unwrap());
    assert_eq!(of(&model, "x"), Some(-3.0));
    assert_eq!(of(&model, "s"), None);
    fuse_hard_sigmoids(&mut model).unwrap();
    expand_hard_sigmoids(&mut model).unwrap();
    assert_eq!(of(&model, "x"), Some(-3.0), "factor before the product");
    let mut proto = swish();
    proto.graph.as_mut().unwrap().node.push(node("Relu", &["x"], &["z"], vec![]));
    assert_eq!(of(&Model::from_proto(proto).unwrap(), "x"), None, "another reader");
    let mut proto = swish();
    proto.graph.as_mut().unwrap().node[2].input[0] = "one".into();
    assert_eq!(of(&Model::from_proto(proto).unwrap(), "x"), None, "another product");
}
