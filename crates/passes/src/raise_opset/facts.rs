//! What has to be known of the whole message before a node is touched.

use std::collections::HashSet;

use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::type_proto;
use onnxquant_ir::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto};

/// Names and float types that occur anywhere in a model, subgraphs and local functions included.
#[derive(Default)]
pub(crate) struct Facts {
    /// Names of values and nodes, which a new name must avoid.
    pub(crate) taken: HashSet<String>,
    /// Names that some node, graph output or function output reads.
    pub(super) read: HashSet<String>,
    /// Whether a float type other than f32 occurs.
    mixed_floats: bool,
}

impl Facts {
    pub(crate) fn of(model: &ModelProto) -> Self {
        let mut facts = Self::default();
        model.graph.iter().for_each(|graph| facts.graph(graph));
        for function in &model.functions {
            facts.taken.extend(function.input.iter().cloned());
            facts.read.extend(function.output.iter().cloned());
            function.attribute_proto.iter().for_each(|attribute| facts.attribute(attribute));
            function.value_info.iter().for_each(|info| facts.info(info));
            function.node.iter().for_each(|node| facts.node(node));
        }
        facts
    }

    /// Whether every float value of the model is f32.
    ///
    /// No operator makes another float type unless a tensor, a declaration or an attribute names it.
    pub(super) fn all_floats_are_f32(&self) -> bool {
        !self.mixed_floats
    }

    fn graph(&mut self, graph: &GraphProto) {
        graph.initializer.iter().for_each(|tensor| self.tensor(tensor));
        graph.sparse_initializer.iter().flat_map(|sparse| &sparse.values).for_each(|values| self.tensor(values));
        graph.node.iter().for_each(|node| self.node(node));
        graph.input.iter().chain(&graph.output).chain(&graph.value_info).for_each(|info| self.info(info));
        self.read.extend(graph.output.iter().map(|output| output.name().to_owned()));
    }

    fn node(&mut self, node: &NodeProto) {
        self.taken.extend(node.name.iter().chain(&node.output).cloned());
        self.read.extend(node.input.iter().cloned());
        node.attribute.iter().for_each(|attribute| self.attribute(attribute));
    }

    fn attribute(&mut self, attribute: &AttributeProto) {
        const TYPES: [&str; 4] = ["to", "dtype", "output_dtype", "output_datatype"];
        if attribute.r#type() == AttributeType::Int && TYPES.contains(&attribute.name()) {
            self.element(i32::try_from(attribute.i()).unwrap_or_default());
        }
        if attribute.name() == "to" && attribute.s.as_deref().is_some_and(|name| name != b"FLOAT") {
            self.mixed_floats = true;
        }
        attribute.t.iter().map(|tensor| &**tensor).chain(&attribute.tensors).for_each(|tensor| self.tensor(tensor));
        let sparse = attribute.sparse_tensor.iter().map(|sparse| &**sparse).chain(&attribute.sparse_tensors);
        sparse.flat_map(|sparse| &sparse.values).for_each(|values| self.tensor(values));
        attribute.g.iter().map(|graph| &**graph).chain(&attribute.graphs).for_each(|graph| self.graph(graph));
    }

    fn tensor(&mut self, tensor: &TensorProto) {
        self.taken.extend(tensor.name.clone());
        self.element(tensor.data_type());
    }

    fn info(&mut self, info: &ValueInfoProto) {
        self.taken.extend(info.name.clone());
        info.r#type.iter().for_each(|kind| self.kind(kind));
    }

    fn kind(&mut self, kind: &TypeProto) {
        match &kind.value {
            Some(type_proto::Value::TensorType(tensor)) => self.element(tensor.elem_type()),
            Some(type_proto::Value::SparseTensorType(tensor)) => self.element(tensor.elem_type()),
            Some(type_proto::Value::SequenceType(of)) => of.elem_type.iter().for_each(|of| self.kind(of)),
            Some(type_proto::Value::OptionalType(of)) => of.elem_type.iter().for_each(|of| self.kind(of)),
            Some(type_proto::Value::MapType(of)) => of.value_type.iter().for_each(|of| self.kind(of)),
            Some(type_proto::Value::OpaqueType(_)) | None => {}
        }
    }

    fn element(&mut self, code: i32) {
        self.mixed_floats |=
            matches!(DataType::try_from(code), Ok(DataType::Float16 | DataType::Bfloat16 | DataType::Double));
    }
}
