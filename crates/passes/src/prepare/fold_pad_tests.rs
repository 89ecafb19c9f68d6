use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use onnxquant_ir::{float_attribute, text_attribute};

use super::*;
use crate::prepare::fold_integers::fold_integers;
use crate::testing::{
    assert_unchanged, assert_valid, body, floats, graph_attribute, image, info, message, node, op_types, run,
    set_constant,
};

/// Before each of four dimensions, then after each.
const PADS: [i64; 8] = [0, 0, 2, 0, 0, 0, 1, 1];

fn list(numbers: &[i64]) -> TensorProto {
    tensor::from_i64(&[numbers.len()], numbers)
}

fn conv(input: &str, output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    node("Conv", &[input, "w"], &[output], attributes)
}

fn pad(inputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    node("Pad", inputs, &["p"], attributes)
}

fn proto(constants: Vec<(&str, TensorProto)>, nodes: Vec<NodeProto>, outputs: &str) -> ModelProto {
    let constants = constants.into_iter().chain([("w", floats(&[4, 3, 2, 2], 1))]).collect();
    message("x", constants, nodes, outputs)
}

fn plain() -> ModelProto {
    let nodes = vec![pad(&["x", "pads", "zero"], vec![]), conv("p", "y", vec![])];
    proto(vec![("pads", list(&PADS)), ("zero", tensor::from_f32(&[], &[0.0]))], nodes, "y")
}

fn pads_of(model: &Model) -> Vec<&[i64]> {
    model.graph().nodes().filter_map(|(_, node)| node.ints("pads")).collect()
}

#[test]
fn pad_before_a_conv_is_folded_and_keeps_the_outputs() {
    let attribute = || vec![ints_attribute("pads", &PADS), text_attribute("mode", "constant")];
    let own = || vec![ints_attribute("pads", &[1, 0, 0, 2])];
    let valid = || vec![text_attribute("auto_pad", "VALID"), ints_attribute("kernel_shape", &[2, 2])];
    let spatial = || vec![("pads", list(&[2, 0, 1, 1])), ("axes", list(&[2, 3]))];
    let turned = || vec![("pads", list(&[0, 2, 1, 1])), ("axes", list(&[-1, -2]))];
    let half = tensor::from_f32_as(DataType::Float16, &[1], &[-0.0]);
    let by_input = |inputs: &[&str]| vec![pad(inputs, vec![]), conv("p", "y", vec![])];
    let table: Vec<(&str, ModelProto, &[&[i64]])> = vec![
        ("input", proto(vec![("pads", list(&PADS))], by_input(&["x", "pads"]), "y"), &[&[2, 0, 1, 1]]),
        ("input, value", plain(), &[&[2, 0, 1, 1]]),
        (
            "value of another type",
            proto(vec![("pads", list(&PADS)), ("zero", half)], by_input(&["x", "pads", "zero"]), "y"),
            &[&[2, 0, 1, 1]],
        ),
        ("attribute", proto(vec![], vec![pad(&["x"], attribute()), conv("p", "y", vec![])], "y"), &[&[2, 0, 1, 1]]),
        ("conv with pads", proto(vec![], vec![pad(&["x"], attribute()), conv("p", "y", own())], "y"), &[&[3, 0, 1, 3]]),
        ("VALID", proto(vec![], vec![pad(&["x"], attribute()), conv("p", "y", valid())], "y"), &[&[2, 0, 1, 1]]),
        ("axes", proto(spatial(), by_input(&["x", "pads", "", "axes"]), "y"), &[&[2, 0, 1, 1]]),
        ("axes from the end", proto(turned(), by_input(&["x", "pads", "", "axes"]), "y"), &[&[2, 0, 1, 1]]),
        (
            "two convs",
            proto(vec![], vec![pad(&["x"], attribute()), conv("p", "y", own()), conv("p", "z", vec![])], "y z"),
            &[&[3, 0, 1, 3], &[2, 0, 1, 1]],
        ),
    ];
    for (what, proto, pads) in table {
        let mut model = Model::from_proto(proto).unwrap();
        let before = run(&model, &image());
        assert_eq!(fold_pads(&mut model).unwrap(), 1, "{what}");
        assert_valid(&model);
        assert!(op_types(&model).iter().all(|&op_type| op_type == "Conv"), "{what}");
        assert_eq!(pads_of(&model), pads, "{what}");
        assert_eq!(run(&model, &image()), before, "{what}");
        assert_eq!(model.graph().initializers().len(), 1, "{what}: the arguments go");
        assert!(model.graph().nodes().all(|(_, node)| node.attribute("auto_pad").is_none()), "{what}");
        assert_eq!(fold_pads(&mut model).unwrap(), 0, "{what}: idempotent");
    }
}

#[test]
fn pad_that_cannot_be_folded_stays_as_it_is() {
    type Change = fn(&mut GraphProto);
    let table: Vec<(&str, Change)> = vec![
        ("mode", |g| g.node[0].attribute.push(text_attribute("mode", "reflect"))),
        ("value", |g| set_constant(g, "zero", tensor::from_f32(&[], &[1.0]))),
        ("value of integers", |g| set_constant(g, "zero", list(&[0]))),
        ("value as attribute", |g| g.node[0].attribute.push(float_attribute("value", 0.5))),
        ("computed value", |g| g.node[0].input[2] = "x".into()),
        ("overridable value", |g| g.input.push(info("zero"))),
        ("overridable pads", |g| g.input.push(info("pads"))),
        ("computed pads", |g| g.node[0].input[1] = "x".into()),
        ("no pads", |g| g.node[0].input[1] = String::new()),
        ("too few pads", |g| set_constant(g, "pads", list(&PADS[..6]))),
        ("channels", |g| set_constant(g, "pads", list(&[0, 1, 0, 0, 0, 0, 0, 0]))),
        ("batch", |g| set_constant(g, "pads", list(&[0, 0, 0, 0, 1, 0, 0, 0]))),
        ("negative", |g| set_constant(g, "pads", list(&[0, 0, 2, 0, 0, 0, 1, -1]))),
        ("overflow", |g| {
            set_constant(g, "pads", list(&[0, 0, i64::MAX, 0, 0, 0, 0, 0]));
            g.node[1].attribute.push(ints_attribute("pads", &[1, 0, 0, 0]));
        }),
        ("axis twice", |g| {
            set_constant(g, "pads", list(&[1, 1, 1, 1]));
            set_constant(g, "axes", list(&[2, -2]));
            g.node[0].input.push("axes".into());
        }),
        ("axis that is none", |g| {
            set_constant(g, "pads", list(&[1, 1]));
            set_constant(g, "axes", list(&[4]));
            g.node[0].input.push("axes".into());
        }),
        ("computed axes", |g| g.node[0].input.push("x".into())),
        ("SAME_UPPER", |g| g.node[1].attribute.push(text_attribute("auto_pad", "SAME_UPPER"))),
        ("VALID with pads", |g| {
            let pads = ints_attribute("pads", &[1, 0, 0, 0]);
            g.node[1].attribute.extend([text_attribute("auto_pad", "VALID"), pads]);
        }),
        ("pads of the conv", |g| g.node[1].attribute.push(ints_attribute("pads", &[1, 1]))),
        ("negative pads of the conv", |g| g.node[1].attribute.push(ints_attribute("pads", &[-1, 0, 0, 0]))),
        ("computed weight", |g| g.node[1].input[1] = "x".into()),
        ("as the weight", |g| g.node[1].input = vec!["x".into(), "p".into()]),
        ("as data and weight", |g| g.node[1].input = vec!["p".into(), "p".into()]),
        ("another reader", |g| g.node.push(node("Relu", &["p"], &["z"], vec![]))),
        ("other layer", |g| g.node[1].op_type = Some("ConvTranspose".into())),
        ("graph output", |g| g.output.push(info("p"))),
        ("captured", |g| {
            let branch = |name: &str| body(vec![node("Identity", &["p"], &[name], vec![])], &[name]);
            let bodies = vec![graph_attribute("then_branch", branch("t")), graph_attribute("else_branch", branch("e"))];
            g.node.push(node("If", &["x"], &["z"], bodies));
        }),
        ("unread", |g| g.node[1].input[0] = "x".into()),
        ("no data", |g| g.node[0].input[0] = String::new()),
    ];
    for (what, change) in table {
        let mut proto = plain();
        change(proto.graph.as_mut().unwrap());
        assert_unchanged(what, proto, |model| fold_pads(model).unwrap());
    }
}

#[test]
fn pads_in_a_row_are_folded_all() {
    let first = node("Pad", &["x", "pads"], &["q"], vec![]);
    let nodes = vec![first, pad(&["q", "pads"], vec![]), conv("p", "y", vec![])];
    let mut model = Model::from_proto(proto(vec![("pads", list(&PADS))], nodes, "y")).unwrap();
    let before = run(&model, &image());
    assert_eq!(fold_pads(&mut model).unwrap(), 2);
    assert_valid(&model);
    assert_eq!(pads_of(&model), [[4, 0, 2, 2]]);
    assert_eq!(run(&model, &image()), before);
}

#[test]
fn amounts_shared_with_another_pad_stay() {
    let other = node("Pad", &["x", "pads"], &["z"], vec![]);
    let nodes = vec![pad(&["x", "pads"], vec![]), conv("p", "y", vec![]), other];
    let mut model = Model::from_proto(proto(vec![("pads", list(&PADS))], nodes, "y z")).unwrap();
    assert_eq!(fold_pads(&mut model).unwrap(), 1);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Conv", "Pad"]);
}

#[test]
fn pad_of_computed_amounts_is_folded_after_they_are() {
    let nodes =
        vec![node("Identity", &["pads"], &["same"], vec![]), pad(&["x", "same"], vec![]), conv("p", "y", vec![])];
    let mut model = Model::from_proto(proto(vec![("pads", list(&PADS))], nodes, "y")).unwrap();
    assert_eq!(fold_pads(&mut model).unwrap(), 0);
    assert_eq!(fold_integers(&mut model), 1);
    assert_eq!(fold_pads(&mut model).unwrap(), 1);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Conv"]);
}
