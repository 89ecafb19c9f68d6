//! Graphs inside the attributes of nodes: If, Loop and Scan bodies.

use std::collections::{HashMap, HashSet};

use crate::onnx::{GraphProto, NodeProto};

/// The graphs held by the attributes of `node`.
pub fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// The nodes and, nested, those of their bodies.
pub fn all_nodes(nodes: &[NodeProto]) -> Vec<&NodeProto> {
    let inner = |node| bodies(node).flat_map(|body| all_nodes(&body.node));
    nodes.iter().flat_map(|node| std::iter::once(node).chain(inner(node).collect::<Vec<_>>())).collect()
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

/// Gives values other names in a graph: in it, and in the bodies inside it where these do not define the name themselves.
pub fn rename(graph: &mut GraphProto, names: &HashMap<String, String>) {
    let renamed = |name: &mut Option<String>| {
        if let Some(new) = name.as_ref().and_then(|name| names.get(name)) {
            *name = Some(new.clone());
        }
    };
    graph.initializer.iter_mut().for_each(|tensor| renamed(&mut tensor.name));
    let sparse = graph.sparse_initializer.iter_mut().filter_map(|sparse| sparse.values.as_mut());
    sparse.for_each(|tensor| renamed(&mut tensor.name));
    let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    infos.for_each(|info| renamed(&mut info.name));
    graph.quantization_annotation.iter_mut().for_each(|note| renamed(&mut note.tensor_name));
    for node in &mut graph.node {
        for name in node.input.iter_mut().chain(&mut node.output) {
            if let Some(new) = names.get(name) {
                name.clone_from(new);
            }
        }
        for attribute in &mut node.attribute {
            for body in attribute.g.iter_mut().map(AsMut::as_mut).chain(&mut attribute.graphs) {
                let own: HashSet<&str> = given_names(body).chain(made_names(body)).collect();
                let outer = names.iter().filter(|(name, _)| !own.contains(name.as_str()));
                let outer = outer.map(|(old, new)| (old.clone(), new.clone())).collect();
                rename(body, &outer);
            }
        }
    }
}
