//! The graph: nodes and values in arenas. How it is edited stands in the module `edit`.
//!
//! The topology (who produces, who uses, in which order) is kept here; everything else of a node or a
//! tensor stays in its protobuf message and is written back as it was read.

use std::collections::{HashMap, HashSet};

use onnxquant_proto::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use crate::domain::plain_domain;
use crate::ids::{Arena, NodeId, ValueId};

/// One operator of the graph.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) inputs: Vec<Option<ValueId>>,
    pub(crate) outputs: Vec<Option<ValueId>>,
    pub(crate) captures: Vec<ValueId>,
    pub(crate) proto: NodeProto,
}

impl Node {
    /// The operator's name, for example `Conv`.
    pub fn op_type(&self) -> &str {
        self.proto.op_type()
    }

    /// The operator's domain, empty for the default one (`ai.onnx` reads as empty).
    pub fn domain(&self) -> &str {
        plain_domain(self.proto.domain())
    }

    /// Whether this is `op_type` of the default domain.
    pub fn is(&self, op_type: &str) -> bool {
        self.domain().is_empty() && self.op_type() == op_type
    }

    /// The node's own name; may be empty.
    pub fn name(&self) -> &str {
        self.proto.name()
    }

    /// Input slots; `None` is an optional input left out.
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }

    /// Input `slot`, unless it is left out.
    pub fn input(&self, slot: usize) -> Option<ValueId> {
        self.inputs.get(slot).copied().flatten()
    }

    /// Output slots; `None` is an output left out.
    pub fn outputs(&self) -> &[Option<ValueId>] {
        &self.outputs
    }

    /// Output `slot`, unless it is left out.
    pub fn output(&self, slot: usize) -> Option<ValueId> {
        self.outputs.get(slot).copied().flatten()
    }

    /// Values of this graph that the node's subgraphs read.
    pub fn captures(&self) -> &[ValueId] {
        &self.captures
    }

    /// The attribute called `name`.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name() == name)
    }

    /// All attributes.
    pub fn attributes(&self) -> &[AttributeProto] {
        &self.proto.attribute
    }

    /// The integer attribute `name`, or `default` where it is absent.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, AttributeProto::i)
    }

    /// The float attribute `name`, or `default` where it is absent.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, AttributeProto::f)
    }

    /// The integers of attribute `name`, where it is present.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// The text of attribute `name`, or `default` where it is absent or not UTF-8.
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.attribute(name).map_or(default, |attribute| std::str::from_utf8(attribute.s()).unwrap_or(default))
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A graph input.
    Input,
    /// A graph input with a default: an initializer that callers may override (IR version 4 and later).
    Overridable,
    /// An initializer.
    Constant,
    /// Output `slot` of a node.
    Output(NodeId, usize),
}

/// One reader of a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Use {
    /// Input `slot` of a node.
    Input(NodeId, usize),
    /// Read by a subgraph of a node.
    Capture(NodeId),
    /// Output `index` of the graph.
    GraphOutput(usize),
}

/// A named value.
#[derive(Clone, Debug)]
pub struct Value {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) uses: Vec<Use>,
    pub(crate) tensor: Option<TensorProto>,
}

impl Value {
    /// The value's name, unique in the graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the value comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Everything that reads the value.
    pub fn uses(&self) -> &[Use] {
        &self.uses
    }

    /// The dense initializer of a constant or overridable value.
    pub fn tensor(&self) -> Option<&TensorProto> {
        self.tensor.as_ref()
    }

    /// The tensor of a value that no caller can override.
    pub fn constant(&self) -> Option<&TensorProto> {
        (self.origin == Origin::Constant).then_some(self.tensor.as_ref()).flatten()
    }
}

/// A graph output or input: the value and its declared type.
#[derive(Clone, Debug)]
pub struct Port {
    /// The value.
    pub value: ValueId,
    /// Its declaration as read.
    pub info: ValueInfoProto,
}

/// A computation graph.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) nodes: Arena<NodeId, Node>,
    pub(crate) values: Arena<ValueId, Value>,
    /// Nodes in execution order.
    pub(crate) order: Vec<NodeId>,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// Initializers in the order they are written.
    pub(crate) initializers: Vec<ValueId>,
    pub(crate) by_name: HashMap<String, ValueId>,
    /// Names of values and nodes, subgraphs included, that a new name must avoid.
    pub(crate) taken: HashSet<String>,
    /// Names of values that a value of a subgraph of the file has as well: there the inner one is meant.
    pub(crate) shadowed: HashSet<String>,
    /// Names of values that came along from the graph around, where the graph was opened as a body.
    pub(crate) captured: HashSet<String>,
    /// Everything of the graph message that is not above.
    pub(crate) rest: GraphProto,
}

impl Graph {
    /// Node ids in execution order.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// Nodes in execution order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.order.iter().map(|&id| (id, self.node(id)))
    }

    /// The node `id`.
    ///
    /// # Panics
    /// When `id` was removed or belongs to another graph.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id).expect("node ids are used only while the node is in the graph")
    }

    /// The value `id`.
    ///
    /// # Panics
    /// When `id` was removed or belongs to another graph.
    pub fn value(&self, id: ValueId) -> &Value {
        self.values.get(id).expect("value ids are used only while the value is in the graph")
    }

    /// All values, in the order they were first seen.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter()
    }

    /// The value called `name`.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.by_name.get(name).copied()
    }

    /// The node that makes `value`, if one does.
    pub fn producer(&self, value: ValueId) -> Option<(NodeId, &Node)> {
        match self.value(value).origin {
            Origin::Output(node, _) => Some((node, self.node(node))),
            _ => None,
        }
    }

    /// Declared inputs, initializers that are listed as inputs included.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Declared outputs.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Whether `value` is an output of the graph.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.value(value).uses.iter().any(|user| matches!(user, Use::GraphOutput(_)))
    }

    /// Initializers in the order they are written.
    pub fn initializers(&self) -> &[ValueId] {
        &self.initializers
    }

    /// The declared type of an intermediate value, where the model carries one.
    pub fn value_info(&self, name: &str) -> Option<&ValueInfoProto> {
        self.rest.value_info.iter().find(|info| info.name() == name)
    }

    /// Operator and name of a node for messages: `` `fc1` (Gemm) ``, or its first output where it has no name.
    pub fn describe(&self, node: NodeId) -> String {
        let found = self.node(node);
        format!("`{}` ({})", self.label(node), found.op_type())
    }

    /// The node's name, or its first output's where it has none.
    pub fn label(&self, node: NodeId) -> &str {
        let found = self.node(node);
        let output = found.outputs.iter().copied().flatten().next();
        match (found.name(), output) {
            ("", Some(output)) => self.values.get(output).map_or("", Value::name),
            (name, _) => name,
        }
    }
}
