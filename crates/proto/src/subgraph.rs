//! Graphs inside the attributes of nodes: If, Loop and Scan bodies.

use std::collections::HashSet;

use crate::onnx::{GraphProto, NodeProto};

/// The graphs held by the attributes of `node`.
pub fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// Names of the inputs and initializers of a body.
pub fn given_names(body: &GraphProto) -> impl Iterator<Item = &str> {
    let inputs = body.input.iter().map(|input| input.name());
    let initializers = body.initializer.iter().map(|tensor| tensor.name());
    let sparse = body.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref()).map(|values| values.name());
    inputs.chain(initializers).chain(sparse)
}

/// Names of what the nodes of a body make.
pub fn made_names(body: &GraphProto) -> impl Iterator<Item = &str> {
    body.node.iter().flat_map(|node| node.output.iter().map(String::as_str))
}

/// Names that the bodies of `node` read but do not define, in order of first use, each once.
///
/// A name that a body defines means the inner value in it and in the bodies inside it, whatever the outer graph has
/// under that name; a sibling that does not define it reads the outer one.
pub fn captured_names(node: &NodeProto) -> Vec<&str> {
    let mut found = Captures { scopes: Vec::new(), seen: HashSet::new(), order: Vec::new() };
    bodies(node).for_each(|body| found.visit(body));
    found.order
}

struct Captures<'a> {
    scopes: Vec<HashSet<&'a str>>,
    seen: HashSet<&'a str>,
    order: Vec<&'a str>,
}

impl<'a> Captures<'a> {
    fn visit(&mut self, graph: &'a GraphProto) {
        self.scopes.push(given_names(graph).chain(made_names(graph)).collect());
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
            self.order.push(name);
        }
    }
}
