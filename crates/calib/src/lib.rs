//! Calibration data, inference with tract, and layer statistics.
#![forbid(unsafe_code)]

mod data;
mod dump;
mod engine;
mod error;
mod tensor;

pub use data::{
    CalibSet, ChannelOrder, DataOptions, Dim, FormatError, ImageFit, ImageLayout, ImageOptions, InputSpec, NamedTensors,
    Sample, Split, read_npy, read_npz,
};
pub use dump::write_captures;
pub use engine::{Engine, Session};
pub use error::CalibError;
pub use tensor::{ElementType, Tensor};
