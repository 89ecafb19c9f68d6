//! Makes an ONNX model smaller: float model and calibration samples in, quantized model and report out.
//!
//! [`quantize`] is the whole job; [`Plan::new`] says what it would do; [`compare()`] measures two models
//! against each other. The steps stand in the order of the pipeline:
//!
//! ```text
//! load -> plan -> calibration -> integer -> solve -> fit -> write -> report
//! ```

#![forbid(unsafe_code)]

mod accuracy;
mod allot;
mod attempt;
mod calibration;
mod compare;
mod config;
mod embeddings;
mod error;
mod files;
mod fingerprint;
mod fit;
mod form;
mod integer;
mod judge;
mod load;
mod mixed;
mod observe;

mod pipeline;
mod plan;
mod plan_file;
mod progress;
mod raise;
mod reach;
mod report;
mod rescale;
mod selected;
mod sketch;
mod slicing;
mod solve;
mod state;
mod streams;
mod tied;
mod verify_ort;
mod write;

pub use accuracy::Accuracy;
pub use compare::compare;
pub use config::{
    AUTO_SQNR_DB, ActivationBits, Activations, Budget, Config, DEFAULT_OPSET_MAX, DataConfig, Format, MethodChoice,
    Target, Verify,
};
pub use embeddings::{PlannedTable, TableReport};
pub use error::Error;
pub use files::{Files, is_standard_output};
pub use integer::Origin;
pub use load::{PassTrace, Prepared, prepare, read, trace_passes};
pub use onnxquant_calib as calib;
pub use onnxquant_ir::PendingFile;
pub use onnxquant_passes::cpu::Cpu;
pub use onnxquant_passes::ort_version::OrtVersion;
pub use onnxquant_passes::runs_as::{Kernel, RunsAs};
pub use onnxquant_passes::weight_form::{Codes, WeightForm};
pub use onnxquant_quant as quant;
pub use pipeline::quantize;
pub use plan::{Plan, PlannedLayer, SkippedLayer};
pub use plan_file::PlanFile;
pub use progress::{Phase, Progress, silent};
pub use reach::{NotRun, NotRunNode};
pub use report::{
    CacheReport, HeldOut, IntegerReport, LayerReport, OutputFigures, OutputReport, PartReport, Report, Sensitivity,
    TensorReport, Trade, Weights,
};
pub use verify_ort::{Mispredicted, VerifiedOrt};
