//! What the tests of this crate share: small models, and a slow interpreter that shows what they mean.

mod interpreter;
pub mod random_graphs;

use std::collections::HashMap;

use ndarray::{Array3, ArrayD};
use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
    type_proto,
};
use onnxquant_ir::{Graph, Model, Node, NodeId, ValueId, tensor, verify};
use onnxquant_quant::{Alphabet, Granularity, LayerSolution};

pub(crate) use interpreter::run;

use crate::decode::decode_weights::alphabet;
use crate::find::sites::{Site, SkipReason, find_sites};

/// A node named like its first output with `node_` before it.
pub(crate) fn node(op_type: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    NodeProto {
        name: outputs.first().map(|name| format!("node_{name}")),
        op_type: Some(op_type.to_owned()),
        input: own(inputs),
        output: own(outputs),
        attribute,
        ..NodeProto::default()
    }
}

pub(crate) fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

pub(crate) fn info(name: &str) -> ValueInfoProto {
    let kind = type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: None };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

pub(crate) fn body(nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    let output = outputs.iter().map(|name| info(name)).collect();
    GraphProto { name: Some("g".to_owned()), node: nodes, output, ..GraphProto::default() }
}

pub(crate) fn named(name: &str, tensor: TensorProto) -> TensorProto {
    TensorProto { name: Some(name.to_owned()), ..tensor }
}

/// Opset 21, IR version 10; inputs and outputs in words separated by blanks.
pub(crate) fn message(
    inputs: &str,
    constants: Vec<(&str, TensorProto)>,
    nodes: Vec<NodeProto>,
    outputs: &str,
) -> ModelProto {
    let infos = |names: &str| names.split_whitespace().map(info).collect();
    let graph = GraphProto {
        name: Some("g".to_owned()),
        node: nodes,
        initializer: constants.into_iter().map(|(name, tensor)| named(name, tensor)).collect(),
        input: infos(inputs),
        output: infos(outputs),
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { version: Some(21), ..OperatorSetIdProto::default() }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

pub(crate) fn model(inputs: &str, constants: Vec<(&str, TensorProto)>, nodes: Vec<NodeProto>, outputs: &str) -> Model {
    Model::from_proto(message(inputs, constants, nodes, outputs)).expect("the model of a test is valid")
}

/// f32 numbers that look random and are exact in f16: multiples of 1/8 from -2 to 2.
pub(crate) fn floats(dims: &[usize], seed: usize) -> TensorProto {
    tensor::from_f32(dims, &numbers(dims.iter().product(), seed))
}

pub(crate) fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u64 * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) % 33) as f32 / 8.0 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

/// Two pictures of 3 channels.
pub(crate) fn image() -> ArrayD<f32> {
    ArrayD::from_shape_vec(vec![2, 3, 5, 4], numbers(120, 3)).expect("2 x 3 x 5 x 4 are 120")
}

/// Gives the graph another initializer of this name, or its first.
pub(crate) fn set_constant(graph: &mut GraphProto, name: &str, tensor: TensorProto) {
    graph.initializer.retain(|old| old.name() != name);
    graph.initializer.push(named(name, tensor));
}

/// The pass does nothing to this model.
#[track_caller]
pub(crate) fn assert_unchanged(what: &str, proto: ModelProto, pass: impl FnOnce(&mut Model) -> usize) {
    let mut model = Model::from_proto(proto.clone()).unwrap_or_else(|violations| panic!("{what}: {violations:?}"));
    assert_eq!(pass(&mut model), 0, "{what}");
    assert_eq!(model.to_proto(), proto, "{what}");
}

/// Numbers are the same up to `tolerance`, relative where they are large.
#[track_caller]
pub(crate) fn assert_close(found: &[ArrayD<f32>], expected: &[ArrayD<f32>], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.shape(), expected.shape(), "{what}");
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
        assert!(worst <= tolerance, "{what}: {worst}");
    }
}

pub(crate) fn sites(model: &Model) -> Vec<Result<Site, SkipReason>> {
    find_sites(model).into_iter().map(|candidate| candidate.outcome).collect()
}

/// The only layer of the model, which can be quantized.
pub(crate) fn only_site(model: &Model) -> Site {
    let mut found = sites(model);
    assert_eq!(found.len(), 1);
    found.remove(0).expect("the layer can be quantized")
}

/// All layers that can be quantized, by node.
pub(crate) fn site_map(model: &Model) -> HashMap<NodeId, Site> {
    sites(model).into_iter().flatten().map(|site| (site.node, site)).collect()
}

/// Codes that use the whole range, scales that are exact in f16.
pub(crate) fn solution(site: &Site, granularity: Granularity, low: i16, high: i16) -> LayerSolution {
    let (groups, k, m) = (site.view.groups(), site.view.inputs(), site.view.outputs());
    let block_size = if let Granularity::Block(size) = granularity { size } else { k };
    let shape = (groups, k.div_ceil(block_size), m);
    let per_scale =
        |(g, b, o): (usize, usize, usize)| if granularity == Granularity::Tensor { 0 } else { g * 5 + b * 3 + o };
    let span = usize::try_from(high - low + 1).unwrap();
    LayerSolution {
        codes: Array3::from_shape_fn((groups, k, m), |(g, i, o)| low + ((g * 31 + i * 7 + o * 13) % span) as i16),
        scales: Array3::from_shape_fn(shape, |at| (1 + per_scale(at)) as f32 / 64.0),
        zero_points: Array3::from_shape_fn(shape, |at| if low < 0 { 0 } else { 1 + (per_scale(at) % 3) as i16 % high }),
        block_size,
        alphabet: Alphabet::Integers,
        preprocessed: None,
        promise: None,
        notes: vec![],
    }
}

/// The same model with the weights that the solution means in place of the codes.
pub(crate) fn with_weights(mut model: Model, solution: &LayerSolution) -> Model {
    let site = only_site(&model);
    let weights = site.view.from_matrix(solution.dequantize().view()).unwrap();
    let weights = tensor::from_f32_as(site.dtype, weights.shape(), &weights.iter().copied().collect::<Vec<_>>());
    model.graph_mut().set_tensor(site.weight, weights);
    model
}

pub(crate) fn find_node(graph: &Graph, op_type: &str) -> Option<NodeId> {
    graph.nodes().find(|(_, node)| node.is(op_type)).map(|(id, _)| id)
}

pub(crate) fn op_types(model: &Model) -> Vec<&str> {
    model.graph().nodes().map(|(_, node)| node.op_type()).collect()
}

pub(crate) fn input_names<'a>(graph: &'a Graph, node: &Node) -> Vec<&'a str> {
    node.inputs().iter().map(|value| value.map_or("", |id| graph.value(id).name())).collect()
}

#[track_caller]
pub(crate) fn assert_valid(model: &Model) {
    assert_eq!(verify(model), []);
    let again = Model::from_proto(model.to_proto()).expect("what is written can be read");
    assert_eq!(again.to_proto(), model.to_proto());
}

pub(crate) fn array(tensor: &TensorProto) -> ArrayD<f32> {
    let floats = tensor::to_f32(tensor).map(|numbers| numbers.into_owned());
    let alphabet = tensor::data_type(tensor).map(alphabet).unwrap_or_default();
    let codes = || tensor::to_codes(tensor).map(|codes| codes.into_iter().map(|code| alphabet.value(code)).collect());
    let integers = || tensor::to_i64(tensor).map(|numbers| numbers.into_iter().map(|x| x as f32).collect());
    let numbers = floats.or_else(|_| codes()).or_else(|_| integers()).expect("a tensor of numbers");
    ArrayD::from_shape_vec(tensor::shape(tensor).unwrap(), numbers).unwrap()
}

pub(crate) fn constant_named<'a>(graph: &'a Graph, name: &str) -> &'a TensorProto {
    graph.find(name).and_then(|id: ValueId| graph.value(id).constant()).expect("the initializer is there")
}
