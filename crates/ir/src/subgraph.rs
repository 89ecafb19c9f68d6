//! What the graphs inside a node's attributes (If, Loop, Scan bodies) define and capture.
//!
//! Subgraphs are never rewritten; the outer graph only has to know which of its values they read, and
//! which names it must not take.

use std::collections::{BTreeSet, HashSet};

use onnxquant_proto::onnx::{GraphProto, NodeProto, TensorProto};

use crate::graph::{Graph, Node};
use crate::ids::NodeId;

/// The graphs held by the attributes of `node`.
pub(crate) fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// Names that the bodies of `node` read but do not define, in order of first use, each once.
///
/// A name that a body defines means the inner value in it and in the bodies inside it, whatever the outer graph has
/// under that name; a sibling that does not define it reads the outer one.
pub(crate) fn captured_names(node: &NodeProto) -> Vec<String> {
    let mut found = Captures { scopes: Vec::new(), seen: HashSet::new(), order: Vec::new() };
    bodies(node).for_each(|body| found.visit(body));
    found.order
}

/// Every value and node name that the bodies of `node` define, nested ones included.
pub(crate) fn defined_names(node: &NodeProto, names: &mut HashSet<String>) {
    defined_values(node, names);
    for inner in bodies(node).flat_map(|body| &body.node) {
        names.extend(inner.name.clone());
        defined_names(inner, names);
    }
}

/// Every value name that the bodies of `node` define, nested ones included.
fn defined_values(node: &NodeProto, names: &mut HashSet<String>) {
    for body in all_bodies(node) {
        names.extend(given(body).chain(made(body)).filter(|name| !name.is_empty()).map(str::to_owned));
    }
}

/// The graphs held by the attributes of `node`, nested ones included.
fn all_bodies(node: &NodeProto) -> Vec<&GraphProto> {
    let mut found = bodies(node).collect::<Vec<_>>();
    let mut next = 0;
    while let Some(&body) = found.get(next) {
        found.extend(body.node.iter().flat_map(bodies));
        next += 1;
    }
    found
}

/// Names of values of `graph` that are also among the `names` of the bodies of its nodes, with the node, in order.
pub(crate) fn shadowed_names<'a, N: Iterator<Item = &'a str>>(
    graph: &'a Graph,
    names: impl Fn(&'a GraphProto) -> N,
) -> Vec<(NodeId, &'a str)> {
    let of_node = |(id, node): (NodeId, &'a Node)| {
        let inner = all_bodies(&node.proto).into_iter().flat_map(&names);
        let shadowed: BTreeSet<&str> = inner.filter(|name| graph.find(name).is_some()).collect();
        shadowed.into_iter().map(move |name| (id, name))
    };
    graph.nodes().flat_map(of_node).collect()
}

/// Names of the inputs and initializers of a body.
pub(crate) fn given(body: &GraphProto) -> impl Iterator<Item = &str> {
    let inputs = body.input.iter().map(|input| input.name());
    let initializers = body.initializer.iter().map(|tensor| tensor.name());
    let sparse = body.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref()).map(|values| values.name());
    inputs.chain(initializers).chain(sparse)
}

/// Names of what the nodes of a body make.
pub(crate) fn made(body: &GraphProto) -> impl Iterator<Item = &str> {
    body.node.iter().flat_map(|node| node.output.iter().map(String::as_str))
}

/// The dense tensors in the attributes of `node` and, nested, in its bodies.
pub(crate) fn attribute_tensors(node: &NodeProto) -> Box<dyn Iterator<Item = &TensorProto> + '_> {
    let own = node.attribute.iter().flat_map(|attribute| attribute.t.as_deref().into_iter().chain(&attribute.tensors));
    let inner =
        bodies(node).flat_map(|body| body.initializer.iter().chain(body.node.iter().flat_map(attribute_tensors)));
    Box::new(own.chain(inner))
}

struct Captures<'a> {
    scopes: Vec<HashSet<&'a str>>,
    seen: HashSet<&'a str>,
    order: Vec<String>,
}

impl<'a> Captures<'a> {
    fn visit(&mut self, graph: &'a GraphProto) {
        self.scopes.push(given(graph).chain(made(graph)).collect());
        for node in &graph.node {
            node.input.iter().for_each(|name| self.read(name));
            bodies(node).for_each(|body| self.visit(body));
        }
        graph.output.iter().for_each(|output| self.read(output.name()));
        self.scopes.pop();
    }

    fn read(&mut self, name: &'a str) {
        let defined_inside = self.scopes.iter().any(|scope| scope.contains(name));
        if !name.is_empty() && !defined_inside && self.seen.insert(name) {
            self.order.push(name.to_owned());
        }
    }
}
