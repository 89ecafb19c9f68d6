use onnxquant_ir::Model;
use onnxquant_ir::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};

use super::*;

fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// Boxes and scores in one output, scores also in a Conv; `k` is a constant.
fn detector() -> Model {
    let info = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
    let constant =
        TensorProto { name: Some("k".to_owned()), ..onnxquant_ir::tensor::from_f32(&[1, 1, 1, 1], &[120.0]) };
    let graph = GraphProto {
        node: vec![
            node("Conv", &["x", "k"], "b"),
            node("Conv", &["x", "k"], "c"),
            node("Mul", &["b", "k"], "pixels"),
            node("Sigmoid", &["c"], "scores"),
            node("Concat", &["pixels", "scores"], "both"),
            node("Transpose", &["both"], "y"),
            node("Conv", &["x", "k"], "d"),
            node("Add", &["d", "x"], "sum"),
            node("Relu", &["sum"], "r"),
            node("Conv", &["r", "k"], "z"),
        ],
        initializer: vec![constant],
        input: vec![info("x")],
        output: vec![info("y"), info("z")],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(17), ..OperatorSetIdProto::default() };
    let proto =
        ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() };
    Model::from_proto(proto).unwrap_or_else(|violations| panic!("{violations:?}"))
}

fn names(graph: &Graph, values: impl IntoIterator<Item = ValueId>) -> Vec<&str> {
    let mut names: Vec<&str> = values.into_iter().map(|value| graph.value(value).name()).collect();
    names.sort_unstable();
    names
}

#[test]
fn what_reaches_outputs_without_a_layer_in_between_is_exposed() {
    let model = detector();
    let graph = model.graph();
    let computed = exposed(graph).into_iter().filter(|value| graph.value(*value).constant().is_none());
    assert_eq!(names(graph, computed), ["b", "both", "c", "pixels", "scores", "y", "z"]);
}

#[test]
fn ranges_of_exposed_values_clip_nothing() {
    assert_eq!(unclipped(RangeMethod::Percentile(99.99)), RangeMethod::MinMax);
    assert_eq!(unclipped(RangeMethod::MeanSquaredError), RangeMethod::MinMax);
    assert_eq!(unclipped(RangeMethod::Stretched(1.25)), RangeMethod::Stretched(1.25));
}
