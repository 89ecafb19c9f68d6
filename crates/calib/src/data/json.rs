//! Reads files of JSON that lie beside models.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{CalibError, FormatError};

/// Larger files are no configuration.
const MOST_BYTES: u64 = 16 << 20;

/// What a file of JSON says.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, CalibError> {
    let io = |source| CalibError::Io { path: path.into(), source };
    let malformed = |source| CalibError::Malformed { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    let needed = file.metadata().map_err(io)?.len();
    if needed > MOST_BYTES {
        return Err(malformed(FormatError::TooLarge { needed, limit: MOST_BYTES }));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(io)?;
    serde_json::from_slice(&bytes).map_err(|error| malformed(FormatError::Json(error)))
}
