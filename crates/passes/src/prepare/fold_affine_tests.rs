use ndarray::ArrayD;
use onnxquant_ir::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto};
use onnxquant_ir::{int_attribute, ints_attribute, text_attribute};

use super::*;
use crate::testing::{
    assert_close, assert_unchanged, assert_valid, floats, image, info, message, named, node, numbers, op_types, run,
    set_constant,
};

fn matrix() -> ArrayD<f32> {
    ArrayD::from_shape_vec(vec![5, 3], numbers(15, 3)).unwrap()
}

fn constants() -> Vec<(&'static str, TensorProto)> {
    vec![
        ("w", floats(&[4, 3, 2, 2], 1)),
        ("v", floats(&[2, 4, 1, 1], 7)),
        ("u", floats(&[3, 2, 2, 2], 8)),
        ("m", floats(&[3, 4], 8)),
        ("b", floats(&[4], 2)),
        ("half", tensor::from_f32(&[1], &[0.5])),
        ("two", tensor::from_f32(&[], &[2.0])),
        ("channels", tensor::from_f32(&[1, 4, 1, 1], &[0.5, -1.0, 2.0, 3.0])),
        ("columns", tensor::from_f32(&[4], &[0.5, -1.0, 2.0, 3.0])),
    ]
}

fn step(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op_type, inputs, &[output], vec![])
}

fn conv(inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    node("Conv", inputs, &[output], attributes)
}

fn proto(nodes: Vec<NodeProto>) -> ModelProto {
    message("x", constants(), nodes, "y")
}

#[track_caller]
fn assert_folds(what: &str, nodes: Vec<NodeProto>, input: ArrayD<f32>, removed: usize, left: &[&str]) {
    let mut model = Model::from_proto(proto(nodes)).unwrap();
    let before = run(&model, &input);
    assert_eq!(fold_affine(&mut model).unwrap(), removed, "{what}");
    assert_valid(&model);
    assert_eq!(op_types(&model), left, "{what}");
    assert_close(&run(&model, &input), &before, 1e-4, what);
    assert_eq!(fold_affine(&mut model).unwrap(), 0, "{what}: idempotent");
}

#[test]
fn what_stands_behind_a_layer_is_folded() {
    let table: Vec<(&str, Vec<NodeProto>)> = vec![
        ("Mul", vec![conv(&["x", "w", "b"], "a", vec![]), step("Mul", &["a", "half"], "y")]),
        ("Mul, the other way round", vec![conv(&["x", "w"], "a", vec![]), step("Mul", &["two", "a"], "y")]),
        ("Div", vec![conv(&["x", "w", "b"], "a", vec![]), step("Div", &["a", "two"], "y")]),
        ("Add", vec![conv(&["x", "w"], "a", vec![]), step("Add", &["half", "a"], "y")]),
        ("Sub", vec![conv(&["x", "w", "b"], "a", vec![]), step("Sub", &["a", "half"], "y")]),
        ("Sub from", vec![conv(&["x", "w", "b"], "a", vec![]), step("Sub", &["two", "a"], "y")]),
        ("channels", vec![conv(&["x", "w", "b"], "a", vec![]), step("Mul", &["a", "channels"], "y")]),
    ];
    for (what, nodes) in table {
        assert_folds(what, nodes, image(), 1, &["Conv"]);
    }
    let both = vec![
        conv(&["x", "w", "b"], "a", vec![]),
        step("Mul", &["a", "channels"], "c"),
        step("Add", &["c", "half"], "y"),
    ];
    assert_folds("two in a row", both, image(), 2, &["Conv"]);
    let gemm = vec![step("Gemm", &["x", "m", "b"], "a"), step("Mul", &["a", "columns"], "y")];
    assert_folds("Gemm", gemm, matrix(), 1, &["Gemm"]);
}

#[test]
fn what_stands_before_layers_is_folded() {
    let padded = || vec![ints_attribute("pads", &[1, 1, 1, 1])];
    let scaled = vec![step("Mul", &["x", "half"], "a"), conv(&["a", "w", "b"], "y", padded())];
    assert_folds("Mul", scaled, image(), 1, &["Conv"]);
    let shifted = vec![step("Sub", &["x", "half"], "a"), conv(&["a", "w", "b"], "y", vec![])];
    assert_folds("Sub", shifted, image(), 1, &["Conv"]);
    let no_bias = vec![step("Add", &["x", "half"], "a"), conv(&["a", "w"], "y", vec![])];
    assert_folds("Add, no bias", no_bias, image(), 1, &["Conv"]);
    let both =
        vec![step("Div", &["x", "two"], "a"), step("Add", &["a", "half"], "c"), conv(&["c", "w", "b"], "y", vec![])];
    assert_folds("two in a row", both, image(), 2, &["Conv"]);
    for sum in ["Add", "Sub"] {
        let blocked = vec![
            step("Mul", &["x", "two"], "a"),
            step(sum, &["a", "half"], "c"),
            conv(&["c", "w", "b"], "y", padded()),
        ];
        assert_folds("Mul past a sum", blocked, image(), 1, &[sum, "Conv"]);
    }
    let upsampling = || node("ConvTranspose", &["a", "u"], &["y"], vec![ints_attribute("strides", &[2, 2])]);
    assert_folds("ConvTranspose", vec![step("Mul", &["x", "half"], "a"), upsampling()], image(), 1, &["ConvTranspose"]);
    let sum = proto(vec![step("Add", &["x", "half"], "a"), upsampling()]);
    assert_unchanged("edges see fewer weights", sum, |model| fold_affine(model).unwrap());
    for transposed in [0, 1] {
        let w = if transposed == 1 { "t" } else { "m" };
        let gemm = node("Gemm", &["a", w, "b"], &["y"], vec![int_attribute("transB", transposed)]);
        let mut proto = proto(vec![step("Add", &["x", "half"], "a"), gemm]);
        proto.graph.as_mut().unwrap().initializer.push(named("t", floats(&[4, 3], 9)));
        let mut model = Model::from_proto(proto).unwrap();
        let before = run(&model, &matrix());
        assert_eq!(fold_affine(&mut model).unwrap(), 1);
        assert_valid(&model);
        assert_close(&run(&model, &matrix()), &before, 1e-4, "Gemm");
    }
}

#[test]
fn biases_that_others_read_stay_theirs() {
    let nodes = vec![
        step("Add", &["x", "half"], "a"),
        conv(&["a", "w", "b"], "c", vec![]),
        conv(&["x", "other", "b"], "d", vec![]),
        step("Concat", &["c", "d"], "y"),
    ];
    let mut proto = proto(nodes);
    let graph = proto.graph.as_mut().unwrap();
    graph.initializer.push(named("other", floats(&[4, 3, 2, 2], 6)));
    graph.node[3].attribute.push(int_attribute("axis", 1));
    let mut model = Model::from_proto(proto).unwrap();
    let before = run(&model, &image());
    assert_eq!(fold_affine(&mut model).unwrap(), 1);
    assert_valid(&model);
    assert_close(&run(&model, &image()), &before, 1e-4, "shared bias");
}

#[test]
fn what_cannot_be_folded_stays_as_it_is() {
    type Change = fn(&mut GraphProto);
    let behind = || vec![conv(&["x", "w", "b"], "a", vec![]), step("Mul", &["a", "half"], "y")];
    let table: Vec<(&str, Change)> = vec![
        ("another reader", |g| g.node.push(step("Relu", &["a"], "z"))),
        ("graph output", |g| g.output.push(info("a"))),
        ("weight shared", |g| g.node.push(step("Identity", &["w"], "z"))),
        ("weight overridable", |g| g.input.push(info("w"))),
        ("constant overridable", |g| g.input.push(info("half"))),
        ("constant computed", |g| g.node[1].input[1] = "a".into()),
        ("per pixel", |g| set_constant(g, "half", floats(&[4, 4, 3], 1))),
        ("more dimensions", |g| set_constant(g, "half", tensor::from_f32(&[1, 1, 1, 1, 1], &[2.0]))),
        ("on the last axis", |g| set_constant(g, "half", floats(&[3], 1))),
        ("not finite", |g| set_constant(g, "half", tensor::from_f32(&[], &[f32::INFINITY]))),
        ("old broadcasting", |g| g.node[1].attribute.push(int_attribute("axis", 1))),
        ("one divided by the layer", |g| {
            g.node[1].op_type = Some("Div".into());
            g.node[1].input = vec!["half".into(), "a".into()];
        }),
        ("another layer", |g| g.node[0].op_type = Some("ConvTranspose".into())),
    ];
    for (what, change) in table {
        let mut proto = proto(behind());
        change(proto.graph.as_mut().unwrap());
        assert_unchanged(what, proto, |model| fold_affine(model).unwrap());
    }
    let ahead = || vec![step("Add", &["x", "half"], "a"), conv(&["a", "w", "b"], "y", vec![])];
    let table: Vec<(&str, Change)> = vec![
        ("padding", |g| g.node[1].attribute.push(ints_attribute("pads", &[0, 0, 1, 0]))),
        ("padding of its own", |g| g.node[1].attribute.push(text_attribute("auto_pad", "SAME_UPPER"))),
        ("another reader", |g| g.node.push(step("Relu", &["a"], "z"))),
        ("graph output", |g| g.output.push(info("a"))),
        ("weight shared", |g| g.node.push(step("Identity", &["w"], "z"))),
        ("bias overridable", |g| g.input.push(info("b"))),
        ("one number a channel", |g| set_constant(g, "half", floats(&[3, 1, 1], 1))),
        ("as weight", |g| g.node[1].input = vec!["x".into(), "a".into()]),
    ];
    for (what, change) in table {
        let mut proto = proto(ahead());
        change(proto.graph.as_mut().unwrap());
        assert_unchanged(what, proto, |model| fold_affine(model).unwrap());
    }
    let zero = vec![
        step("Mul", &["x", "zero"], "a"),
        step("Add", &["a", "half"], "c"),
        conv(&["c", "w", "b"], "y", vec![ints_attribute("pads", &[1, 1, 1, 1])]),
    ];
    let mut proto = proto(zero);
    proto.graph.as_mut().unwrap().initializer.push(named("zero", tensor::from_f32(&[], &[0.0])));
    assert_eq!(fold_affine(&mut Model::from_proto(proto).unwrap()).unwrap(), 0, "a factor of 0");
}
