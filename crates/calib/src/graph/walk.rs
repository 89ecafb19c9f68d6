//! Ways through a graph: what nodes read, and which of them a value depends on.

use std::collections::{HashMap, HashSet};

use onnxquant_proto::onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto, type_proto::Value as TypeValue};
use onnxquant_proto::{bodies, captured_names};

use crate::tensor::ElementType;

/// The name of a node, or of its first output if it has none.
pub(crate) fn label(node: &NodeProto) -> &str {
    match node.name() {
        "" => node.output.first().map_or("", String::as_str),
        name => name,
    }
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

/// The graphs in a node's attributes.
pub(crate) fn subgraphs_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().map(AsMut::as_mut).chain(&mut a.graphs))
}

/// Drops the names of optional inputs and outputs that are left out at the end. The outputs of a Split are its parts,
/// none of which is optional.
pub(crate) fn drop_trailing_empty(node: &mut NodeProto) {
    let has_parts = node.op_type() == "Split";
    let outputs = Some(&mut node.output).filter(|_| !has_parts);
    for names in std::iter::once(&mut node.input).chain(outputs) {
        let kept = names.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        names.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;
    use onnxquant_proto::onnx::{AttributeProto, TensorProto};

    #[test]
    fn what_an_inner_graph_defines_is_not_read_from_outside() {
        let holding = |constants: &[&str], nodes: Vec<NodeProto>| {
            let constant = |name: &&str| TensorProto { name: Some((*name).into()), ..TensorProto::default() };
            let graph = GraphProto {
                output: vec![ValueInfoProto { name: Some("r".into()), ..ValueInfoProto::default() }],
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
}
