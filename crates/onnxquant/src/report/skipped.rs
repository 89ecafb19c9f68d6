//! Layers that stay in float.

use onnxquant_passes::sites::SkipReason;
use schemars::JsonSchema;
use serde::Serialize;

use crate::plan::layers::SkippedLayer;

/// A layer that stays in float.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SkippedReport {
    /// The node's name, or its first output's.
    pub label: String,
    /// Its operator.
    pub op_type: String,
    /// Shape of the weight, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_shape: Option<Vec<usize>>,
    /// Why, for programs.
    #[serde(flatten)]
    pub reason: SkipReason,
    /// Why, for people.
    pub why: String,
}

impl From<&SkippedLayer> for SkippedReport {
    fn from(found: &SkippedLayer) -> Self {
        let SkippedLayer { label, op_type, weight_shape, reason, .. } = found.clone();
        let why = reason.to_string();
        Self { label, op_type, weight_shape, reason, why }
    }
}
