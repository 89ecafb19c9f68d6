//! Editing a graph, only through methods that keep both sides of every edge in step.
//!
//! What an edit cannot know, and [`crate::verify()`] checks afterwards, is the order of execution: a value must be
//! made before the place where it is read.

use onnxquant_proto::onnx::tensor_proto::DataType;
use onnxquant_proto::onnx::{
    AttributeProto, NodeProto, StringStringEntryProto, TensorAnnotation, TensorProto, type_proto,
};

use crate::error::GraphError;
use crate::graph::{Graph, Node, Origin, Use, Value};
use crate::ids::{NodeId, ValueId};

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

    /// Says in the graph's list which scale and zero point a tensor has, unless something is said there; returns whether
    /// it was added. The keys are those of `TensorAnnotation` in `onnx.proto`.
    pub fn annotate_quantization(&mut self, tensor: ValueId, scale: ValueId, zero_point: Option<ValueId>) -> bool {
        let name = self.value(tensor).name();
        if self.rest.quantization_annotation.iter().any(|note| note.tensor_name() == name) {
            return false;
        }
        let entry = |key: &str, value: ValueId| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(self.value(value).name().to_owned()),
        };
        let parameters = std::iter::once(("SCALE_TENSOR", scale)).chain(zero_point.map(|it| ("ZERO_POINT_TENSOR", it)));
        let quant_parameter_tensor_names = parameters.map(|(key, value)| entry(key, value)).collect();
        let note = TensorAnnotation { tensor_name: Some(name.to_owned()), quant_parameter_tensor_names };
        self.rest.quantization_annotation.push(note);
        true
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

    /// Lets `node` write `value`, which so far another node wrote, as output `slot`.
    ///
    /// The value keeps its name and users; the former output in that slot must be unused and is removed.
    /// Refused for inputs and initializers.
    pub fn take_over_output(&mut self, node: NodeId, slot: usize, value: ValueId) -> Result<(), GraphError> {
        let Origin::Output(former, former_slot) = self.value(value).origin else {
            return Err(GraphError::NotMadeByNode { value: self.value(value).name.clone() });
        };
        if let Some(old) = self.node(node).output(slot).filter(|&old| old != value) {
            self.check_unused(old)?;
            self.forget(old);
        }
        self.node_mut(former).outputs[former_slot] = None;
        self.put_output(node, slot, Some(value));
        Ok(())
    }

    /// Exchanges output `slot` of `a` with the first output of `b`: names and readers go with the values.
    pub fn swap_outputs(&mut self, a: NodeId, slot: usize, b: NodeId) {
        let (of_a, of_b) = (self.node(a).output(slot), self.node(b).output(0));
        self.put_output(a, slot, of_b);
        self.put_output(b, 0, of_a);
    }

    fn put_output(&mut self, node: NodeId, slot: usize, value: Option<ValueId>) {
        let outputs = &mut self.node_mut(node).outputs;
        if outputs.len() <= slot {
            outputs.resize(slot + 1, None);
        }
        outputs[slot] = value;
        if let Some(value) = value {
            self.value_mut(value).origin = Origin::Output(node, slot);
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
    /// Refused for a node with several outputs and for graph outputs. Its inputs stay, used or not.
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
    ///
    /// # Panics
    /// When `value` is not a dense initializer.
    pub fn set_tensor(&mut self, value: ValueId, mut tensor: TensorProto) {
        let slot = self.value_mut(value);
        assert!(slot.tensor.is_some(), "only the tensor of a dense initializer can be replaced");
        tensor.name = Some(slot.name.clone());
        slot.tensor = Some(tensor);
    }

    /// Changes the type that the graph declares for the elements of `value`, wherever it declares one.
    pub fn set_element_type(&mut self, value: ValueId, dtype: DataType) {
        let name = self.value(value).name.clone();
        let ports = self.inputs.iter_mut().chain(&mut self.outputs).filter(|port| port.value == value);
        let infos = self.rest.value_info.iter_mut().filter(|info| info.name() == name);
        for info in ports.map(|port| &mut port.info).chain(infos) {
            if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|it| it.value.as_mut()) {
                tensor.elem_type = Some(dtype.into());
            }
        }
    }

    /// Changes the operator of `node` (default domain).
    pub fn set_op_type(&mut self, node: NodeId, op_type: &str) {
        self.node_mut(node).proto.op_type = Some(op_type.to_owned());
    }

    /// Changes the operator of `node` to one of any domain, whose import is the caller's matter.
    pub fn set_operator(&mut self, node: NodeId, domain: &str, op_type: &str) {
        self.node_mut(node).proto.domain = (!domain.is_empty()).then(|| domain.to_owned());
        self.set_op_type(node, op_type);
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
            self.rest
                .sparse_initializer
                .retain(|sparse| sparse.values.as_ref().is_none_or(|v| v.name() != removed.name));
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

#[cfg(test)]
#[path = "edit_random_tests.rs"]
mod random_tests;
#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
