//! Nodes that an engine cannot run, and how messages name them.

use std::fmt;

use onnxquant_proto::onnx::NodeProto;

use crate::error::CalibError;
use crate::graph::label;

/// How the message of an engine's panic begins.
pub(crate) const PANICKED: &str = "it panicked: ";

/// A node that the engine cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedNode {
    /// Its name, or its first output's.
    pub label: String,
    /// Its operator.
    pub op_type: String,
    /// The operator's domain, empty for the default one.
    pub domain: String,
    /// What it makes.
    pub outputs: Vec<String>,
    /// Why it cannot be run.
    pub reason: String,
    /// In which way.
    pub fault: Fault,
}

/// In which way the engine fails on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not have the operator.
    Unknown,
    /// It panics: a defect of its own.
    Panic,
    /// It refuses the node, for what it lacks or for what is wrong with the node or the sample.
    Error,
}

impl BlockedNode {
    pub(crate) fn new(node: &NodeProto, reason: impl Into<String>, fault: Fault) -> Self {
        Self {
            label: label(node).to_owned(),
            op_type: node.op_type().to_owned(),
            domain: if node.domain() == "ai.onnx" { String::new() } else { node.domain().to_owned() },
            outputs: node.output.iter().filter(|output| !output.is_empty()).cloned().collect(),
            reason: reason.into(),
            fault,
        }
    }
}

/// `` `fc1` (Gemm of domain `org.example`) ``
impl fmt::Display for BlockedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}", self.label, self.op_type)?;
        match self.domain.as_str() {
            "" => write!(f, ")"),
            domain => write!(f, " of domain `{domain}`)"),
        }
    }
}

/// What a run that needs the node fails with.
impl From<&BlockedNode> for CalibError {
    fn from(node: &BlockedNode) -> Self {
        Self::Load { place: format!("node {node}"), detail: node.reason.clone() }
    }
}

/// Messages of an engine can contain whole graphs.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 600;
    if text.chars().count() <= LONGEST {
        return text.into();
    }
    text.chars().take(LONGEST).chain(" ...".chars()).collect()
}
