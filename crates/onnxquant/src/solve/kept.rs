//! Files in the folder of a run, which appear whole or not at all.

use std::io::Write;
use std::path::Path;

use onnxquant_ir::PendingFile;

use crate::error::Error;

/// Bytes of a fingerprint.
pub(super) const CHECK_BYTES: usize = 32;

/// What a file holds; nothing where it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

/// Writes a file of several parts.
pub(super) fn write(path: &Path, parts: &[&[u8]]) -> Result<(), Error> {
    pending(path, parts).and_then(PendingFile::commit).map_err(|error| failed(path, &error))
}

/// The same of what can be made again: nobody waits for the disk.
pub(super) fn write_part(path: &Path, parts: &[&[u8]]) -> Result<(), Error> {
    pending(path, parts).and_then(PendingFile::commit_unsynced).map_err(|error| failed(path, &error))
}

fn pending(path: &Path, parts: &[&[u8]]) -> std::io::Result<PendingFile> {
    let mut file = PendingFile::create(path)?;
    parts.iter().try_for_each(|part| file.file().write_all(part))?;
    Ok(file)
}

/// Why the folder cannot be used.
pub(super) fn failed(path: &Path, problem: &dyn std::fmt::Display) -> Error {
    Error::State { path: path.to_owned(), problem: problem.to_string() }
}
