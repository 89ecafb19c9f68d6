//! Why a run failed.

use std::path::PathBuf;

use onnxquant_calib::{CalibError, OrtError};
use onnxquant_ir::{GraphError, ReadModelError, TensorError, Violation, WriteModelError};
use onnxquant_passes::check_attributes::IllegalAttribute;
use onnxquant_passes::decode_weights::DecodeError;
use onnxquant_passes::raise_opset::RaiseError;
use onnxquant_passes::raise_type::RaiseTypeError;
use onnxquant_proto::ReadError;
use onnxquant_quant::QuantError;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that make no sense.
    #[error("{0}")]
    Usage(String),
    /// The model cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The model.
        path: PathBuf,
        /// Why.
        #[source]
        source: ReadModelError,
    },
    /// Attributes of nodes that their operators do not allow.
    #[error("cannot use `{}`: {}", path.display(), list(illegal))]
    Attributes {
        /// The model.
        path: PathBuf,
        /// All of them.
        illegal: Vec<IllegalAttribute>,
    },
    /// The calibration data or the model on it failed.
    #[error(transparent)]
    Calibration(#[from] CalibError),
    /// A layer could not be quantized.
    #[error("cannot quantize `{layer}` (weight `{weight}`)")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// Name of its weight.
        weight: String,
        /// Why.
        #[source]
        source: QuantError,
    },
    /// A weight is NaN or infinite.
    #[error("weight `{tensor}` holds {value} at {index:?}, expected finite numbers")]
    NonFinite {
        /// Name of the weight.
        tensor: String,
        /// The first such element.
        index: Vec<usize>,
        /// What it is.
        value: f32,
    },
    /// Settings that the mathematics refuses.
    #[error(transparent)]
    Quant(#[from] QuantError),
    /// The opset cannot be raised as the codes need.
    #[error(transparent)]
    Opset(#[from] RaiseError),
    /// What is f16 or bf16 cannot be made f32.
    #[error(transparent)]
    Type(#[from] RaiseTypeError),
    /// A tensor of the model is not what it declares.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The result cannot be written.
    #[error(transparent)]
    Write(#[from] WriteModelError),
    /// A plan of bits cannot be used.
    #[error("cannot use plan `{}`: {problem}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// What was kept of an earlier run cannot be used.
    #[error("cannot continue from `{}`: {problem}", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// Other processes have to do something first; nothing is wrong.
    #[error("{0}")]
    Waiting(String),
    /// A process has done all that its share is; nothing is wrong.
    #[error("the share of this process is done")]
    ShareDone,
    /// A model cannot be measured by the user's own figure.
    #[error("cannot measure the metric: {0}")]
    Metric(String),
    /// ONNX Runtime was asked for and is not there, or does not take what was written.
    #[error("cannot verify in ONNX Runtime: {0}")]
    Verify(String),
    /// ONNX Runtime cannot be used, or not with a file.
    #[error(transparent)]
    Runtime(#[from] OrtError),
    /// A model that is to be run cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// A file cannot be run.
    #[error("cannot run `{}`: {problem}", path.display())]
    Run {
        /// The model.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A file cannot be read again for its hash.
    #[error("cannot read `{}` for its hash: {problem}", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A stored report cannot be used.
    #[error("cannot use the report `{}`: {problem}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A folder holds no model that can be quantized.
    #[error("cannot use the folder `{}`: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// What is behind an address cannot be had.
    #[error("cannot fetch `{}`: {problem}", path.display())]
    Fetch {
        /// The address.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// Files cannot be used as asked.
    #[error("cannot write `{}`: {problem}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A defect of this program.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Whether the fault lies in this program rather than in what it was given.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Internal(_) | Self::Write(WriteModelError::Check(_)))
    }

    /// Whether the calibration engine could not run the model.
    pub(crate) fn is_of_engine(&self) -> bool {
        matches!(self, Self::Calibration(CalibError::Load { .. } | CalibError::Run { .. }))
    }

    /// A pass that left a model broken.
    pub(crate) fn broken(pass: &str, violations: &[Violation]) -> Self {
        Self::Internal(format!("{pass} left an invalid model: {}", list(violations)))
    }
}

fn list(problems: &[impl ToString]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<GraphError> for Error {
    fn from(error: GraphError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Tensor(error) => Self::Tensor(error),
            DecodeError::Graph(error) => error.into(),
        }
    }
}
