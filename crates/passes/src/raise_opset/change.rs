//! What was rewritten.

use std::fmt;

/// A node that was rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The node's name, or its first output where it has none.
    pub node: String,
    /// The operator before the step.
    pub op_type: String,
    /// The opset whose rules made the step necessary.
    pub opset: i64,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node `{}` ({}) rewritten for opset {}", self.node, self.op_type, self.opset)
    }
}
