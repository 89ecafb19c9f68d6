//! What was tried on the way to the layers that run on integers, and what it showed.

use onnxquant_calib::Measurement;
use onnxquant_ir::NodeId;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accuracy::Accuracy;

/// What was tried, for the report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trail {
    /// Inputs of layers on scales made at run time whose channels were rescaled.
    pub(crate) rescaled: usize,
    /// Tensors on fixed scales whose channels were evened out.
    pub(crate) equalized: usize,
    /// What single layers do, the most sensitive first; empty where nothing had to go.
    pub(crate) alone: Vec<Alone>,
    /// Round by round: what went back to float.
    pub(crate) rounds: Vec<Round>,
}

/// The outputs when one layer alone, with what follows it, reads integers.
#[derive(Clone, Debug)]
pub(crate) struct Alone {
    pub(crate) leader: NodeId,
    pub(crate) accuracy: Measurement<Accuracy>,
    /// Time that integers save there, estimated, in nanoseconds a sample.
    pub(crate) saved_ns: f64,
}

/// A round of the search for layers that must stay in float.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// Leaders that went back to float activations; empty in the first round.
    pub(crate) to_float: Vec<NodeId>,
    /// Leaders whose activations got 16 bits, likewise.
    pub(crate) to_16_bits: Vec<NodeId>,
    /// Layers left on integers.
    pub(crate) integer_layers: usize,
    pub(crate) accuracy: Measurement<Accuracy>,
    /// Estimated time of the regions' graph over that in float.
    pub(crate) relative_time: f64,
    pub(crate) weights: Weights,
    pub(crate) judged_by: JudgedBy,
}

/// Who says how exact outputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JudgedBy {
    /// The calibration engine, which computes what the written model will.
    Simulation,
    /// ONNX Runtime.
    Runtime,
    /// A figure of the user's own.
    Metric,
}

/// What weights are when activations are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// Floats still: layers are fitted only to activations that are exact enough.
    Float,
    /// The codes that are written.
    Codes,
}

impl Alone {
    /// The power of the error that the layer makes alone, over that of the outputs; where it was not measured, as large as
    /// they are.
    pub(super) fn power(&self) -> f64 {
        self.accuracy.measured().map_or(1.0, Accuracy::power)
    }
}
