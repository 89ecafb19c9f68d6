//! Reads files of JSON that lie beside models.

use std::path::Path;

use onnxquant_storage::read_at_most;
use serde::de::DeserializeOwned;

use crate::error::{CalibError, FormatError};

/// Larger files are no configuration.
const MOST_BYTES: u64 = 16 << 20;

/// What a file of JSON says.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, CalibError> {
    let io = |source| CalibError::Io { path: path.into(), source };
    let malformed = |source| CalibError::Malformed { path: path.into(), source };
    let bytes = read_at_most(path, MOST_BYTES).map_err(io)?;
    let bytes = bytes.map_err(|needed| malformed(FormatError::TooLarge { needed, limit: MOST_BYTES }))?;
    serde_json::from_slice(&bytes).map_err(|error| malformed(FormatError::Json(error)))
}
