//! Checks every invariant of a model and lists all violations.
//!
//! Run after import, after each pass and before writing. Checked here: the two sides of every edge agree;
//! the order is topological, captures included; tensors hold what they declare; names are unique, and inner
//! ones do not shadow outer ones; operator domains are imported; Q/DQ nodes have legal scales, zero points
//! and axes, and an opset high enough for their types.
//!
//! Not checked: shapes of intermediate values, and the rules of single operators other than Q/DQ.

mod functions;

use std::collections::HashSet;
use std::fmt;

use onnxquant_proto::MAX_OPSET;
use onnxquant_proto::onnx::tensor_proto::DataType;
use onnxquant_proto::onnx::{AttributeProto, TensorProto};

use crate::error::TensorError;
use crate::graph::{Graph, Node, Origin, Use};
use crate::ids::{NodeId, ValueId};
use crate::model::{Model, plain_domain};
use crate::{subgraph, tensor};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what the message names")]
pub enum Violation {
    /// The message holds no graph.
    NoGraph,
    /// Two values have the same name.
    DuplicateName { name: String },
    /// An initializer has no name.
    UnnamedInitializer { index: usize },
    /// An operator domain is imported at a version that does not exist.
    Opset { domain: String, version: i64 },
    /// A node lacks a subgraph that its operator needs.
    NoBody { node: String, attribute: &'static str },
    /// A local function calls itself, directly or through others.
    Recursion { function: String },
    /// A node reads a name that nothing defines.
    UnknownValue { node: String, name: String },
    /// The graph lists an output that nothing defines.
    UnknownOutput { name: String },
    /// A node reads a value that is made later (or by itself).
    NotTopological { node: String, name: String },
    /// Uses and inputs disagree: a defect of an edit.
    BrokenEdge { value: String, detail: String },
    /// A subgraph defines a name of the outer graph.
    Shadowed { node: String, name: String },
    /// A tensor's payload does not fit its declaration.
    Tensor(TensorError),
    /// An operator's domain is not imported.
    DomainNotImported { node: String, domain: String },
    /// A QuantizeLinear or DequantizeLinear breaks its specification.
    Quantization { node: String, problem: String },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGraph => write!(f, "the model holds no graph"),
            Self::DuplicateName { name } => write!(f, "value name `{name}` is defined more than once"),
            Self::UnnamedInitializer { index } => write!(f, "initializer {index} has no name"),
            Self::Opset { domain, version } if domain.is_empty() => {
                write!(f, "the model imports opset {version}, this program knows 1 to {MAX_OPSET}")
            }
            Self::Opset { domain, version } => write!(f, "domain `{domain}` is imported at version {version}"),
            Self::NoBody { node, attribute } => write!(f, "node {node} has no {attribute}"),
            Self::Recursion { function } => write!(f, "the local function `{function}` calls itself"),
            Self::UnknownValue { node, name } => write!(f, "node {node} reads `{name}`, which nothing defines"),
            Self::UnknownOutput { name } => write!(f, "graph output `{name}` is defined by nothing"),
            Self::NotTopological { node, name } => {
                write!(f, "node {node} reads `{name}` before it is made: the nodes are cyclic or not in order")
            }
            Self::BrokenEdge { value, detail } => write!(f, "value `{value}`: {detail}"),
            Self::Shadowed { node, name } => write!(f, "a subgraph of {node} defines `{name}` again"),
            Self::Tensor(error) => error.fmt(f),
            Self::DomainNotImported { node, domain } => {
                write!(f, "node {node} is of domain `{domain}`, which opset_import does not list")
            }
            Self::Quantization { node, problem } => write!(f, "node {node}: {problem}"),
        }
    }
}

/// All violations of `model`, in a fixed order.
pub fn verify(model: &Model) -> Vec<Violation> {
    let graph = model.graph();
    let mut violations = Vec::new();
    imports(model, &mut violations);
    functions::recursion(model, &mut violations);
    edges(graph, &mut violations);
    order(graph, &mut violations);
    shadowing(graph, &mut violations);
    tensors(graph, &mut violations);
    for (id, node) in graph.nodes() {
        domains(model, id, node, &mut violations);
        bodies(graph, id, node, &mut violations);
        if node.is("DequantizeLinear") || node.is("QuantizeLinear") {
            let found = quantization(model, node);
            violations.extend(found.map(|problem| Violation::Quantization { node: graph.describe(id), problem }));
        }
    }
    violations
}

fn imports(model: &Model, violations: &mut Vec<Violation>) {
    for import in model.opsets() {
        let (domain, version) = (plain_domain(import.domain()), import.version());
        if version < 1 || (domain.is_empty() && version > MAX_OPSET) {
            violations.push(Violation::Opset { domain: domain.to_owned(), version });
        }
    }
}

/// The subgraphs without which a control flow node means nothing.
fn bodies(graph: &Graph, id: NodeId, node: &Node, violations: &mut Vec<Violation>) {
    let needed: &[&'static str] = match node.op_type() {
        "If" if node.is("If") => &["then_branch", "else_branch"],
        "Loop" | "Scan" if node.domain().is_empty() => &["body"],
        _ => &[],
    };
    let missing = needed.iter().filter(|name| node.attribute(name).is_none_or(|attribute| attribute.g.is_none()));
    violations.extend(missing.map(|&attribute| Violation::NoBody { node: graph.describe(id), attribute }));
}

fn edges(graph: &Graph, violations: &mut Vec<Violation>) {
    let mut broken = |id: ValueId, detail: String| {
        violations.push(Violation::BrokenEdge { value: graph.value(id).name().to_owned(), detail });
    };
    let mut expected = HashSet::new();
    for (id, node) in graph.nodes() {
        let inputs = node.inputs().iter().enumerate();
        expected.extend(inputs.filter_map(|(slot, value)| Some(((*value)?, Key::Input(id, slot)))));
        expected.extend(node.captures().iter().map(|&value| (value, Key::Capture(id))));
        for (slot, value) in node.outputs().iter().enumerate() {
            let Some(value) = *value else { continue };
            if graph.value(value).origin() != Origin::Output(id, slot) {
                broken(value, format!("output {slot} of {} is not its origin", graph.describe(id)));
            }
        }
    }
    expected.extend(graph.outputs().iter().enumerate().map(|(index, port)| (port.value, Key::GraphOutput(index))));
    for (id, value) in graph.values() {
        for user in value.uses() {
            if !expected.remove(&(id, Key::from(*user))) {
                broken(id, format!("{user:?} does not read it"));
            }
        }
        if graph.find(value.name()) != Some(id) {
            broken(id, "its name leads elsewhere".to_owned());
        }
    }
    expected.into_iter().for_each(|(id, key)| broken(id, format!("does not know its user {key:?}")));
}

/// [`Use`] as a key of a set.
#[derive(PartialEq, Eq, Hash, Debug)]
enum Key {
    Input(NodeId, usize),
    Capture(NodeId),
    GraphOutput(usize),
}

impl From<Use> for Key {
    fn from(user: Use) -> Self {
        match user {
            Use::Input(node, slot) => Self::Input(node, slot),
            Use::Capture(node) => Self::Capture(node),
            Use::GraphOutput(index) => Self::GraphOutput(index),
        }
    }
}

fn order(graph: &Graph, violations: &mut Vec<Violation>) {
    let mut made = HashSet::new();
    for (id, node) in graph.nodes() {
        let reads = node.inputs().iter().copied().flatten().chain(node.captures().iter().copied());
        for value in reads {
            if matches!(graph.value(value).origin(), Origin::Output(..)) && !made.contains(&value) {
                let name = graph.value(value).name().to_owned();
                violations.push(Violation::NotTopological { node: graph.describe(id), name });
            }
        }
        made.extend(node.outputs().iter().copied().flatten());
    }
}

fn shadowing(graph: &Graph, violations: &mut Vec<Violation>) {
    for (id, node) in graph.nodes() {
        let mut inner = HashSet::new();
        subgraph::defined_values(&node.proto, &mut inner);
        let mut shadowed = inner.into_iter().filter(|name| graph.find(name).is_some()).collect::<Vec<_>>();
        shadowed.sort();
        violations.extend(shadowed.into_iter().map(|name| Violation::Shadowed { node: graph.describe(id), name }));
    }
}

fn tensors(graph: &Graph, violations: &mut Vec<Violation>) {
    let check = |tensor: &TensorProto| tensor::check_payload(tensor).err().map(Violation::Tensor);
    let constants = graph.values().filter_map(|(_, value)| value.tensor());
    let of_node = |node| subgraph::attribute_tensors(node).collect::<Vec<_>>();
    let attributes = graph.nodes().flat_map(|(_, node)| of_node(&node.proto));
    violations.extend(constants.chain(attributes).filter_map(check));
}

fn domains(model: &Model, id: NodeId, node: &Node, violations: &mut Vec<Violation>) {
    if model.opset(node.domain()).is_none() && !model.calls_function(&node.proto) {
        let domain = node.domain().to_owned();
        violations.push(Violation::DomainNotImported { node: model.graph().describe(id), domain });
    }
}

/// Lowest opset whose QuantizeLinear/DequantizeLinear take codes of `dtype`.
fn opset_of_codes(dtype: DataType) -> Option<i64> {
    match dtype {
        DataType::Int8 | DataType::Uint8 | DataType::Int32 => Some(10),
        DataType::Float8e4m3fn | DataType::Float8e4m3fnuz | DataType::Float8e5m2 | DataType::Float8e5m2fnuz => Some(19),
        DataType::Int4 | DataType::Uint4 | DataType::Int16 | DataType::Uint16 => Some(21),
        DataType::Float4e2m1 => Some(23),
        DataType::Int2 | DataType::Uint2 => Some(25),
        _ => None,
    }
}

/// What is wrong with a Q or DQ node, as far as its constants tell.
fn quantization(model: &Model, node: &Node) -> Option<String> {
    let graph = model.graph();
    let constant = |slot| node.input(slot).and_then(|value: ValueId| graph.value(value).constant());
    let opset = model.opset("").unwrap_or(0);
    let (codes, scale, zero_point) = (constant(0), constant(1), constant(2));
    let blocks = node.attribute("block_size").map(AttributeProto::i).filter(|&size| size != 0);
    if let Some(scale) = scale.filter(|scale| tensor::is_float(scale)) {
        let numbers = tensor::to_f32(scale).ok()?;
        if let Some(index) = numbers.iter().position(|&x| !x.is_finite() || x <= 0.0) {
            return Some(format!("scale {index} is {}, expected a finite number > 0", numbers[index]));
        }
        let needed = if blocks.is_some() { 21 } else if scale.dims.is_empty() || scale.dims == [1] { 10 } else { 13 };
        if opset < needed {
            return Some(format!("a scale of shape {:?} needs opset {needed}, the model imports {opset}", scale.dims));
        }
    }
    let codes_type = codes.or(zero_point).and_then(|codes| tensor::data_type(codes).ok());
    if let Some(needed) = codes_type.and_then(opset_of_codes).filter(|&needed| opset < needed) {
        return Some(format!("{codes_type:?} codes need opset {needed}, the model imports {opset}"));
    }
    if let (Some(codes), Some(zero_point)) = (codes.filter(|_| node.is("DequantizeLinear")), zero_point)
        && codes.data_type() != zero_point.data_type()
    {
        return Some("codes and zero point have different types".to_owned());
    }
    axis_problem(node, codes?, scale?, blocks)
}

fn axis_problem(node: &Node, codes: &TensorProto, scale: &TensorProto, blocks: Option<i64>) -> Option<String> {
    let rank = i64::try_from(codes.dims.len()).ok()?;
    let axis = node.int("axis", 1);
    let per_axis = scale.dims.len() == 1 && scale.dims != [1];
    if !per_axis && blocks.is_none() {
        return None;
    }
    if !(-rank..rank).contains(&axis) {
        return Some(format!("axis {axis} is outside a tensor of rank {rank}"));
    }
    let axis = usize::try_from(axis.rem_euclid(rank)).ok()?;
    let mut expected = codes.dims.clone();
    match blocks {
        Some(size) if size > 0 => expected[axis] = (expected[axis] + size - 1) / size,
        Some(size) => return Some(format!("block_size is {size}, expected a number > 0")),
        None => expected = vec![expected[axis]],
    }
    (scale.dims != expected).then(|| format!("scale has shape {:?}, expected {expected:?}", scale.dims))
}
