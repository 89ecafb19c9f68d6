//! The weights that stay floats, of all operators.

use onnxquant_ir::{Model, NodeId};
use onnxquant_passes::float_weights::{self, FloatReason, float_weights};
use onnxquant_passes::sites::SkipReason;
use serde::Serialize;

use crate::config::Config;
use crate::plan::layers::Plan;

/// What is said of all that has one dimension.
const VECTORS: &str = "biases and other vectors";

/// A weight that stays floats.
#[derive(Clone, Debug, Serialize)]
pub struct FloatWeight {
    /// Its name.
    pub name: String,
    /// The operators that read it, sorted.
    pub operators: Vec<String>,
    /// Bytes of its elements.
    pub bytes: usize,
    /// Why it is not stored as codes.
    pub reason: String,
    /// It is a bias or another vector: there may be many.
    #[serde(skip)]
    pub is_vector: bool,
}

impl Plan {
    /// The weights of `model` that are floats, or will be: it may be the model that was planned or the one that was
    /// written.
    pub fn float_weights(&self, model: &Model, config: &Config) -> Vec<FloatWeight> {
        float_weights(model).into_iter().filter_map(|found| self.float_weight(found, config)).collect()
    }

    /// Whether a layer gets codes, its own or those of a table.
    fn has_codes(&self, node: NodeId) -> bool {
        let is_head = self.tables.iter().any(|planned| planned.has_head(node));
        is_head || self.layers.iter().any(|layer| layer.site.node == node)
    }

    fn float_weight(&self, found: float_weights::FloatWeight, config: &Config) -> Option<FloatWeight> {
        if self.tables.iter().any(|table| table.name == found.name) {
            return None;
        }
        let is_vector = found.reason == FloatReason::Vector;
        let reason = match found.reason {
            FloatReason::Vector => VECTORS.to_owned(),
            FloatReason::OfLayer(node) if self.has_codes(node) => return None,
            FloatReason::OfLayer(node) => {
                let skipped = self.skipped.iter().find(|layer| layer.node == Some(node));
                skipped.map_or(&SkipReason::Excluded, |layer| &layer.reason).to_string()
            }
            FloatReason::Skipped(reason) => reason.to_string(),
            FloatReason::Table if config.embeddings.is_none() => SkipReason::Excluded.to_string(),
            FloatReason::Table => "a table that is small, of another type or not read by rows".to_owned(),
            FloatReason::NoForm => "no quantized form".to_owned(),
        };
        Some(FloatWeight { name: found.name, operators: found.operators, bytes: found.bytes, reason, is_vector })
    }
}
