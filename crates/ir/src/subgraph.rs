//! What the graphs inside a node's attributes (If, Loop, Scan bodies) define.
//!
//! Subgraphs are never rewritten; the outer graph only has to know which of its values they read
//! ([`onnxquant_proto::captured_names`]), and which names it must not take.

use std::collections::{BTreeSet, HashSet};

use onnxquant_proto::onnx::{GraphProto, NodeProto, TensorProto};
use onnxquant_proto::{bodies, given_names, made_names};

use crate::graph::{Graph, Node};
use crate::ids::NodeId;

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
        names.extend(given_names(body).chain(made_names(body)).filter(|name| !name.is_empty()).map(str::to_owned));
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

/// The dense tensors in the attributes of `node` and, nested, in its bodies.
pub(crate) fn attribute_tensors(node: &NodeProto) -> Box<dyn Iterator<Item = &TensorProto> + '_> {
    let own = node.attribute.iter().flat_map(|attribute| attribute.t.as_deref().into_iter().chain(&attribute.tensors));
    let inner =
        bodies(node).flat_map(|body| body.initializer.iter().chain(body.node.iter().flat_map(attribute_tensors)));
    Box::new(own.chain(inner))
}
