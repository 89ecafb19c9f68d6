//! Layers that stay in float.

use schemars::JsonSchema;
use serde::Serialize;

use crate::plan::layers::SkippedLayer;

/// A layer that stays in float.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SkippedReport {
    /// Which, and why for programs.
    #[serde(flatten)]
    pub layer: SkippedLayer,
    /// Why, for people.
    pub why: String,
}

impl From<&SkippedLayer> for SkippedReport {
    fn from(layer: &SkippedLayer) -> Self {
        Self { layer: layer.clone(), why: layer.reason.to_string() }
    }
}
