//! Computes in f32 what a model computes in f16 or bf16.
//!
//! # Problem
//!
//! On processors without arithmetic of these types ONNX Runtime puts a Cast before and behind every operator: such a model is
//! slower than the same one of f32. Its kernels on codes take f32 alone, and `DequantizeLinear` makes f16 from opset 19 on.
//!
//! # Method
//!
//! Tensors, declared types, and attributes that name a type become f32, in bodies and local functions too; every number of
//! f16 or bf16 is one of f32. The types of the model's inputs and outputs stay: a Cast stands behind or before each.
//! Casts from f32 to f32, which are left where a model had both types, are removed.
//!
//! # Guarantee
//!
//! What is computed is what was meant: it differs from the model by less rounding, and by no overflow.

use std::collections::{BTreeSet, HashMap, HashSet};

use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::type_proto::Value;
use onnxquant_ir::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto,
};
use onnxquant_ir::{IR_WITH_PLAIN_INITIALIZERS, Model, TensorError, Violation, int_attribute, tensor};

use crate::graph::element_type::is_f32;
use crate::raise_opset::facts::Facts;

/// Attributes that name the type of what is made.
const TYPES: [&str; 4] = ["to", "dtype", "output_dtype", "output_datatype"];
/// Domains whose operators take f32 wherever they take f16.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];
/// Operators of these domains that do not.
const HALF_ALONE: [&str; 1] = ["NhwcFusedConv"];

/// Why a model was not raised.
#[derive(Debug, thiserror::Error)]
pub enum RaiseTypeError {
    /// A tensor cannot be read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// What was made is no model: a defect of the pass.
    #[error("computing in f32 left an invalid model: {0:?}")]
    Invalid(Vec<Violation>),
}

/// Initializers that became f32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaisedType {
    /// Their type before.
    pub from: DataType,
    /// Their names.
    pub tensors: BTreeSet<String>,
}

/// Raises f16 and bf16 to f32. Nothing where the model computes in neither, or holds them where no Cast reaches (operators of other
/// domains, sequences, sparse tensors): it stays as it is. Ids of nodes and values are new.
pub fn raise_type(model: &mut Model) -> Result<Option<RaisedType>, RaiseTypeError> {
    let mut proto = model.to_proto();
    let mut found = Found::default();
    found.model(&proto);
    let Some(from) = found.half.filter(|_| !found.is_refused && computes(&proto)) else { return Ok(None) };
    let mut raise = Raise { tensors: BTreeSet::new(), error: None };
    raise.model(&mut proto);
    if let Some(error) = raise.error {
        return Err(error.into());
    }
    *model = model.with_message(proto).map_err(RaiseTypeError::Invalid)?;
    remove_idle_casts(model);
    Ok(Some(RaisedType { from, tensors: raise.tensors }))
}

fn is_half(code: i32) -> bool {
    code == DataType::Float16 as i32 || code == DataType::Bfloat16 as i32
}

/// Whether anything is computed in these types, and not only cast, or picked from a table and cast.
fn computes(model: &ModelProto) -> bool {
    let Some(graph) = &model.graph else { return false };
    let inputs = graph.input.iter().filter(|info| half_type(info).is_some()).map(ValueInfoProto::name);
    let constants = graph.initializer.iter().filter(|tensor| is_half(tensor.data_type())).map(TensorProto::name);
    let mut halves: HashSet<&str> = inputs.chain(constants).collect();
    let results: HashSet<&str> =
        graph.output.iter().filter(|info| half_type(info).is_some()).map(ValueInfoProto::name).collect();
    let is_default = |node: &NodeProto| matches!(node.domain(), "" | "ai.onnx");
    let in_node = |node: &NodeProto| {
        let mut found = Found::default();
        node.attribute.iter().for_each(|attribute| found.attribute(attribute, &HashSet::new()));
        found.half.is_some()
    };
    for node in &graph.node {
        let makes_result = node.output.iter().any(|name| results.contains(name.as_str()));
        let picks_half = || node.input.first().is_some_and(|table| halves.contains(table.as_str()));
        let computes = match node.op_type() {
            "Cast" if is_default(node) => in_node(node) && !makes_result,
            "Gather" if is_default(node) && !makes_result && picks_half() => {
                halves.extend(node.output.iter().map(String::as_str));
                false
            }
            _ => makes_result || in_node(node) || reads_any(node, &halves),
        };
        if computes {
            return true;
        }
    }
    let mut of_functions = Found::default();
    model.functions.iter().for_each(|function| of_functions.function(function, &HashSet::new()));
    of_functions.half.is_some()
}

/// Whether a node, or one in its bodies, reads one of `names`.
fn reads_any(node: &NodeProto, names: &HashSet<&str>) -> bool {
    let bodies = node.attribute.iter().flat_map(|found| found.g.iter().map(|graph| &**graph).chain(&found.graphs));
    let in_bodies = || bodies.into_iter().flat_map(|body| &body.node).any(|node| reads_any(node, names));
    node.input.iter().any(|name| names.contains(name.as_str())) || in_bodies()
}

/// What a model holds of these types.
#[derive(Default)]
struct Found {
    /// The first of them.
    half: Option<DataType>,
    is_refused: bool,
}

impl Found {
    fn model(&mut self, model: &ModelProto) {
        let local: HashSet<(&str, &str)> = model.functions.iter().map(|f| (f.domain(), f.name())).collect();
        // An output whose type is not told may be one of these.
        let outputs = model.graph.iter().flat_map(|graph| &graph.output);
        self.is_refused = outputs.into_iter().any(|info| info.r#type.as_ref().is_none_or(|kind| kind.value.is_none()));
        model.graph.iter().for_each(|graph| self.graph(graph, &local));
        model.functions.iter().for_each(|function| self.function(function, &local));
    }

    fn function(&mut self, function: &FunctionProto, local: &HashSet<(&str, &str)>) {
        function.value_info.iter().for_each(|info| self.info(info));
        function.attribute_proto.iter().for_each(|attribute| self.attribute(attribute, local));
        function.node.iter().for_each(|node| self.node(node, local));
    }

    fn graph(&mut self, graph: &GraphProto, local: &HashSet<(&str, &str)>) {
        graph.initializer.iter().for_each(|tensor| self.code(tensor.data_type()));
        let sparse = graph.sparse_initializer.iter().flat_map(|sparse| &sparse.values);
        self.is_refused |= sparse.into_iter().any(|values| is_half(values.data_type()));
        graph.input.iter().chain(&graph.output).chain(&graph.value_info).for_each(|info| self.info(info));
        graph.node.iter().for_each(|node| self.node(node, local));
    }

    fn node(&mut self, node: &NodeProto, local: &HashSet<(&str, &str)>) {
        let is_local = local.contains(&(node.domain(), node.op_type()));
        self.is_refused |= !is_local && !DOMAINS.contains(&node.domain());
        self.is_refused |= !is_local && HALF_ALONE.contains(&node.op_type());
        node.attribute.iter().for_each(|attribute| self.attribute(attribute, local));
    }

    fn attribute(&mut self, attribute: &AttributeProto, local: &HashSet<(&str, &str)>) {
        if names_type(attribute) {
            self.code(i32::try_from(attribute.i()).unwrap_or_default());
            self.is_refused |= !attribute.ref_attr_name().is_empty();
        }
        attribute.t.iter().map(|tensor| &**tensor).chain(&attribute.tensors).for_each(|t| self.code(t.data_type()));
        let types = attribute.tp.iter().map(|kind| &**kind).chain(&attribute.type_protos);
        types.for_each(|kind| self.kind(kind));
        attribute.g.iter().map(|graph| &**graph).chain(&attribute.graphs).for_each(|graph| self.graph(graph, local));
    }

    fn info(&mut self, info: &ValueInfoProto) {
        info.r#type.iter().for_each(|kind| self.kind(kind));
    }

    fn kind(&mut self, kind: &TypeProto) {
        match &kind.value {
            Some(Value::TensorType(tensor)) => self.code(tensor.elem_type()),
            // Sequences and the like: no Cast takes them.
            Some(other) => self.is_refused |= holds_half(other),
            None => {}
        }
    }

    fn code(&mut self, code: i32) {
        if is_half(code) {
            self.half = self.half.or(DataType::try_from(code).ok());
        }
    }
}

/// Whether a type of something else than a dense tensor is one of half floats.
fn holds_half(kind: &Value) -> bool {
    let inner = |kind: Option<&TypeProto>| kind.and_then(|kind| kind.value.as_ref()).is_some_and(holds_half);
    match kind {
        Value::TensorType(tensor) => is_half(tensor.elem_type()),
        Value::SparseTensorType(tensor) => is_half(tensor.elem_type()),
        Value::SequenceType(of) => inner(of.elem_type.as_deref()),
        Value::OptionalType(of) => inner(of.elem_type.as_deref()),
        Value::MapType(of) => inner(of.value_type.as_deref()),
        Value::OpaqueType(_) => false,
    }
}

fn names_type(attribute: &AttributeProto) -> bool {
    attribute.r#type() == AttributeType::Int && TYPES.contains(&attribute.name())
}

/// One run over a message.
struct Raise {
    tensors: BTreeSet<String>,
    error: Option<TensorError>,
}

impl Raise {
    fn model(&mut self, model: &mut ModelProto) {
        let overridable = model.ir_version() >= IR_WITH_PLAIN_INITIALIZERS;
        let taken = Facts::of(model).taken;
        if let Some(graph) = &mut model.graph {
            self.main_graph(graph, taken, overridable);
        }
        for function in &mut model.functions {
            function.value_info.iter_mut().for_each(raise_info);
            function.attribute_proto.iter_mut().for_each(|attribute| self.attribute(attribute));
            function.node.iter_mut().for_each(|node| self.node(node));
        }
    }

    fn main_graph(&mut self, graph: &mut GraphProto, mut taken: HashSet<String>, overridable: bool) {
        let constants: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
        let is_constant = |info: &ValueInfoProto| !overridable && constants.contains(info.name());
        graph.input.iter_mut().filter(|info| is_constant(info)).for_each(raise_info);
        let mut edges = Edges::default();
        for info in graph.input.iter().filter(|info| half_type(info).is_some()) {
            let inner = fresh(&mut taken, info.name());
            edges.first.push(cast(info.name(), &inner, DataType::Float));
            edges.renamed.insert(info.name().to_owned(), inner);
        }
        let outputs = graph.output.iter().filter_map(|info| Some((info.name(), half_type(info)?)));
        for (name, kind) in outputs.filter(|(name, _)| !graph.input.iter().any(|input| input.name() == *name)) {
            let inner = fresh(&mut taken, name);
            edges.last.push(cast(&inner, name, kind));
            edges.renamed.insert(name.to_owned(), inner);
        }
        let defaults: HashSet<String> = graph.input.iter().map(|info| info.name().to_owned()).collect();
        for tensor in &mut graph.initializer {
            // Who overrides it gives the type that is declared.
            if !defaults.contains(tensor.name()) || !overridable {
                self.tensor(tensor);
                edges.renamed.get(tensor.name()).into_iter().for_each(|name| tensor.name = Some(name.clone()));
            }
        }
        graph.value_info.retain(|info| !edges.renamed.contains_key(info.name()));
        graph.value_info.iter_mut().for_each(raise_info);
        edges.rename(&mut graph.node);
        graph.node.iter_mut().for_each(|node| self.node(node));
        let nodes = std::mem::take(&mut graph.node);
        graph.node = edges.first.into_iter().chain(nodes).chain(edges.last).collect();
    }

    fn body(&mut self, graph: &mut GraphProto) {
        graph.initializer.iter_mut().for_each(|tensor| self.tensor(tensor));
        let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        infos.for_each(raise_info);
        graph.node.iter_mut().for_each(|node| self.node(node));
    }

    fn node(&mut self, node: &mut NodeProto) {
        node.attribute.iter_mut().for_each(|attribute| self.attribute(attribute));
    }

    fn attribute(&mut self, attribute: &mut AttributeProto) {
        if names_type(attribute) && i32::try_from(attribute.i()).is_ok_and(is_half) {
            attribute.i = Some(i64::from(DataType::Float as i32));
        }
        let tensors = attribute.t.iter_mut().map(|tensor| &mut **tensor).chain(&mut attribute.tensors);
        tensors.for_each(|tensor| self.tensor(tensor));
        attribute.tp.iter_mut().map(|kind| &mut **kind).chain(&mut attribute.type_protos).for_each(raise_kind);
        let graphs = attribute.g.iter_mut().map(|graph| &mut **graph).chain(&mut attribute.graphs);
        graphs.into_iter().for_each(|graph| self.body(graph));
    }

    fn tensor(&mut self, from: &mut TensorProto) {
        if !is_half(from.data_type()) {
            return;
        }
        match tensor::to_f32(from) {
            Ok(numbers) => {
                let raised = tensor::from_f32(&[], &numbers);
                let (name, doc_string, dims) =
                    (from.name.take(), from.doc_string.take(), std::mem::take(&mut from.dims));
                self.tensors.extend(name.clone());
                *from = TensorProto { name, doc_string, dims, ..raised };
            }
            Err(error) => self.error = Some(error),
        }
    }
}

/// Casts at the edges of the main graph, and the names that values get between them.
#[derive(Default)]
struct Edges {
    first: Vec<NodeProto>,
    last: Vec<NodeProto>,
    renamed: HashMap<String, String>,
}

impl Edges {
    /// Renames values in nodes and in their bodies, which see the names around them.
    fn rename(&self, nodes: &mut [NodeProto]) {
        for node in nodes {
            for name in node.input.iter_mut().chain(&mut node.output) {
                self.renamed.get(name.as_str()).into_iter().for_each(|inner| name.clone_from(inner));
            }
            for attribute in &mut node.attribute {
                let graphs = attribute.g.iter_mut().map(|graph| &mut **graph).chain(&mut attribute.graphs);
                graphs.into_iter().for_each(|graph| self.rename_in(graph));
            }
        }
    }

    fn rename_in(&self, body: &mut GraphProto) {
        // What a body calls its own hides what is around it.
        let own = body.input.iter().map(|info| info.name()).chain(body.initializer.iter().map(|tensor| tensor.name()));
        let own: HashSet<&str> =
            own.chain(body.node.iter().flat_map(|node| &node.output).map(String::as_str)).collect();
        let renamed = self.renamed.iter().filter(|(name, _)| !own.contains(name.as_str()));
        let seen = Self { renamed: renamed.map(|(a, b)| (a.clone(), b.clone())).collect(), ..Self::default() };
        seen.rename(&mut body.node);
        for output in &mut body.output {
            seen.renamed.get(output.name()).into_iter().for_each(|inner| output.name = Some(inner.clone()));
        }
    }
}

/// A name that is based on `of` and not taken, which it is from now on.
fn fresh(taken: &mut HashSet<String>, of: &str) -> String {
    let candidates = std::iter::once(format!("{of}_float")).chain((1_usize..).map(|n| format!("{of}_float_{n}")));
    let found = candidates.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(found.clone());
    found
}

fn cast(from: &str, to: &str, kind: DataType) -> NodeProto {
    NodeProto {
        op_type: Some("Cast".to_owned()),
        name: Some(format!("{from}_to_{to}")),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        attribute: vec![int_attribute("to", i64::from(kind as i32))],
        ..NodeProto::default()
    }
}

/// The half type that a value is declared to have.
fn half_type(info: &ValueInfoProto) -> Option<DataType> {
    let Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()? else { return None };
    DataType::try_from(tensor.elem_type()).ok().filter(|kind| is_half(*kind as i32))
}

fn raise_info(info: &mut ValueInfoProto) {
    info.r#type.iter_mut().for_each(raise_kind);
}

fn raise_kind(kind: &mut TypeProto) {
    if let Some(Value::TensorType(tensor)) = &mut kind.value
        && is_half(tensor.elem_type())
    {
        tensor.elem_type = Some(DataType::Float as i32);
    }
}

/// Removes casts of f32 to f32 from the main graph.
fn remove_idle_casts(model: &mut Model) {
    let graph = model.graph_mut();
    let casts: Vec<_> = graph.nodes().filter(|(_, node)| node.is("Cast")).map(|(id, _)| id).collect();
    for id in casts {
        let node = graph.node(id);
        let (Some(from), Some(to)) = (node.input(0), node.output(0)) else { continue };
        let is_idle = node.int("to", 0) == i64::from(DataType::Float as i32) && is_f32(graph, from);
        if is_idle && !graph.is_output(to) && graph.replace_uses(to, from).is_ok() {
            // Nothing reads it now.
            drop(graph.remove_node(id));
        }
    }
}

#[cfg(test)]
#[path = "raise_type_tests.rs"]
mod tests;
