//! Calibration data, inference with tract, and layer statistics.
#![forbid(unsafe_code)]

mod compare;
mod data;
mod dump;
mod engine;
mod error;
mod inline;
mod run;
mod statistics;
mod tensor;

pub use compare::{OutputComparison, compare, total_sqnr_db};
pub use data::{
    CalibSet, ChannelOrder, DataOptions, Dim, FormatError, ImageFit, ImageLayout, ImageOptions, InputSpec,
    NamedTensors, Sample, Split, read_npy, read_npz,
};
pub use dump::write_captures;
pub use engine::{Engine, Session};
pub use error::CalibError;
pub use inline::inline_functions;
pub use run::{Progress, SampleRun, for_each_batch};
pub use statistics::{StatKind, StatRequest, collect, gram_bytes};
pub use tensor::{ElementType, Tensor};
