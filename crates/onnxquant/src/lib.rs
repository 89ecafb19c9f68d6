//! Makes an ONNX model smaller: float model and calibration samples in, quantized model and report out.
//!
//! [`quantize`] is the whole job; [`Plan::new`] says what it would do; [`compare()`] measures two models
//! against each other.
//!
//! Files and folders are floors. Each imports its own and those below, and hands values up:
//!
//! | floor | what it does |
//! |---|---|
//! | `anonymize` | a model without weights and names, to be shown |
//! | `given`, `delivery` | models behind addresses |
//! | `folder` | the same from folder to folder |
//! | `forecast` | what the job would do and cost |
//! | `pipeline` | the job from the input file to the output file |
//! | `report` | what was done, made once of the values below |
//! | `files` | which files a run reads and writes, and whether it may |
//! | `attempt` | solves what the engine can run; where it fails on the way, again with less |
//! | `decide` | measures candidates and picks: integers, ranges, bits |
//! | `solve` | codes for every layer |
//! | `judge` | how exact outputs are, and what ONNX Runtime makes of the file |
//! | `observe` | runs samples and gathers statistics |
//! | `write` | codes into the model, the model into a file |
//! | `plan` | what will be done with every layer and operator |
//! | `load` | reads and prepares a model |
//! | `config`, `store`, `plan_file`, `accuracy`, `fingerprint`, `progress`, `error` | what all of them know |

#![forbid(unsafe_code)]

mod accuracy;
mod anonymize;
mod attempt;
mod bench;
mod config;
mod decide;
mod delivery;
mod error;
mod files;
mod fingerprint;
mod folder;
mod forecast;
mod given;
mod judge;
mod load;
mod observe;
mod pipeline;
mod plan;
mod plan_file;
mod progress;
mod report;
mod solve;
mod store;
#[cfg(test)]
mod testing;
mod write;

pub use accuracy::{Accuracy, TokenFigures};
pub use anonymize::{Anonymized, anonymize};
pub use bench::{Bench, BenchReport, Timing, bench};
pub use config::{
    AUTO_SQNR_DB, ActivationBits, Activations, Budget, Config, DEFAULT_OPSET_MAX, DataConfig, Duty, EngineChoice,
    Format, KvCache, LayerRule, LayerRuleError, Measuring, MethodChoice, Metric, Shard, Target,
};
pub use decide::trail::{JudgedBy, Weights};
pub use delivery::{Delivery, check_addresses};
pub use error::Error;
pub use files::{Files, is_open_elsewhere, is_standard_output};
pub use folder::{ModelFolder, model_file};
pub use forecast::{Forecast, forecast};
pub use given::GivenModel;
pub use judge::compare::{Compared, Comparison, compare};
pub use judge::tensors::TensorComparison;
pub use judge::trial::{try_embedded, try_runtime};
pub use judge::verify_ort::{Mispredicted, VerifiedOrt};
pub use load::{PassTrace, Prepared, inputs, prepare, read, trace_passes};
pub use observe::engine::EngineReport;
pub use observe::observer::CacheReport;
pub use observe::texts::TextReport;
pub use onnxquant_calib as calib;
pub use onnxquant_ir::PendingFile;
pub use onnxquant_passes::cpu::Cpu;
pub use onnxquant_passes::ort_version::OrtVersion;
pub use onnxquant_passes::runs_as::{Kernel, RunsAs};
pub use onnxquant_passes::weight_form::{Codes, WeightForm};
pub use onnxquant_quant as quant;
pub use onnxquant_storage as storage;
pub use pipeline::{Finished, quantize, quantize_unnamed, share};
pub use plan::float_weights::FloatWeight;
pub use plan::layers::{Plan, PlannedBody, PlannedLayer, SkippedLayer};
pub use plan::scales::Origin;
pub use plan::tables::PlannedTable;
pub use plan_file::PlanFile;
pub use progress::{Phase, Progress, silent};
pub use report::caches::KvCacheReport;
pub use report::changes::{Changes, Fact, LayerChange, LayerState};
pub use report::compared::{CompareReport, TensorFigures};
pub use report::curve::{BudgetReport, CurvePoint, LayerAlone};
pub use report::folder::{FolderReport, OtherModel, OtherQuantized};
pub use report::integers::{IntegerReport, Sensitivity, TensorReport, Trade};
pub use report::layers::LayerReport;
pub use report::measured::Measured;
pub use report::metric::MetricReport;
pub use report::not_run::{NotRun, NotRunNode};
pub use report::outcome::Outcome;
pub use report::outputs::{HeldOut, OutputFigures, OutputReport, PartReport};
pub use report::record::{FileRecord, FileRecords, Machine, RunRecord, Step};
pub use report::run::{RaisedTypeReport, Report};
pub use report::schema::report_schema;
pub use report::skipped::SkippedReport;
pub use report::spine::{OperatorCount, Precision, SpineNode};
pub use report::stored::StoredReport;
pub use report::tables::TableReport;
pub use report::weights::{CodeReport, WeightReport};
pub use report::words;
pub use store::{Store, store_at};
