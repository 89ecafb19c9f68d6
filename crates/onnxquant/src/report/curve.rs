//! What bits buy, where they were chosen layer by layer.

use schemars::JsonSchema;
use serde::Serialize;

use crate::decide::curve::Curve;

/// What bits buy, as it was estimated from quick codes of every layer at every width.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BudgetReport {
    /// Bits of the layers that were measured alone.
    pub probe_bits: u32,
    /// By layer: how exact the outputs are when it alone has codes of so many bits, as its errors tell.
    pub alone: Vec<LayerAlone>,
    /// The files that bits layer by layer can make, from small to large.
    pub curve: Vec<CurvePoint>,
}

/// The outputs when one layer alone has codes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LayerAlone {
    /// The layer.
    pub label: String,
    /// SQNR of the outputs in dB.
    pub sqnr_db: f64,
}

/// A file that could be made.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CurvePoint {
    /// Its size.
    pub bytes: u64,
    /// Bits a weight on the average.
    pub average_bits: f64,
    /// SQNR of its outputs in dB, where errors of layers add up.
    pub sqnr_db: f64,
}

impl From<Curve> for BudgetReport {
    fn from(found: Curve) -> Self {
        let alone = found.alone.into_iter().map(|(label, sqnr_db)| LayerAlone { label, sqnr_db });
        let point = |(bytes, average_bits, sqnr_db)| CurvePoint { bytes, average_bits, sqnr_db };
        Self {
            probe_bits: found.probe_bits,
            alone: alone.collect(),
            curve: found.points.into_iter().map(point).collect(),
        }
    }
}
