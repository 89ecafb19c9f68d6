//! Files in the folder of a run, which appear whole or not at all.
//!
//! What can be made again is the text `onnxquant part`, values as postcard writes them, and a fingerprint of all that.

use std::io::Write;
use std::path::Path;

use onnxquant_ir::PendingFile;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::fingerprint::of_bytes;

/// First bytes of a file that can be made again.
const MAGIC: &[u8] = b"onnxquant part\n";

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

/// Writes what can be made again: nobody waits for the disk.
pub(super) fn write_value<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = postcard::to_extend(value, MAGIC.to_vec());
    let bytes = bytes.map_err(|error| Error::Internal(error.to_string()))?;
    let written = pending(path, &[&bytes, of_bytes(&bytes).as_bytes()]).and_then(PendingFile::commit_unsynced);
    written.map_err(|error| failed(path, &error))
}

/// What can be made again; nothing where it is not there, or damaged: it is removed then.
pub(super) fn read_value<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let found = decode(&bytes);
    if found.is_none() {
        remove(path)?;
    }
    Ok(found)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (bytes, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    let is_whole = of_bytes(bytes).as_bytes() == check;
    postcard::from_bytes(bytes.strip_prefix(MAGIC).filter(|_| is_whole)?).ok()
}

/// Removes a file, unless it is gone.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(path, &error)),
        _ => Ok(()),
    }
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
