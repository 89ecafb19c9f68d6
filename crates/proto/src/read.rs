//! Reads a model from a file or from bytes.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;

use crate::IR_VERSION;
use crate::appearance::appearance;
use crate::check::{WireError, check};
use crate::fields::MODEL_PROTO;
use crate::map_file::map_file;
use crate::onnx::{GraphProto, ModelProto};
use crate::wire::first_varint;

/// A model that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", self.subject())]
pub struct ReadError {
    path: Option<PathBuf>,
    #[source]
    problem: ReadProblem,
}

/// Why a model could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadProblem {
    /// The file could not be opened or mapped.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There are no bytes.
    #[error("it is empty")]
    Empty,
    /// The bytes are something else.
    #[error("it is not an ONNX model; it looks like {appearance}")]
    NotAModel {
        /// What they look like.
        appearance: &'static str,
    },
    /// The bytes are not what the schema allows.
    #[error("it does not follow the ONNX schema")]
    Wire(#[from] WireError),
    /// A string is not UTF-8.
    #[error("it does not follow the ONNX schema")]
    Decode(#[from] prost::DecodeError),
    /// No IR version, or one below 1.
    #[error("it states no IR version (field `ir_version`), so it is no ONNX model")]
    NoIrVersion,
    /// The file format is newer than the schema.
    #[error(
        "it has IR version {found}, this build reads up to {IR_VERSION}; export the model for an older version or update `onnxquant`"
    )]
    NewIrVersion {
        /// The version stated.
        found: i64,
    },
    /// No graph, or one without any content.
    #[error("it has no graph")]
    NoGraph,
}

impl ReadError {
    /// The file, if it was read from one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What was wrong.
    pub fn problem(&self) -> &ReadProblem {
        &self.problem
    }

    fn subject(&self) -> String {
        self.path.as_ref().map_or("model".into(), |path| format!("model `{}`", path.display()))
    }
}

/// Reads a model file; its weights stay slices of the mapped file.
///
/// The file must not be truncated or changed as long as the model, or any `raw_data` taken
/// from it, is alive: write to a new file and rename it. External data are not read.
///
/// Decoding takes memory for everything but `raw_data`: messages and elements of at most
/// 64 MiB + 32 x the bytes of the input that are not `raw_data`, in vectors that grow by
/// doubling. Input that would take more, such as millions of empty nodes, is refused before
/// anything is decoded.
///
/// # Errors
/// A file that cannot be read, is empty, is no ONNX model, is newer than [`IR_VERSION`],
/// or holds fields that the schema does not know.
pub fn read_model(path: &Path) -> Result<ModelProto, ReadError> {
    let model = map_file(path).map_err(ReadProblem::Io).and_then(decode);
    model.map_err(|problem| ReadError { path: Some(path.to_path_buf()), problem })
}

/// Decodes a model; its weights stay slices of `bytes`.
///
/// # Errors
/// As [`read_model`].
pub fn decode_model(bytes: Bytes) -> Result<ModelProto, ReadError> {
    decode(bytes).map_err(|problem| ReadError { path: None, problem })
}

fn decode(bytes: Bytes) -> Result<ModelProto, ReadProblem> {
    if bytes.is_empty() {
        return Err(ReadProblem::Empty);
    }
    decode_checked(bytes.clone()).map_err(|problem| match (problem, appearance(&bytes)) {
        (problem @ ReadProblem::NewIrVersion { .. }, _) | (problem, None) => problem,
        (_, Some(appearance)) => ReadProblem::NotAModel { appearance },
    })
}

fn decode_checked(bytes: Bytes) -> Result<ModelProto, ReadProblem> {
    refuse_newer(stated_ir_version(&bytes))?;
    check(&bytes, &MODEL_PROTO)?;
    let model = ModelProto::decode(bytes)?;
    refuse_newer(model.ir_version)?;
    if model.ir_version.is_none_or(|version| version < 1) {
        return Err(ReadProblem::NoIrVersion);
    }
    if model.graph.as_ref().is_none_or(|graph| *graph == GraphProto::default()) {
        return Err(ReadProblem::NoGraph);
    }
    Ok(model)
}

fn refuse_newer(ir_version: Option<i64>) -> Result<(), ReadProblem> {
    match ir_version {
        Some(found) if found > IR_VERSION => Err(ReadProblem::NewIrVersion { found }),
        _ => Ok(()),
    }
}

/// The field `ir_version`, read without decoding: a newer model may hold anything else.
fn stated_ir_version(bytes: &[u8]) -> Option<i64> {
    first_varint(bytes, 1)?.try_into().ok()
}
