//! Cuts a model down to what is needed to compute certain values.
//!
//! - Nodes that the wanted values do not depend on are dropped, with their weights: operators that an engine lacks do no
//!   harm behind the last wanted value.
//! - What makes a value that is given is dropped likewise; the value becomes an input.
//! - Wanted values become the graph's only outputs.

use std::collections::HashSet;

use onnxquant_proto::bodies;
use onnxquant_proto::onnx::{
    GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto,
    type_proto::{Tensor as TensorType, Value as TypeValue},
};

use super::contract::Feed;
use crate::error::CalibError;
use crate::graph::{needed_nodes, reads};
use crate::tensor::ElementType;

/// Part of a model.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The model with this part as its graph.
    pub model: ModelProto,
    /// Names of the inputs to feed, in the order of the graph's inputs.
    pub inputs: Vec<String>,
}

/// What `model` needs to compute `values` when samples give the values `feeds`: for engines, which need not cut by
/// themselves.
///
/// # Errors
/// The model has no graph or no such values, or they depend on an input that is not given.
pub fn cut(model: &ModelProto, values: &[String], feeds: &[Feed]) -> Result<Cut, CalibError> {
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
    let graph =
        GraphProto { node: nodes, name: graph.name.clone(), initializer, input, output, ..GraphProto::default() };
    let model = ModelProto {
        ir_version: model.ir_version,
        opset_import: model.opset_import.clone(),
        graph: Some(graph),
        ..ModelProto::default()
    };
    Ok(Cut { model, inputs })
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
        let part = cut(&chain(), &["y".into()], &feeds(&["x", "z"])).unwrap();
        let graph = part.model.graph.unwrap();
        assert_eq!((graph.node.len(), part.inputs), (1, vec!["x".to_owned()]));
        assert_eq!(graph.initializer.len(), 1);
        assert_eq!(graph.output[0].name(), "y");
    }

    #[test]
    fn what_makes_a_value_that_is_given_is_dropped() {
        let given = Feed { name: "y".into(), element_type: Some(ElementType::F32) };
        let part = cut(&chain(), &["out".into()], &[feeds(&["x", "z"]), vec![given]].concat()).unwrap();
        let graph = part.model.graph.unwrap();
        assert_eq!((graph.node.len(), part.inputs), (1, vec!["z".to_owned(), "y".to_owned()]));
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
        let inputs = |fed: &[&str]| cut(&model, &["y".into()], &feeds(fed)).unwrap().inputs;
        assert_eq!(inputs(&["x"]), ["x"]);
        assert_eq!(inputs(&["x", "w"]), ["x", "w"]);
        assert!(cut(&model, &["y".into()], &feeds(&["w"])).is_err(), "x is not fed");
    }

    #[test]
    fn unknown_and_inner_values_are_errors_that_name_them() {
        let mut model = chain();
        let body = GraphProto { node: vec![node("Relu", &["y"], "inner")], ..GraphProto::default() };
        let mut branch = node("If", &["c"], "o");
        branch.attribute.push(AttributeProto { g: Some(Box::new(body)), ..AttributeProto::default() });
        model.graph.as_mut().unwrap().node.push(branch);
        for (name, expected) in [("inner", "inside the body"), ("nothing", "no value of this name"), ("", "no value")] {
            let message = cut(&model, &[name.into()], &feeds(&["x"])).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains(&format!("`{name}`")), "{message}");
        }
    }
}
