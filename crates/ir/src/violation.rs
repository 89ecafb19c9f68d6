//! The rules that a model can break, and how messages name them.

use std::fmt;

use onnxquant_proto::MAX_OPSET;

use crate::tensor::TensorError;

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
