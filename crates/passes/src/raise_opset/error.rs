//! Why a model cannot be raised.

use onnxquant_ir::Violation;

use super::span::{HIGHEST_TARGET, LOWEST_TARGET, Span};

/// A model that stays at its opset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RaiseError {
    /// The target is outside what this build knows.
    #[error("cannot raise the opset to {target}: expected a number from {} to {}", LOWEST_TARGET, HIGHEST_TARGET)]
    UnknownTarget {
        /// The opset asked for.
        target: i64,
    },
    /// The model holds training graphs, which nothing here rewrites.
    #[error("cannot raise the opset from {} to {}: the model carries `training_info`; remove it first", span.from, span.to)]
    TrainingInfo {
        /// The opsets.
        span: Span,
    },
    /// A node has no safe form at the target.
    #[error("cannot raise the opset from {} to {}: node `{node}` ({op_type}): {refusal}", span.from, span.to)]
    Node {
        /// The opsets.
        span: Span,
        /// The node's name, or its first output where it has none.
        node: String,
        /// The operator.
        op_type: String,
        /// Why.
        refusal: Refusal,
    },
    /// The rewritten message breaks rules of the format.
    #[error("the model is invalid after raising its opset: {}", list(.0))]
    Invalid(Vec<Violation>),
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a node cannot be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The default domain has no such operator at the model's opset.
    #[error("the operator is not part of opset {opset}")]
    UnknownOperator {
        /// The model's opset.
        opset: i64,
    },
    /// The operator was withdrawn before the model's opset.
    #[error("the operator was withdrawn at opset {opset}")]
    Withdrawn {
        /// The opset that withdrew it.
        opset: i64,
    },
    /// The node computes training statistics or drops values at random.
    #[error("the node runs in training mode; export the model for inference")]
    Training,
    /// The rank decides what to write, and the model does not tell it.
    #[error("the rank of `{value}` is unknown; run shape inference first")]
    UnknownRank {
        /// The value.
        value: String,
    },
    /// The element type decides what to write, and the model does not tell it.
    #[error("the element type of `{value}` is unknown; run shape inference first")]
    UnknownType {
        /// The value.
        value: String,
    },
    /// The new form needs the number at conversion time.
    #[error("`{value}` must be a constant")]
    NotConstant {
        /// The value.
        value: String,
    },
    /// An attribute the operator requires is absent or of another kind.
    #[error("attribute `{attribute}` is missing or malformed")]
    Attribute {
        /// The attribute.
        attribute: &'static str,
    },
    /// In a local function, an attribute that must become an input is bound to one of the function.
    #[error("attribute `{attribute}` is bound to an attribute of the local function; inline the function first")]
    BoundAttribute {
        /// The attribute.
        attribute: String,
    },
    /// The newer operator cannot express what the node does.
    #[error("{form} has no counterpart from opset {opset} on")]
    NoCounterpart {
        /// What the node does.
        form: &'static str,
        /// The opset that took it away.
        opset: i64,
    },
}
