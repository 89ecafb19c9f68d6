//! Cuts a model down to what is needed to compute certain values, and hands it to the engine.
//!
//! - Nodes that the wanted values do not depend on are dropped, with their weights: operators
//!   that the engine lacks do no harm behind the last wanted value.
//! - Tensors of more than a few bytes are marked as external, with their index in a table as
//!   the offset. The engine asks for them one by one while it builds its own copies, so that
//!   no second copy of all weights exists on the way.
//! - Wanted values become the graph's only outputs.
//! - Rounding to a grid becomes one operator ([`fuse`]).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use onnxquant_proto::onnx::{
    GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, TypeProto, ValueInfoProto,
    tensor_proto::DataLocation,
    type_proto::{Tensor as TensorType, Value as TypeValue},
};
use onnxquant_proto::{bodies, captured_names};

use super::adapt::adapt;
use super::round_to_grid::fuse;
use crate::error::CalibError;
use crate::tensor::ElementType;

/// Smaller tensors stay in the message: the engine reads them more than once (shapes, axes).
const INLINE_BYTES: usize = 256;

/// A model made ready for the engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineModel {
    /// The model; large tensors are references into `tensors`.
    pub(crate) proto: ModelProto,
    /// Data of large tensors.
    pub(crate) tensors: Vec<Bytes>,
    /// Names of the inputs to feed, in the order of the model's inputs.
    pub(crate) inputs: Vec<String>,
    /// Whether there is a convolution.
    pub(crate) has_convolutions: bool,
    /// Whether activations are quantized.
    pub(crate) quantizes: bool,
}

/// A value that the engine is given: an input of the graph, or any value inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Feed {
    /// Its ONNX name.
    pub(crate) name: String,
    /// Its type; inputs of the graph declare theirs.
    pub(crate) element_type: Option<ElementType>,
}

/// Prepares `model` to compute `values` when samples give the values `feeds`.
pub(crate) fn engine_model(model: &ModelProto, values: &[String], feeds: &[Feed]) -> Result<EngineModel, CalibError> {
    let graph = model.graph.as_ref().ok_or_else(|| CalibError::BadModel("it has no graph".into()))?;
    check_values(graph, values)?;
    let fed: HashSet<&str> = feeds.iter().map(|feed| feed.name.as_str()).collect();
    let needed = needed_nodes(graph, values, &fed);
    let nodes: Vec<NodeProto> =
        graph.node.iter().zip(&needed).filter(|(_, n)| **n).map(|(node, _)| node.clone()).collect();
    let mut used: HashSet<String> = nodes.iter().flat_map(reads).map(str::to_owned).collect();
    used.extend(values.iter().cloned());
    let is_used = |name: &Option<String>| name.as_ref().is_some_and(|n| used.contains(n));
    let is_fed = |name: &Option<String>| name.as_deref().is_some_and(|n| fed.contains(n));
    let initializer: Vec<TensorProto> =
        graph.initializer.iter().filter(|t| is_used(&t.name) && !is_fed(&t.name)).cloned().collect();
    let constants: HashSet<&str> = initializer.iter().filter_map(|t| t.name.as_deref()).collect();
    let is_constant = |name: &Option<String>| name.as_deref().is_some_and(|n| constants.contains(n));
    let mut input: Vec<ValueInfoProto> =
        graph.input.iter().filter(|i| is_used(&i.name) && !is_constant(&i.name)).cloned().collect();
    let declared: HashSet<&str> = graph.input.iter().filter_map(|i| i.name.as_deref()).collect();
    let inner = feeds.iter().filter(|feed| used.contains(&feed.name) && !declared.contains(feed.name.as_str()));
    input.extend(inner.map(input_info));
    let inputs: Vec<String> = input.iter().filter_map(|i| i.name.clone()).collect();
    if let Some(missing) = inputs.iter().find(|name| !fed.contains(name.as_str())) {
        return Err(CalibError::BadModel(format!("no data is given for its input `{missing}`")));
    }
    let output = values.iter().map(|v| ValueInfoProto { name: Some(v.clone()), ..ValueInfoProto::default() }).collect();
    let quantizes = nodes.iter().any(|n| matches!(n.op_type(), "QuantizeLinear" | "DynamicQuantizeLinear"));
    let has_convolutions = nodes.iter().any(|n| n.op_type().contains("Conv"));
    let cut = GraphProto { node: nodes, name: graph.name.clone(), initializer, input, output, ..GraphProto::default() };
    let mut proto = ModelProto {
        ir_version: model.ir_version,
        opset_import: model.opset_import.clone(),
        graph: Some(cut),
        ..ModelProto::default()
    };
    if let Some(graph) = &mut proto.graph {
        fuse(graph, values);
    }
    adapt(&mut proto)?;
    let mut tensors = Vec::new();
    proto.graph.iter_mut().for_each(|graph| take_tensors(graph, &mut tensors));
    Ok(EngineModel { proto, tensors, inputs, has_convolutions, quantizes })
}

fn check_values(graph: &GraphProto, values: &[String]) -> Result<(), CalibError> {
    let mut known: HashSet<&str> = graph.node.iter().flat_map(|n| &n.output).map(String::as_str).collect();
    known.extend(graph.input.iter().filter_map(|i| i.name.as_deref()));
    known.extend(graph.initializer.iter().filter_map(|t| t.name.as_deref()));
    let Some(missing) = values.iter().find(|v| v.is_empty() || !known.contains(v.as_str())) else { return Ok(()) };
    let inside = graph.node.iter().flat_map(bodies).any(|g| defines(g, missing));
    let reason = if inside {
        "it is computed inside the body of an If, Loop or Scan, where only layers without calibration are possible"
    } else {
        "the graph has no value of this name"
    };
    Err(CalibError::NoSuchValue { name: missing.clone(), reason: reason.into() })
}

fn defines(graph: &GraphProto, name: &str) -> bool {
    graph.node.iter().any(|n| n.output.iter().any(|o| o == name) || bodies(n).any(|g| defines(g, name)))
}

/// Declares a value inside the graph as an input of what was cut out.
fn input_info(feed: &Feed) -> ValueInfoProto {
    let tensor = TensorType { elem_type: feed.element_type.map(ElementType::to_onnx), ..TensorType::default() };
    let r#type = TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(feed.name.clone()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

/// Marks the nodes that `values` depend on when those named `given` are known.
pub(crate) fn needed_nodes(graph: &GraphProto, values: &[String], given: &HashSet<&str>) -> Vec<bool> {
    let outputs = graph.node.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i)));
    let producer: HashMap<&str, usize> = outputs.filter(|(o, _)| !o.is_empty() && !given.contains(o)).collect();
    let mut needed = vec![false; graph.node.len()];
    let mut open: Vec<usize> = values.iter().filter_map(|v| producer.get(v.as_str()).copied()).collect();
    while let Some(index) = open.pop() {
        if std::mem::replace(&mut needed[index], true) {
            continue;
        }
        open.extend(reads(&graph.node[index]).filter_map(|name| producer.get(name).copied()));
    }
    needed
}

/// The outputs of a model's graph that can be observed: tensors of numbers or booleans, and
/// those whose type is not declared.
pub fn graph_outputs(model: &ModelProto) -> Vec<String> {
    let observable = |info: &&ValueInfoProto| match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(tensor)) => ElementType::from_onnx(tensor.elem_type()).is_some(),
        Some(_) => false,
        None => true,
    };
    let outputs = model.graph.iter().flat_map(|g| &g.output).filter(observable);
    outputs.filter_map(|o| o.name.clone()).collect()
}

/// Names of values of its graph that a node or the graphs inside it read. A name that an inner graph defines means the
/// inner value there.
pub(crate) fn reads(node: &NodeProto) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).chain(captured_names(node))
}

/// The graphs in a node's attributes.
pub(crate) fn subgraphs_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().map(AsMut::as_mut).chain(&mut a.graphs))
}

/// All nodes of a graph and of the graphs inside it.
pub(crate) fn all_nodes(graph: &GraphProto) -> Vec<&NodeProto> {
    let mut graphs = vec![graph];
    let mut nodes = Vec::new();
    while let Some(graph) = graphs.pop() {
        nodes.extend(&graph.node);
        graphs.extend(graph.node.iter().flat_map(bodies));
    }
    nodes
}

/// Moves the data of large tensors into the table.
fn take_tensors(graph: &mut GraphProto, table: &mut Vec<Bytes>) {
    graph.value_info.clear();
    graph.doc_string = None;
    for tensor in &mut graph.initializer {
        take_tensor(tensor, table);
    }
    for node in &mut graph.node {
        node.doc_string = None;
        for attribute in &mut node.attribute {
            attribute.t.iter_mut().for_each(|t| take_tensor(t, table));
            attribute.tensors.iter_mut().for_each(|t| take_tensor(t, table));
            attribute.g.iter_mut().for_each(|g| take_tensors(g, table));
            attribute.graphs.iter_mut().for_each(|g| take_tensors(g, table));
        }
    }
}

fn take_tensor(tensor: &mut TensorProto, table: &mut Vec<Bytes>) {
    let large = tensor.raw_data.take_if(|raw| raw.len() > INLINE_BYTES);
    let Some(raw) = large else { return };
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
    tensor.data_location = Some(DataLocation::External.into());
    tensor.external_data = vec![
        entry("location", ".".into()),
        entry("offset", table.len().to_string()),
        entry("length", raw.len().to_string()),
    ];
    table.push(raw);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;
    use onnxquant_proto::onnx::AttributeProto;

    fn named(name: &str) -> ValueInfoProto {
        ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() }
    }

    fn feeds(names: &[&str]) -> Vec<Feed> {
        let feed = |name: &&str| Feed { name: (*name).into(), element_type: None };
        names.iter().map(feed).collect()
    }

    fn model(graph: GraphProto) -> ModelProto {
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    fn chain() -> ModelProto {
        let weight =
            TensorProto { name: Some("w".into()), raw_data: Some(vec![0; 1000].into()), ..TensorProto::default() };
        model(GraphProto {
            node: vec![node("MatMul", &["x", "w"], "y"), node("Odd", &["y", "z"], "out")],
            initializer: vec![weight],
            input: vec![named("x"), named("z")],
            ..GraphProto::default()
        })
    }

    #[test]
    fn nodes_and_inputs_behind_the_wanted_value_are_dropped() {
        let cut = engine_model(&chain(), &["y".into()], &feeds(&["x", "z"])).unwrap();
        let graph = cut.proto.graph.unwrap();
        assert_eq!((graph.node.len(), cut.inputs), (1, vec!["x".to_owned()]));
        assert_eq!((cut.tensors.len(), graph.initializer[0].raw_data.as_ref()), (1, None));
        assert_eq!(graph.output[0].name(), "y");
    }

    #[test]
    fn what_makes_a_value_that_is_given_is_dropped() {
        let given = Feed { name: "y".into(), element_type: Some(ElementType::F32) };
        let cut = engine_model(&chain(), &["out".into()], &[feeds(&["x", "z"]), vec![given]].concat()).unwrap();
        let graph = cut.proto.graph.unwrap();
        assert_eq!((graph.node.len(), cut.inputs), (1, vec!["z".to_owned(), "y".to_owned()]));
        assert!(graph.initializer.is_empty());
        let Some(TypeValue::TensorType(tensor)) = graph.input[1].r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            panic!("a tensor is declared")
        };
        assert_eq!(tensor.elem_type(), 1);
    }

    #[test]
    fn a_default_is_replaced_only_if_the_input_is_fed() {
        let mut model = chain();
        let graph = model.graph.as_mut().unwrap();
        graph.input.push(named("w"));
        let inputs = |fed: &[&str]| engine_model(&model, &["y".into()], &feeds(fed)).unwrap().inputs;
        assert_eq!(inputs(&["x"]), ["x"]);
        assert_eq!(inputs(&["x", "w"]), ["x", "w"]);
        assert!(engine_model(&model, &["y".into()], &feeds(&["w"])).is_err(), "x is not fed");
    }

    #[test]
    fn what_an_inner_graph_defines_is_not_read_from_outside() {
        let holding = |constants: &[&str], nodes: Vec<NodeProto>| {
            let constant = |name: &&str| TensorProto { name: Some((*name).into()), ..TensorProto::default() };
            let graph = GraphProto {
                output: vec![named("r")],
                node: nodes,
                initializer: constants.iter().map(constant).collect(),
                ..GraphProto::default()
            };
            AttributeProto { g: Some(Box::new(graph)), ..AttributeProto::default() }
        };
        let add = || vec![node("Add", &["a", "w"], "r")];
        let mut branch = node("If", &["c"], "r");
        branch.attribute = vec![holding(&["a"], add()), holding(&[], add())];
        let mut outer = node("Loop", &["n", ""], "y");
        outer.attribute = vec![holding(&["w"], vec![branch])];
        assert_eq!(reads(&outer).collect::<Vec<_>>(), ["n", "c", "a"]);
    }

    #[test]
    fn unknown_and_inner_values_are_errors_that_name_them() {
        let mut model = chain();
        let body = GraphProto { node: vec![node("Relu", &["y"], "inner")], ..GraphProto::default() };
        let mut branch = node("If", &["c"], "o");
        branch.attribute.push(AttributeProto { g: Some(Box::new(body)), ..AttributeProto::default() });
        model.graph.as_mut().unwrap().node.push(branch);
        for (name, expected) in [("inner", "inside the body"), ("nothing", "no value of this name"), ("", "no value")] {
            let message = engine_model(&model, &[name.into()], &feeds(&["x"])).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains(&format!("`{name}`")), "{message}");
        }
    }
}
