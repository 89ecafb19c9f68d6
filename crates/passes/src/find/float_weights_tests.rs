use onnxquant_ir::onnx::GraphProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{int_attribute, tensor};

use super::*;
use crate::testing::{body, floats, graph_attribute, model, named, node};

/// Name, operators, bytes and reason, in words.
fn lines(model: &Model) -> Vec<String> {
    let line = |found: FloatWeight| {
        let reason = match found.reason {
            FloatReason::Vector => "vector".to_owned(),
            FloatReason::OfLayer(node) => format!("weight of {}", model.graph().label(node)),
            FloatReason::Skipped(reason) => reason.to_string(),
            FloatReason::Table => "table".to_owned(),
            FloatReason::NoForm => "no form".to_owned(),
        };
        format!("{} {} {}: {reason}", found.name, found.operators.join("+"), found.bytes)
    };
    float_weights(model).into_iter().map(line).collect()
}

#[test]
fn every_float_constant_is_listed_whatever_reads_it() {
    let constants = vec![
        ("w", floats(&[6, 4], 1)),
        ("bias", floats(&[4], 2)),
        ("places", floats(&[5, 4], 3)),
        ("left", floats(&[4, 4], 4)),
        ("rows", floats(&[3, 4], 5)),
        ("index", tensor::from_i64(&[1], &[0])),
        ("turned", floats(&[4, 4], 6)),
        ("codes", tensor::from_codes(DataType::Int8, &[4, 4], [1; 16])),
        ("scales", tensor::from_f32(&[2, 4], &[0.5; 8])),
        ("unread", floats(&[2, 2], 8)),
        ("recurrent", floats(&[1, 16, 4], 9)),
    ];
    let blocks = vec![int_attribute("axis", 0), int_attribute("block_size", 2)];
    let nodes = vec![
        node("MatMul", &["x", "w"], &["a"], vec![]),
        node("Add", &["a", "bias"], &["b"], vec![]),
        node("Add", &["b", "places"], &["c"], vec![]),
        node("MatMul", &["left", "c"], &["d"], vec![]),
        node("Gather", &["rows", "index"], &["e"], vec![]),
        node("Transpose", &["turned"], &["t"], vec![]),
        node("Sub", &["d", "t"], &["f"], vec![]),
        node("DequantizeLinear", &["codes", "scales"], &["g"], blocks),
        node("LSTM", &["f", "recurrent", "recurrent"], &["h"], vec![int_attribute("hidden_size", 4)]),
    ];
    let model = model("x", constants, nodes, "e g h");
    let expected = [
        "w MatMul 96: weight of node_a",
        "bias Add 16: vector",
        "places Add 80: no form",
        "left MatMul 64: the constant is the left operand",
        "rows Gather 48: table",
        "turned Sub 64: no form",
        "scales DequantizeLinear 32: vector",
        "unread  16: no form",
        "recurrent LSTM 256: no form",
    ];
    assert_eq!(lines(&model), expected);
}

#[test]
fn constants_that_bodies_read_are_listed_and_those_in_closed_bodies() {
    let layer = node("MatMul", &["outer", "inner"], &["r"], vec![]);
    let then = GraphProto { initializer: vec![named("inner", floats(&[4, 4], 1))], ..body(vec![layer], &["r"]) };
    let other = GraphProto {
        initializer: vec![named("wide", floats(&[4, 4], 2))],
        ..body(vec![node("Add", &["x", "wide"], &["s"], vec![])], &["s"])
    };
    let branches = vec![graph_attribute("then_branch", then), graph_attribute("else_branch", other)];
    let nodes = vec![node("If", &["c"], &["y"], branches)];
    let condition = tensor::from_raw(DataType::Bool, &[], vec![1]);
    let model = model("x", vec![("outer", floats(&[4, 4], 3)), ("c", condition)], nodes, "y");
    assert_eq!(lines(&model), ["outer a body 64: a subgraph reads the weight"]);
    let graph = model.graph();
    let closed = |at: usize| -> Vec<String> {
        let found = closed_float_weights(graph, &graph.bodies()[at]);
        found.into_iter().map(|found| format!("{} {:?}", found.name, found.reason)).collect()
    };
    assert!(closed(0)[0].starts_with("inner Skipped(InsideSubgraph"), "{:?}", closed(0));
    assert_eq!(closed(1), ["wide NoForm"]);
}
