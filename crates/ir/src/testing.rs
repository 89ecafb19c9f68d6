//! What the unit tests of this crate share: messages of small models.

use onnxquant_proto::onnx::attribute_proto::AttributeType;
use onnxquant_proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};

use crate::model::Model;
use crate::tensor;

pub(crate) fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    NodeProto { op_type: Some(op_type.to_owned()), input: own(inputs), output: own(outputs), ..NodeProto::default() }
}

pub(crate) fn with(node: NodeProto, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto { attribute, ..node }
}

pub(crate) fn info(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() }
}

pub(crate) fn named(name: &str, tensor: TensorProto) -> TensorProto {
    TensorProto { name: Some(name.to_owned()), ..tensor }
}

pub(crate) fn number(name: &str) -> TensorProto {
    named(name, tensor::from_f32(&[], &[1.0]))
}

/// Names in words separated by blanks.
pub(crate) fn graph(inputs: &str, constants: &str, nodes: Vec<NodeProto>, outputs: &str) -> GraphProto {
    GraphProto {
        name: Some("g".to_owned()),
        node: nodes,
        initializer: constants.split_whitespace().map(number).collect(),
        input: inputs.split_whitespace().map(info).collect(),
        output: outputs.split_whitespace().map(info).collect(),
        ..GraphProto::default()
    }
}

pub(crate) fn message(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { version: Some(21), ..OperatorSetIdProto::default() }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

pub(crate) fn model(graph: GraphProto) -> Model {
    Model::from_proto(message(graph)).unwrap_or_else(|violations| panic!("{violations:?}"))
}

pub(crate) fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

/// An If whose branches hold `nodes` and return `result`.
pub(crate) fn branching(condition: &str, output: &str, nodes: Vec<NodeProto>, result: &str) -> NodeProto {
    let branch = |name| graph_attribute(name, graph("", "", nodes.clone(), result));
    with(node("If", &[condition], &[output]), vec![branch("then_branch"), branch("else_branch")])
}

/// An If in an If in an If ..., `depth` deep, the innermost of which reads `name`.
pub(crate) fn nested(depth: usize, name: &str) -> NodeProto {
    let inner = (1..depth).fold(node("Identity", &[name], &["deep0"]), |inner, level| {
        let result = inner.output[0].clone();
        let body = graph_attribute("then_branch", graph("", "", vec![inner.clone()], &result));
        let other = graph_attribute("else_branch", graph("", "", vec![], "c"));
        with(node("If", &["c"], &[&format!("deep{level}")]), vec![body, other])
    });
    let result = inner.output[0].clone();
    let body = graph_attribute("then_branch", graph("", "", vec![inner], &result));
    let other = graph_attribute("else_branch", graph("", "", vec![], "c"));
    with(node("If", &["c"], &["y"]), vec![body, other])
}
