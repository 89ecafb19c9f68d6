//! What can go wrong while reading, editing and writing a model.

use std::path::PathBuf;

use crate::violation::Violation;

/// An edit that the graph refused.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The value still has users.
    #[error("cannot remove value `{value}`: {users} users still read it")]
    StillUsed {
        /// Name of the value.
        value: String,
        /// How many users it has.
        users: usize,
    },
    /// A subgraph or the graph's interface refers to the value by name.
    #[error("cannot replace value `{value}`: it is a graph output or a subgraph reads it by name")]
    NamePinned {
        /// Name of the value.
        value: String,
    },
    /// The edit needs a value that a node makes.
    #[error("cannot let another node make value `{value}`: it is an input or an initializer")]
    NotMadeByNode {
        /// Name of the value.
        value: String,
    },
    /// The edit needs a node with exactly one output.
    #[error("cannot turn node {node} into a constant: it has not exactly one output")]
    NotOneOutput {
        /// The node.
        node: String,
    },
}

/// A model that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadModelError {
    /// The bytes are not an ONNX model that this build can keep whole.
    #[error(transparent)]
    Decode(#[from] onnxquant_proto::ReadError),
    /// External data cannot be used.
    #[error("cannot read external data of tensor `{tensor}` from `{location}`: {problem}")]
    External {
        /// Name of the tensor.
        tensor: String,
        /// The file named in the model.
        location: String,
        /// What is wrong.
        problem: String,
    },
    /// The model breaks rules of the format.
    #[error("invalid model: {}", list(.0))]
    Invalid(Vec<Violation>),
}

/// A model that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteModelError {
    /// The message could not be encoded.
    #[error(transparent)]
    Encode(#[from] onnxquant_proto::WriteError),
    /// A file could not be made.
    #[error("cannot write `{}`", path.display())]
    Io {
        /// The file that was to appear.
        path: PathBuf,
        /// Why it did not.
        #[source]
        source: std::io::Error,
    },
    /// What was read back differs from what was to be written.
    #[error("the written model failed its check: {0}")]
    Check(String),
}

/// One violation on the line, several in a list of at most twenty.
fn list(violations: &[Violation]) -> String {
    const SHOWN: usize = 20;
    match violations {
        [only] => only.to_string(),
        many => {
            let lines = many.iter().take(SHOWN).map(|violation| format!("\n  - {violation}")).collect::<String>();
            let rest = many.len().saturating_sub(SHOWN);
            let tail = if rest > 0 { format!("\n  - and {rest} more") } else { String::new() };
            format!("{} violations{lines}{tail}", many.len())
        }
    }
}
