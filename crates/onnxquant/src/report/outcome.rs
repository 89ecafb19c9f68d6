//! Whether a run did what was asked for, and what to do next.

use schemars::JsonSchema;
use serde::Serialize;

/// Whether a run did what was asked for, and what to do next.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Outcome {
    /// What was asked for and was not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
    /// Why what was written may not be what was meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// What to do next, the most useful first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
}
