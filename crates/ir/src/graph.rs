//! The graph: nodes and values in arenas, edited only through methods that keep both sides of every edge in step.
//!
//! The topology (who produces, who uses, in which order) is kept here; everything else of a node or a
//! tensor stays in its protobuf message and is written back as it was read.

use std::collections::{HashMap, HashSet};

use onnxquant_proto::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use crate::error::GraphError;
use crate::ids::{Arena, NodeId, ValueId};
use crate::model::plain_domain;

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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// Everything of the graph message that is not above.
    pub(crate) rest: GraphProto,
}

/// What a new node is made of.
#[derive(Clone, Debug, Default)]
pub struct NewNode {
    /// Operator of the default domain.
    pub op_type: &'static str,
    /// Wanted node name; made unique.
    pub name: String,
    /// Input values.
    pub inputs: Vec<Option<ValueId>>,
    /// Wanted output names; made unique.
    pub outputs: Vec<String>,
    /// Attributes.
    pub attributes: Vec<AttributeProto>,
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

    /// A name that nothing in the graph or its subgraphs has: `wanted`, or `wanted_1`, `wanted_2`, ...
    pub fn fresh_name(&mut self, wanted: &str) -> String {
        let free = |name: &String| !name.is_empty() && !self.taken.contains(name);
        let name = std::iter::once(wanted.to_owned())
            .chain((1u64..).map(|suffix| format!("{wanted}_{suffix}")))
            .find(free)
            .expect("the numbers do not end before a free name is found");
        self.taken.insert(name.clone());
        name
    }

    /// Adds an initializer named `wanted` or, when that is taken, like it.
    pub fn add_constant(&mut self, wanted: &str, mut tensor: TensorProto) -> ValueId {
        let name = self.fresh_name(wanted);
        tensor.name = Some(name.clone());
        let id = self.new_value(name, Origin::Constant, Some(tensor));
        self.initializers.push(id);
        id
    }

    /// Inserts a node before `anchor` in execution order; its inputs must be available there.
    pub fn insert_before(&mut self, anchor: NodeId, new: NewNode) -> NodeId {
        let position = self.position(anchor);
        self.insert_at(position, new)
    }

    /// Inserts a node after `anchor` in execution order.
    pub fn insert_after(&mut self, anchor: NodeId, new: NewNode) -> NodeId {
        let position = self.position(anchor) + 1;
        self.insert_at(position, new)
    }

    fn position(&self, node: NodeId) -> usize {
        self.order.iter().position(|&id| id == node).expect("every live node is in the order")
    }

    fn insert_at(&mut self, position: usize, new: NewNode) -> NodeId {
        let name = if new.name.is_empty() { String::new() } else { self.fresh_name(&new.name) };
        let id = self.nodes.push(Node {
            inputs: new.inputs,
            outputs: Vec::new(),
            captures: Vec::new(),
            proto: NodeProto {
                name: (!name.is_empty()).then_some(name),
                op_type: Some(new.op_type.to_owned()),
                attribute: new.attributes,
                ..NodeProto::default()
            },
        });
        let outputs = new.outputs.iter().enumerate().map(|(slot, wanted)| {
            let name = self.fresh_name(wanted);
            Some(self.new_value(name, Origin::Output(id, slot), None))
        });
        let outputs = outputs.collect::<Vec<_>>();
        let inputs = self.node(id).inputs.clone();
        self.node_mut(id).outputs = outputs;
        for (slot, value) in inputs.into_iter().enumerate() {
            self.add_use(value, Use::Input(id, slot));
        }
        self.order.insert(position, id);
        id
    }

    /// Makes input `slot` of `node` read `value`; slots up to it are created as left out.
    pub fn set_input(&mut self, node: NodeId, slot: usize, value: Option<ValueId>) {
        let inputs = &mut self.node_mut(node).inputs;
        if inputs.len() <= slot {
            inputs.resize(slot + 1, None);
        }
        let old = std::mem::replace(&mut inputs[slot], value);
        self.drop_use(old, Use::Input(node, slot));
        self.add_use(value, Use::Input(node, slot));
    }

    /// Drops the inputs of `node` from `len` on.
    pub fn truncate_inputs(&mut self, node: NodeId, len: usize) {
        for slot in len..self.node(node).inputs.len() {
            self.set_input(node, slot, None);
        }
        self.node_mut(node).inputs.truncate(len);
    }

    /// Drops the outputs of `node` from `len` on, which must be unused.
    pub fn truncate_outputs(&mut self, node: NodeId, len: usize) -> Result<(), GraphError> {
        let dropped = self.node(node).outputs.iter().skip(len).copied().flatten().collect::<Vec<_>>();
        dropped.iter().try_for_each(|&value| self.check_unused(value))?;
        dropped.into_iter().for_each(|value| self.forget(value));
        self.node_mut(node).outputs.truncate(len);
        Ok(())
    }

    /// Makes every node input that reads `old` read `new`.
    ///
    /// Refused when a subgraph captures `old` or it is a graph output: their names must stay.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) -> Result<(), GraphError> {
        let uses = self.value(old).uses.clone();
        if uses.iter().any(|user| !matches!(user, Use::Input(..))) {
            return Err(GraphError::NamePinned { value: self.value(old).name.clone() });
        }
        for user in uses {
            if let Use::Input(node, slot) = user {
                self.set_input(node, slot, Some(new));
            }
        }
        Ok(())
    }

    /// Lets `node` write `value`, which so far nothing or another node wrote, as output `slot`.
    ///
    /// The value keeps its name and users; the former output in that slot must be unused and is removed.
    pub fn take_over_output(&mut self, node: NodeId, slot: usize, value: ValueId) -> Result<(), GraphError> {
        if let Some(old) = self.node(node).output(slot).filter(|&old| old != value) {
            self.check_unused(old)?;
            self.forget(old);
        }
        if let Origin::Output(former, former_slot) = self.value(value).origin {
            self.node_mut(former).outputs[former_slot] = None;
        }
        self.node_mut(node).outputs[slot] = Some(value);
        self.value_mut(value).origin = Origin::Output(node, slot);
        Ok(())
    }

    /// Exchanges the first outputs of two nodes: names and readers go with the values.
    pub fn swap_outputs(&mut self, a: NodeId, b: NodeId) {
        let (of_a, of_b) = (self.node(a).output(0), self.node(b).output(0));
        for (node, value) in [(a, of_b), (b, of_a)] {
            if let Some(value) = value {
                self.node_mut(node).outputs[0] = Some(value);
                self.value_mut(value).origin = Origin::Output(node, 0);
            }
        }
    }

    /// Removes `node`, whose outputs must be unused; the outputs go with it.
    pub fn remove_node(&mut self, node: NodeId) -> Result<(), GraphError> {
        let outputs = self.node(node).outputs.iter().copied().flatten().collect::<Vec<_>>();
        outputs.iter().try_for_each(|&value| self.check_unused(value))?;
        outputs.into_iter().for_each(|value| self.forget(value));
        let removed = self.nodes.remove(node).expect("the node was read above");
        for (slot, value) in removed.inputs.into_iter().enumerate() {
            self.drop_use(value, Use::Input(node, slot));
        }
        for value in removed.captures {
            self.drop_use(Some(value), Use::Capture(node));
        }
        self.order.retain(|&id| id != node);
        Ok(())
    }

    /// Removes `value` and, upwards, the nodes and constants that only it kept alive.
    ///
    /// Graph inputs stay, and so does whatever still has a user.
    pub fn remove_if_unused(&mut self, value: ValueId) {
        let mut waiting = vec![value];
        while let Some(value) = waiting.pop() {
            let Some(found) = self.values.get(value) else { continue };
            match found.origin {
                _ if !found.uses.is_empty() => {}
                Origin::Constant => self.remove_constant(value),
                Origin::Output(node, _) => {
                    let inputs = self.node(node).inputs.iter().copied().flatten();
                    let sources = inputs.chain(self.node(node).captures.iter().copied()).collect::<Vec<_>>();
                    if self.remove_node(node).is_ok() {
                        waiting.extend(sources);
                    }
                }
                Origin::Input | Origin::Overridable => {}
            }
        }
    }

    fn remove_constant(&mut self, value: ValueId) {
        self.initializers.retain(|&id| id != value);
        self.inputs.retain(|port| port.value != value);
        self.forget(value);
    }

    /// Turns an initializer that is listed as a graph input into a plain constant.
    pub fn unlist_input(&mut self, value: ValueId) {
        if matches!(self.value(value).origin, Origin::Overridable | Origin::Constant) {
            self.inputs.retain(|port| port.value != value);
            self.value_mut(value).origin = Origin::Constant;
        }
    }

    /// Turns the only output of `node` into an initializer of the same name and removes the node.
    ///
    /// Refused for a node with several outputs and for graph outputs.
    pub fn node_to_constant(&mut self, node: NodeId, mut tensor: TensorProto) -> Result<ValueId, GraphError> {
        let (Some(value), 1) = (self.node(node).output(0), self.node(node).outputs.len()) else {
            return Err(GraphError::NotOneOutput { node: self.describe(node) });
        };
        if self.is_output(value) {
            return Err(GraphError::NamePinned { value: self.value(value).name.clone() });
        }
        self.node_mut(node).outputs.clear();
        self.remove_node(node)?;
        let slot = self.value_mut(value);
        tensor.name = Some(slot.name.clone());
        slot.origin = Origin::Constant;
        slot.tensor = Some(tensor);
        self.initializers.push(value);
        Ok(value)
    }

    /// Replaces the tensor of an initializer; type and shape may change.
    pub fn set_tensor(&mut self, value: ValueId, mut tensor: TensorProto) {
        let slot = self.value_mut(value);
        tensor.name = Some(slot.name.clone());
        slot.tensor = Some(tensor);
    }

    /// Takes the tensor out of a constant, leaving it without data until [`Graph::set_tensor`].
    pub fn take_tensor(&mut self, value: ValueId) -> Option<TensorProto> {
        self.value_mut(value).tensor.take()
    }

    /// Changes the operator of `node` (default domain).
    pub fn set_op_type(&mut self, node: NodeId, op_type: &str) {
        self.node_mut(node).proto.op_type = Some(op_type.to_owned());
    }

    /// Sets or replaces an attribute of `node`.
    pub fn set_attribute(&mut self, node: NodeId, attribute: AttributeProto) {
        let attributes = &mut self.node_mut(node).proto.attribute;
        match attributes.iter_mut().find(|present| present.name() == attribute.name()) {
            Some(present) => *present = attribute,
            None => attributes.push(attribute),
        }
    }

    /// Removes the attribute `name` of `node` and returns it.
    pub fn remove_attribute(&mut self, node: NodeId, name: &str) -> Option<AttributeProto> {
        let attributes = &mut self.node_mut(node).proto.attribute;
        let index = attributes.iter().position(|attribute| attribute.name() == name)?;
        Some(attributes.remove(index))
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
            ("", Some(output)) => self.value(output).name(),
            (name, _) => name,
        }
    }

    pub(crate) fn new_value(&mut self, name: String, origin: Origin, tensor: Option<TensorProto>) -> ValueId {
        self.taken.insert(name.clone());
        let id = self.values.push(Value { name: name.clone(), origin, uses: Vec::new(), tensor });
        self.by_name.insert(name, id);
        id
    }

    pub(crate) fn add_use(&mut self, value: Option<ValueId>, user: Use) {
        if let Some(value) = value {
            self.value_mut(value).uses.push(user);
        }
    }

    fn drop_use(&mut self, value: Option<ValueId>, user: Use) {
        if let Some(value) = value {
            self.value_mut(value).uses.retain(|&present| present != user);
        }
    }

    fn check_unused(&self, value: ValueId) -> Result<(), GraphError> {
        let found = self.value(value);
        if found.uses.is_empty() {
            return Ok(());
        }
        Err(GraphError::StillUsed { value: found.name.clone(), users: found.uses.len() })
    }

    /// Drops a value that nothing uses; its name stays taken, so that it never changes its meaning.
    fn forget(&mut self, value: ValueId) {
        if let Some(removed) = self.values.remove(value) {
            self.by_name.remove(&removed.name);
            self.rest.value_info.retain(|info| info.name() != removed.name);
            self.rest.quantization_annotation.retain(|note| note.tensor_name() != removed.name);
        }
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(id).expect("node ids are used only while the node is in the graph")
    }

    pub(crate) fn value_mut(&mut self, id: ValueId) -> &mut Value {
        self.values.get_mut(id).expect("value ids are used only while the value is in the graph")
    }
}
