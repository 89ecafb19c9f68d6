//! How exact the written model is in the runtime.

use onnxquant_calib::Measurement;
use onnxquant_passes::cpu::Cpu;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accuracy::Accuracy;
use crate::judge::served::OnRuntime;
use crate::report::outputs::{OutputReport, outputs_of};

/// The float file against the written one on held-out samples, both as ONNX Runtime runs them by default on this machine.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Measured {
    /// Name and version of the runtime.
    pub runtime: String,
    /// The class of this machine's processor.
    pub cpu: Cpu,
    /// Samples compared.
    pub samples: usize,
    /// How exact the outputs are.
    #[serde(flatten)]
    pub accuracy: Measurement<Accuracy>,
    /// The SQNR in dB that can be expected on new data: of held-out samples or of those used before, whichever is less,
    /// with the error raised by its standard error over the samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_db: Option<f64>,
    /// Samples used before that were compared for that.
    pub seen_samples: usize,
    /// By output.
    pub outputs: Vec<OutputReport>,
    /// Whether goals hold against it: not where the runtime cannot be asked.
    #[serde(skip)]
    pub(crate) counts: bool,
}

impl From<OnRuntime> for Measured {
    fn from(found: OnRuntime) -> Self {
        let OnRuntime { runtime, cpu, samples, accuracy, expected_db, seen_samples, outputs, counts } = found;
        Self { runtime, cpu, samples, accuracy, expected_db, seen_samples, outputs: outputs_of(&outputs), counts }
    }
}
