//! Models of any opset.

use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::tensor_shape_proto::{Dimension, dimension};
use onnxquant_ir::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};
use onnxquant_ir::{Model, tensor, verify};

use super::raise_opset;

pub(super) const F32: DataType = DataType::Float;

pub(super) fn info(name: &str, element: DataType, dims: Option<&[i64]>) -> ValueInfoProto {
    let dim = |&dim: &i64| Dimension { value: Some(dimension::Value::DimValue(dim)), ..Dimension::default() };
    let shape = dims.map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let value = type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(element as i32), shape });
    let kind = TypeProto { value: Some(value), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

pub(super) fn node(op_type: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: outputs.iter().map(|&name| name.to_owned()).collect(),
        attribute,
        ..NodeProto::default()
    }
}

pub(super) fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

pub(super) fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

/// A graph from `x` to `y`.
pub(super) fn graph(input: ValueInfoProto, constants: Vec<(&str, TensorProto)>, nodes: Vec<NodeProto>) -> GraphProto {
    let named = |(name, tensor): (&str, TensorProto)| TensorProto { name: Some(name.to_owned()), ..tensor };
    GraphProto {
        name: Some("g".to_owned()),
        node: nodes,
        input: vec![input],
        output: vec![info("y", F32, None)],
        initializer: constants.into_iter().map(named).collect(),
        ..GraphProto::default()
    }
}

pub(super) fn message(opset: i64, graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(4),
        opset_import: vec![import("", opset), import("com.example", 3)],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

pub(super) fn model(
    opset: i64,
    dims: Option<&[i64]>,
    constants: Vec<(&str, TensorProto)>,
    nodes: Vec<NodeProto>,
) -> Model {
    Model::from_proto(message(opset, graph(info("x", F32, dims), constants, nodes))).unwrap()
}

/// One node from `x` (2 x 3 x 4 x 5) to `y`.
pub(super) fn single(opset: i64, op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> Model {
    let scales = tensor::from_f32(&[4], &[1.0, 1.0, 2.0, 2.0]);
    let mixed = tensor::from_f32(&[4], &[1.0, 1.0, 2.0, 0.5]);
    let constants = vec![("scales", scales), ("mixed", mixed), ("w", tensor::from_f32(&[3], &[1.0; 3]))];
    model(opset, Some(&[2, 3, 4, 5]), constants, vec![node(op_type, inputs, &["y"], attributes)])
}

/// Raises and checks what holds for every model; returns the number of changes.
pub(super) fn raise(model: &mut Model, target: i64) -> usize {
    let (raised, changes) = raise_opset(std::mem::take(model), target).unwrap();
    *model = raised;
    assert_eq!(verify(model), []);
    assert_eq!(model.opset(""), Some(target));
    assert_eq!(model.opset("com.example"), Some(3));
    let (_, again) = raise_opset(model.clone(), target).unwrap();
    assert_eq!(again, []);
    changes.len()
}

pub(super) fn operators(nodes: &[NodeProto]) -> String {
    nodes.iter().map(NodeProto::op_type).collect::<Vec<_>>().join(" ")
}

pub(super) fn nodes(model: &Model) -> Vec<NodeProto> {
    model.to_proto().graph.unwrap().node
}

/// The integers of the constant that the only node reads as input `slot`.
pub(super) fn argument(model: &Model, slot: usize) -> Vec<i64> {
    let (_, node) = model.graph().nodes().last().unwrap();
    tensor::to_i64(model.graph().value(node.input(slot).unwrap()).constant().unwrap()).unwrap()
}
