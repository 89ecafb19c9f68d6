//! Checks every invariant of a model and lists all violations.
//!
//! Run after import, after each pass and before writing. Checked here: the two sides of every edge agree;
//! the order is topological, captures included; tensors hold what they declare; names are unique, and inner
//! ones do not shadow outer ones, but for initializers and inputs that do so in the file; operator domains are imported;
//! Q/DQ nodes have legal scales, zero points and axes, and an opset high enough for their types.
//!
//! Not checked: shapes of intermediate values, and the rules of single operators other than Q/DQ.

mod edges;
mod functions;
mod quantization;

use std::collections::HashSet;
use std::fmt;

use onnxquant_proto::onnx::TensorProto;
use onnxquant_proto::{MAX_OPSET, given_names, made_names};

use crate::error::TensorError;
use crate::graph::{Graph, Node, Origin};
use crate::ids::NodeId;
use crate::model::{Model, plain_domain};
use crate::{subgraph, tensor};

/// Nodes of a circle that a message names.
const CIRCLE_SHOWN: usize = 8;

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
    /// Nodes of a file read each other's results, the last those of the first.
    Cycle { nodes: Vec<String> },
    /// A node reads a value that is made later (or by itself): a defect of an edit.
    NotTopological { node: String, name: String },
    /// Uses and inputs disagree: a defect of an edit.
    BrokenEdge { value: String, detail: String },
    /// A subgraph defines a name of the outer graph, and may not or did not in the file.
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
            Self::Cycle { nodes } => write!(f, "nodes read each other in a circle: {}", circle(nodes)),
            Self::NotTopological { node, name } => {
                write!(f, "node {node} reads `{name}` before it is made")
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

/// The nodes of a circle, of a long one the first, and the first again.
fn circle(nodes: &[String]) -> String {
    let more = nodes.len().saturating_sub(CIRCLE_SHOWN);
    let shown = nodes.iter().take(CIRCLE_SHOWN).cloned();
    let rest = (more > 0).then(|| format!("{more} more"));
    shown.chain(rest).chain(nodes.first().cloned()).collect::<Vec<_>>().join(" reads ")
}

/// All violations of `model`, in a fixed order.
pub fn verify(model: &Model) -> Vec<Violation> {
    let graph = model.graph();
    let mut violations = Vec::new();
    imports(model, &mut violations);
    functions::recursion(model, &mut violations);
    edges::edges(graph, &mut violations);
    if violations.iter().any(|violation| matches!(violation, Violation::BrokenEdge { .. })) {
        return violations; // the rest walks along the edges
    }
    order(graph, &mut violations);
    shadowing(graph, &mut violations);
    tensors(graph, &mut violations);
    for (id, node) in graph.nodes() {
        domains(model, id, node, &mut violations);
        bodies(graph, id, node, &mut violations);
        if node.is("DequantizeLinear") || node.is("QuantizeLinear") {
            let found = quantization::problem(model, node);
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

/// Initializers and inputs of subgraphs may shadow outer names in a file; that an edit gives an outer value such a name is
/// a defect. What nodes make must have names of its own: runtimes refuse anything else.
fn shadowing(graph: &Graph, violations: &mut Vec<Violation>) {
    let mut given = subgraph::shadowed_names(graph, given_names);
    given.retain(|(_, name)| !graph.shadowed.contains(*name));
    let shadowed = given.into_iter().chain(subgraph::shadowed_names(graph, made_names));
    let violation =
        |(id, name): (NodeId, &str)| Violation::Shadowed { node: graph.describe(id), name: name.to_owned() };
    violations.extend(shadowed.map(violation));
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

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
