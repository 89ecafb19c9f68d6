//! Bodies of If, Loop and Scan as models of their own.
//!
//! # Method
//!
//! A body is opened into a model whose graph is the body's. What the body reads of the graph around it comes along:
//! constants as initializers, so that they are constants there too, everything else as inputs behind the body's own. The
//! opened model is edited like any other, and its bodies can be opened in turn.
//!
//! When it is closed its graph takes the old body's place. Constants that came along and are as they were are read from
//! outside again; new ones go to the graph around, each once, unless the caller lets them stay. Outer constants that nobody
//! reads any more go.
//!
//! # Guarantee
//!
//! Opened and closed unchanged, a body is what it was. An opened model avoids the names of the graph around it as that was
//! when it was opened ([`Graph::avoid_names_of`] for later ones).
//!
//! Not opened: bodies of other operators, which have rules of their own, and bodies that make no valid graph.

use std::collections::HashMap;

use onnxquant_proto::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use onnxquant_proto::{captured_names, rename};

use crate::graph::{Graph, Node, Origin, Use};
use crate::ids::{NodeId, ValueId};
use crate::model::Model;
use crate::tensor;

/// Which body: of which node, under which attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BodyId {
    node: NodeId,
    attribute: String,
}

impl BodyId {
    /// The If, Loop or Scan.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// `then_branch`, `else_branch` or `body`.
    pub fn attribute(&self) -> &str {
        &self.attribute
    }
}

/// Whether the bodies of a node can be opened.
fn has_bodies(node: &Node) -> bool {
    ["If", "Loop", "Scan"].iter().any(|op_type| node.is(op_type))
}

impl Graph {
    /// The bodies of the graph's If, Loop and Scan, in topological order; not those inside them.
    pub fn bodies(&self) -> Vec<BodyId> {
        let of_node = |(node, found): (NodeId, &Node)| {
            let names = found.attributes().iter().filter(|attribute| attribute.g.is_some());
            names.map(|attribute| BodyId { node, attribute: attribute.name().to_owned() }).collect::<Vec<_>>()
        };
        self.nodes().filter(|(_, node)| has_bodies(node)).flat_map(of_node).collect()
    }

    /// The message of a body; nothing where the graph has no such body.
    pub fn body(&self, id: &BodyId) -> Option<&GraphProto> {
        self.nodes.get(id.node)?.attribute(&id.attribute)?.g.as_deref()
    }

    /// Whether the value of this name came along from the graph around, when the graph was opened as a body.
    pub fn is_captured(&self, name: &str) -> bool {
        self.captured.contains(name)
    }

    /// Lets new names differ from all that `other` has.
    pub fn avoid_names_of(&mut self, other: &Self) {
        self.taken.extend(other.taken.iter().cloned());
    }

    /// What a body reads of the graph.
    fn captured_by(&self, id: &BodyId) -> Vec<String> {
        let attribute = self.node(id.node).attribute(&id.attribute).cloned();
        let alone = NodeProto { attribute: attribute.into_iter().collect(), ..NodeProto::default() };
        captured_names(&alone).into_iter().map(str::to_owned).collect()
    }

    /// The declaration of a value, or its name alone.
    fn info_of(&self, value: ValueId) -> ValueInfoProto {
        let name = self.value(value).name();
        let input = self.inputs.iter().find(|port| port.value == value).map(|port| &port.info);
        let named = || ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
        input.or_else(|| self.value_info(name)).cloned().unwrap_or_else(named)
    }
}

impl Model {
    /// A body as a model; nothing where it makes no valid one.
    pub fn open_body(&self, id: &BodyId) -> Option<Self> {
        let mut body = self.graph.body(id)?.clone();
        let captured = self.graph.captured_by(id);
        for name in &captured {
            let value = self.graph.find(name)?;
            match self.graph.value(value).constant() {
                Some(tensor) => body.initializer.push(tensor.clone()),
                None => body.input.push(self.graph.info_of(value)),
            }
        }
        let message = ModelProto { graph: Some(body), ..self.rest.clone() };
        let mut opened = Self::from_proto(message).ok()?;
        opened.graph.avoid_names_of(&self.graph);
        opened.graph.captured = captured.into_iter().collect();
        Some(opened)
    }

    /// Puts an opened body back. New constants of 256 bytes and more become constants of the graph around, but those that
    /// have to `stay`.
    ///
    /// # Panics
    /// When the node is gone whose body it was.
    pub fn close_body(&mut self, id: &BodyId, mut body: Self, stay: &dyn Fn(&Graph, ValueId) -> bool) {
        let own: Vec<String> = self.graph.body(id).into_iter().flat_map(|old| &old.initializer).map(named).collect();
        let mut renamed = HashMap::new();
        let mut outside = Vec::new();
        for value in body.graph.initializers.clone() {
            let found = body.graph.value(value);
            let (Some(tensor), name) = (found.tensor().cloned(), found.name().to_owned()) else { continue };
            let is_captured = body.graph.is_captured(&name);
            if is_captured
                && self.graph.find(&name).is_some_and(|outer| same(self.graph.value(outer).tensor(), &tensor))
            {
                outside.push(name);
            } else if !own.contains(&name) && is_large(&tensor) && !stay(&body.graph, value) {
                let outer = self.graph.constant_like(&name, tensor);
                renamed.insert(name, self.graph.value(outer).name().to_owned());
            } else if is_captured {
                let new = body.graph.fresh_name(&name);
                renamed.insert(name, new);
            }
        }
        let formal = self.graph.body(id).map_or(0, |old| old.input.len());
        let mut closed = body.graph.to_proto();
        // Before the names change: what goes outside is no initializer of the body any more.
        closed.initializer.retain(|tensor| {
            let moved = renamed.get(tensor.name()).is_some_and(|new| self.graph.find(new).is_some());
            !moved && !outside.iter().any(|name| name == tensor.name())
        });
        closed.input.truncate(formal);
        rename(&mut closed, &renamed);
        self.graph.taken.extend(body.graph.taken);
        self.graph.set_body(id, closed);
        self.raise_ir_version(body.rest.ir_version());
        for import in &body.rest.opset_import {
            if self.opset(import.domain()).is_none() {
                self.set_opset(import.domain(), import.version());
            }
        }
    }
}

impl Graph {
    /// A constant of the graph that holds `tensor`: an equal one that is there, or a new one named `wanted` or like it.
    fn constant_like(&mut self, wanted: &str, tensor: TensorProto) -> ValueId {
        let equal = |value: &ValueId| same(self.value(*value).constant(), &tensor);
        let known = self.initializers.iter().copied().find(equal);
        known.unwrap_or_else(|| self.add_constant(wanted, tensor))
    }

    /// Replaces the body, and what its node reads with it.
    fn set_body(&mut self, id: &BodyId, body: GraphProto) {
        let node = self.node_mut(id.node);
        let place = node.proto.attribute.iter_mut().find(|attribute| attribute.name() == id.attribute);
        let place: &mut AttributeProto = place.expect("the body was found under this attribute");
        place.g = Some(Box::new(body));
        let read: Vec<String> = captured_names(&node.proto).into_iter().map(str::to_owned).collect();
        let captures: Vec<ValueId> = read.iter().filter_map(|name| self.find(name)).collect();
        let before = std::mem::replace(&mut self.node_mut(id.node).captures, captures.clone());
        for &value in before.iter().filter(|value| !captures.contains(value)) {
            self.value_mut(value).uses.retain(|user| *user != Use::Capture(id.node));
        }
        for &value in captures.iter().filter(|value| !before.contains(value)) {
            self.add_use(Some(value), Use::Capture(id.node));
        }
        for value in before {
            if self.values.get(value).is_some_and(|found| found.origin == Origin::Constant) {
                self.remove_if_unused(value);
            }
        }
    }
}

/// Smaller constants stay where they are made: shapes and axes among them are read while a graph is built.
const LEAST_BYTES: usize = 256;

fn is_large(tensor: &TensorProto) -> bool {
    tensor::to_raw(tensor).is_ok_and(|bytes| bytes.len() >= LEAST_BYTES)
}

fn named(tensor: &TensorProto) -> String {
    tensor.name().to_owned()
}

/// Whether a constant is there and has the same numbers.
fn same(known: Option<&TensorProto>, tensor: &TensorProto) -> bool {
    let head = |tensor: &TensorProto| (tensor.data_type(), tensor.dims.clone());
    known.is_some_and(|known| {
        head(known) == head(tensor)
            && (known.raw_data.is_some() && known.raw_data == tensor.raw_data
                || tensor::to_raw(known).ok().zip(tensor::to_raw(tensor).ok()).is_some_and(|(a, b)| a == b))
    })
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
