//! A whole model: the main graph, and everything else of the message as it was read.

use onnxquant_proto::onnx::{
    FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
};

use crate::domain::same_domain;
use crate::graph::Graph;

/// First IR version in which an initializer need not be listed as a graph input.
pub const IR_WITH_PLAIN_INITIALIZERS: i64 = 4;

/// An ONNX model.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub(crate) graph: Graph,
    /// The message without its graph.
    pub(crate) rest: ModelProto,
    /// Files beside the model that hold some of its tensors.
    pub(crate) external_files: Vec<std::path::PathBuf>,
    /// Nodes that stood behind one that reads them.
    pub(crate) nodes_sorted: usize,
}

impl Model {
    /// The main graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The main graph, for editing.
    pub fn graph_mut(&mut self) -> &mut Graph {
        &mut self.graph
    }

    /// The IR version the model declares.
    pub fn ir_version(&self) -> i64 {
        self.rest.ir_version()
    }

    /// Raises the IR version to at least `version`.
    ///
    /// Crossing version 4, initializers listed as graph inputs are taken off that list: below it they are
    /// constants, above it they would become overridable.
    pub fn raise_ir_version(&mut self, version: i64) {
        if self.ir_version() < IR_WITH_PLAIN_INITIALIZERS && version >= IR_WITH_PLAIN_INITIALIZERS {
            let constants = self.graph.initializers.clone();
            constants.into_iter().for_each(|value| self.graph.unlist_input(value));
        }
        self.rest.ir_version = Some(self.ir_version().max(version));
    }

    /// The imported version of an operator domain; `""` is the default one. Of several, the highest holds.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let imports = self.rest.opset_import.iter().filter(|import| same_domain(import.domain(), domain));
        imports.map(OperatorSetIdProto::version).max()
    }

    /// Sets the imported version of an operator domain, in all its entries.
    pub fn set_opset(&mut self, domain: &str, version: i64) {
        let imports = &mut self.rest.opset_import;
        let mut known = imports.iter_mut().filter(|import| same_domain(import.domain(), domain)).peekable();
        if known.peek().is_some() {
            known.for_each(|import| import.version = Some(version));
        } else {
            imports.push(OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) });
        }
    }

    /// Imported domains and versions as declared.
    pub fn opsets(&self) -> &[OperatorSetIdProto] {
        &self.rest.opset_import
    }

    /// The model's local functions.
    pub fn functions(&self) -> &[FunctionProto] {
        &self.rest.functions
    }

    /// Whether `node` calls a local function rather than an operator.
    pub fn calls_function(&self, node: &NodeProto) -> bool {
        let called = |function: &FunctionProto| {
            function.name() == node.op_type() && same_domain(function.domain(), node.domain())
        };
        self.rest.functions.iter().any(called)
    }

    /// The metadata entry `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.rest.metadata_props.iter().find(|entry| entry.key() == key).map(StringStringEntryProto::value)
    }

    /// Sets the metadata entry `key`.
    pub fn set_metadata(&mut self, key: &str, value: impl Into<String>) {
        let value = Some(value.into());
        match self.rest.metadata_props.iter_mut().find(|entry| entry.key() == key) {
            Some(entry) => entry.value = value,
            None => self.rest.metadata_props.push(StringStringEntryProto { key: Some(key.to_owned()), value }),
        }
    }

    /// Files beside the model that hold some of its tensors, as it was read.
    pub fn external_files(&self) -> &[std::path::PathBuf] {
        &self.external_files
    }

    /// How many nodes of the message, its bodies and functions stood behind one that reads them and were put before it.
    pub fn nodes_sorted(&self) -> usize {
        self.nodes_sorted
    }

    /// The message. Bytes of tensors are shared, not copied.
    pub fn to_proto(&self) -> ModelProto {
        ModelProto { graph: Some(self.graph.to_proto()), ..self.rest.clone() }
    }
}

impl Graph {
    /// The graph as a message, its nodes in execution order.
    pub(crate) fn to_proto(&self) -> GraphProto {
        let name = |value: &Option<crate::ids::ValueId>| value.map_or(String::new(), |id| self.value(id).name.clone());
        let node = |node: &crate::graph::Node| NodeProto {
            input: node.inputs.iter().map(name).collect(),
            output: node.outputs.iter().map(name).collect(),
            ..node.proto.clone()
        };
        GraphProto {
            node: self.nodes().map(|(_, found)| node(found)).collect(),
            initializer: self.initializers.iter().filter_map(|&id| self.value(id).tensor.clone()).collect(),
            input: self.inputs.iter().map(|port| port.info.clone()).collect(),
            output: self.outputs.iter().map(|port| port.info.clone()).collect(),
            ..self.rest.clone()
        }
    }
}
