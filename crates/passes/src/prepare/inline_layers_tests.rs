use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{ModelProto, NodeProto};
use onnxquant_ir::{int_attribute, tensor};

use super::*;
use crate::testing::{assert_close, assert_unchanged, assert_valid, body, floats, graph_attribute, message, node, run};

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], opset: i64, nodes: Vec<NodeProto>) -> FunctionProto {
    let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    FunctionProto {
        name: Some(name.into()),
        domain: Some("pkg".into()),
        input: own(inputs),
        output: own(outputs),
        node: nodes,
        opset_import: vec![import("", opset), import("pkg", 1)],
        ..FunctionProto::default()
    }
}

fn call(name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto { domain: Some("pkg".into()), ..node(name, inputs, &[output], vec![]) }
}

fn linear(opset: i64) -> FunctionProto {
    function("Linear", &["a", "w"], &["o"], opset, vec![node("MatMul", &["a", "w"], &["o"], vec![])])
}

/// `x` of [2, 6] through the function `Block`, which calls `Linear` and `Plain`.
fn nested(opset: i64) -> ModelProto {
    let calls = vec![call("Linear", &["a", "w"], "t"), call("Plain", &["t"], "o")];
    let plain = function("Plain", &["a"], &["b"], opset, vec![node("Relu", &["a"], &["b"], vec![])]);
    let block = function("Block", &["a", "w"], &["o"], opset, calls);
    let nodes = vec![call("Block", &["x", "v"], "y"), call("Plain", &["y"], "z")];
    let mut proto = message("x", vec![("v", floats(&[6, 6], 1))], nodes, "y z");
    proto.opset_import.push(import("pkg", 1));
    proto.functions = vec![linear(opset), plain, block];
    proto
}

fn names(model: &Model) -> Vec<String> {
    model.functions().iter().map(|function| function.name().to_owned()).collect()
}

fn ops(model: &Model) -> Vec<String> {
    model.graph().nodes().map(|(_, node)| node.op_type().to_owned()).collect()
}

#[test]
fn functions_that_hold_layers_are_expanded_and_others_stay() {
    let mut model = Model::from_proto(nested(21)).unwrap();
    assert_eq!(inline_layers(&mut model), 2);
    assert_valid(&model);
    assert_eq!(ops(&model), ["MatMul", "Plain", "Plain"]);
    assert_eq!(names(&model), ["Plain"]);
    assert_eq!(inline_layers(&mut model), 0);
}

#[test]
fn models_without_such_functions_stay_as_they_are() {
    let mut proto = nested(21);
    proto.functions.retain(|function| function.name() == "Plain");
    proto.graph.as_mut().unwrap().node.remove(0);
    proto.graph.as_mut().unwrap().node[0].input[0] = "x".to_owned();
    proto.graph.as_mut().unwrap().output.remove(0);
    assert_unchanged("no layer", proto, inline_layers);
    assert_unchanged(
        "no function",
        message("x", vec![], vec![node("Relu", &["x"], &["y"], vec![])], "y"),
        inline_layers,
    );
}

#[test]
fn older_functions_are_raised_and_newer_ones_raise_the_model() {
    // Axes of a Squeeze are an input from opset 13 on.
    let squeezing = |opset: i64| {
        let squeeze = match opset {
            12 => node("Squeeze", &["b"], &["c"], vec![onnxquant_ir::ints_attribute("axes", &[0])]),
            _ => node("Identity", &["b"], &["c"], vec![]),
        };
        let nodes = vec![node("MatMul", &["a", "w"], &["b"], vec![]), squeeze];
        let mut proto = message("x", vec![("v", floats(&[6, 4], 1))], vec![call("F", &["x", "v"], "y")], "y");
        proto.opset_import.push(import("pkg", 1));
        proto.functions = vec![function("F", &["a", "w"], &["c"], opset, nodes)];
        proto
    };
    let mut older = Model::from_proto(squeezing(12)).unwrap();
    assert_eq!(inline_layers(&mut older), 1);
    assert_valid(&older);
    assert_eq!(older.opset(""), Some(21));
    let squeeze = older.graph().nodes().find(|(_, node)| node.is("Squeeze")).unwrap().1;
    assert!(squeeze.attribute("axes").is_none() && squeeze.input(1).is_some());
    let mut newer = squeezing(22);
    newer.opset_import[0].version = Some(17);
    let mut newer = Model::from_proto(newer).unwrap();
    assert_eq!(inline_layers(&mut newer), 1);
    assert_eq!((newer.opset(""), ops(&newer)), (Some(22), vec!["MatMul".to_owned(), "Identity".to_owned()]));
}

#[test]
fn functions_of_other_versions_that_cannot_be_raised_stay_and_say_why() {
    let mut proto = nested(21);
    proto.functions[0].opset_import[1].version = Some(2);
    let found = difference(&proto.opset_import, &proto.functions[0]);
    assert_eq!(found.as_deref(), Some("it is written for opset 2 of `pkg`, the model for 1"));
    let mut model = Model::from_proto(proto).unwrap();
    assert_eq!(inline_layers(&mut model), 1, "`Block` alone");
    assert_valid(&model);
    assert_eq!(
        (ops(&model), names(&model)),
        (vec!["Linear".into(), "Plain".into(), "Plain".into()], vec!["Linear".into(), "Plain".into()])
    );
    let mut older = nested(9);
    older.functions[0].node.push(node("Nonsense", &["o"], &["p"], vec![]));
    older.functions.truncate(1);
    older.graph.as_mut().unwrap().node = vec![call("Linear", &["x", "v"], "y")];
    older.graph.as_mut().unwrap().output.truncate(1);
    let found = difference(&older.opset_import, &older.functions[0]);
    assert_eq!(found.as_deref(), Some("it is written for opset 9, the model for 21"));
    assert_unchanged("an operator that nobody knows", older, inline_layers);
}

#[test]
fn calls_in_bodies_are_expanded_and_large_constants_stored_once() {
    let constant = onnxquant_ir::onnx::AttributeProto {
        name: Some("value".to_owned()),
        t: Some(Box::new(floats(&[20, 20], 3))),
        ..onnxquant_ir::onnx::AttributeProto::default()
    };
    let nodes = vec![node("Constant", &[], &["k"], vec![constant]), node("MatMul", &["a", "k"], &["o"], vec![])];
    let branch = |name: &str, result: &str| graph_attribute(name, body(vec![call("F", &["x"], result)], &[result]));
    let choose = node("If", &["c"], &["z"], vec![branch("then_branch", "t"), branch("else_branch", "e")]);
    let condition = tensor::from_raw(DataType::Bool, &[], vec![1]);
    let mut proto = message("x", vec![("c", condition)], vec![call("F", &["x"], "y"), choose], "y z");
    proto.opset_import.push(import("pkg", 1));
    proto.functions = vec![function("F", &["a"], &["o"], 21, nodes)];
    let mut model = Model::from_proto(proto).unwrap();
    assert_eq!(inline_layers(&mut model), 1);
    assert_valid(&model);
    let large = model.graph().initializers().iter().filter(|&&value| model.graph().value(value).name() == "F/k");
    assert_eq!((large.count(), model.graph().initializers().len()), (1, 2));
}

#[test]
fn an_expanded_model_computes_the_same() {
    let turned = vec![node("Gemm", &["a", "w"], &["o"], vec![int_attribute("transB", 1)])];
    let mut proto = message("x", vec![("v", floats(&[4, 6], 1))], vec![call("F", &["x", "v"], "y")], "y");
    proto.opset_import.push(import("pkg", 1));
    proto.functions = vec![function("F", &["a", "w"], &["o"], 21, turned)];
    let mut model = Model::from_proto(proto).unwrap();
    inline_layers(&mut model);
    let x = ndarray::ArrayD::from_shape_fn(vec![2, 6], |at| (at[0] * 6 + at[1]) as f32 * 0.25 - 1.0);
    let plain = vec![node("Gemm", &["x", "v"], &["y"], vec![int_attribute("transB", 1)])];
    let plain = crate::testing::model("x", vec![("v", floats(&[4, 6], 1))], plain, "y");
    assert_close(&run(&model, &x), &run(&plain, &x), 0.0, "expanded");
}
