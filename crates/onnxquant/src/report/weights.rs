//! How the weights of a layer are spread, and their codes.

use onnxquant_ir::Model;
use onnxquant_quant::{Histogram, outline};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Error;
use crate::plan::layers::PlannedLayer;
use crate::solve::solved::CodeUse;
use crate::solve::weights::stored_weight;

/// Bins in which weights are counted.
const BINS: usize = 40;
/// Bins in which codes are counted, at most: one a code up to 5 bits.
const CODE_BINS: usize = 32;

/// How the weights of a layer are spread, and their codes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WeightReport {
    /// The least weight.
    pub least: f32,
    /// The greatest weight.
    pub greatest: f32,
    /// Weights in bins of equal width from the least to the greatest.
    pub counts: Vec<u64>,
    /// The codes in use.
    pub codes: CodeReport,
}

/// Which codes a layer has.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CodeReport {
    /// What the lowest and the highest of them stand for, on the scale that is the median of all.
    pub ends: [f32; 2],
    /// Codes from the lowest to the highest.
    pub levels: usize,
    /// How many of these any weight has.
    pub used: usize,
    /// Weights by code, or by so many neighbouring codes as leave few bins.
    pub counts: Vec<u64>,
}

impl WeightReport {
    /// Of a layer of `model`, in float, with these codes.
    pub(super) fn new(model: &Model, layer: &PlannedLayer, codes: &CodeUse) -> Result<Self, Error> {
        let stored = stored_weight(model, layer)?;
        let mut histogram = Histogram::new();
        // Elements of a tensor that was read lie one behind the other.
        stored.as_slice_memory_order().map_or(Ok(()), |numbers| histogram.push(numbers))?;
        let counts = outline(&histogram, BINS);
        Ok(Self { least: histogram.min(), greatest: histogram.max(), counts, codes: CodeReport::from(codes) })
    }
}

impl From<&CodeUse> for CodeReport {
    fn from(found: &CodeUse) -> Self {
        let levels = found.counts.len();
        let together = levels.div_ceil(CODE_BINS).max(1);
        Self {
            ends: found.ends,
            levels,
            used: found.counts.iter().filter(|&&count| count > 0).count(),
            counts: found.counts.chunks(together).map(|bin| bin.iter().sum()).collect(),
        }
    }
}
