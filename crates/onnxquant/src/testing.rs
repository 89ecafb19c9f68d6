//! Small networks for unit tests.

use onnxquant_ir::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use onnxquant_ir::{Graph, Model, ValueId, tensor};

/// An operator with one result.
pub(crate) fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// A constant.
pub(crate) fn constant(name: &str, shape: &[usize], numbers: &[f32]) -> TensorProto {
    TensorProto { name: Some(name.to_owned()), ..tensor::from_f32(shape, numbers) }
}

/// A network in opset 21.
pub(crate) fn model(inputs: &[&str], nodes: Vec<NodeProto>, constants: Vec<TensorProto>, outputs: &[&str]) -> Model {
    let info = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
    let graph = GraphProto {
        node: nodes,
        initializer: constants,
        input: inputs.iter().map(|name| info(name)).collect(),
        output: outputs.iter().map(|name| info(name)).collect(),
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(21), ..OperatorSetIdProto::default() };
    let proto =
        ModelProto { ir_version: Some(10), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() };
    Model::from_proto(proto).unwrap_or_else(|violations| panic!("{violations:?}"))
}

/// Boxes and scores in one output, scores also in a Conv; `k` is a constant.
pub(crate) fn detector() -> Model {
    let nodes = vec![
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
    ];
    model(&["x"], nodes, vec![constant("k", &[1, 1, 1, 1], &[120.0])], &["y", "z"])
}

/// The names of values, sorted.
pub(crate) fn names(graph: &Graph, values: impl IntoIterator<Item = ValueId>) -> Vec<&str> {
    let mut names: Vec<&str> = values.into_iter().map(|value| graph.value(value).name()).collect();
    names.sort_unstable();
    names
}
