//! What a run keeps, and how it tells whether it is whole.
//!
//! What can be made again is the text `onnxquant part`, values as postcard writes them, and a fingerprint of all that.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::fingerprint::of_bytes;
use crate::store::Store;

/// First bytes of what can be made again.
const MAGIC: &[u8] = b"onnxquant part\n";

/// Bytes of a fingerprint.
pub(super) const CHECK_BYTES: usize = 32;

/// Keeps what can be made again: nobody waits for the disk.
pub(super) fn write_value<T: Serialize>(store: &dyn Store, name: &str, value: &T) -> Result<(), Error> {
    let bytes = postcard::to_extend(value, MAGIC.to_vec());
    let bytes = with_check(bytes.map_err(|error| Error::Internal(error.to_string()))?);
    store.write(name, bytes, true).map_err(|error| failed(store, name, &error))
}

/// What can be made again; nothing where it is not there, or damaged: it is removed then.
pub(super) fn read_value<T: DeserializeOwned>(store: &dyn Store, name: &str) -> Result<Option<T>, Error> {
    let Some(bytes) = read(store, name)? else { return Ok(None) };
    let found = decode(&bytes);
    if found.is_none() {
        remove(store, name)?;
    }
    Ok(found)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(checked(bytes)?.strip_prefix(MAGIC)?).ok()
}

/// Bytes and their fingerprint.
pub(super) fn with_check(mut bytes: Vec<u8>) -> Vec<u8> {
    let check = of_bytes(&bytes);
    bytes.extend(check.as_bytes());
    bytes
}

/// The bytes without their fingerprint; nothing where it is that of others.
pub(super) fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    (of_bytes(bytes).as_bytes() == check).then_some(bytes)
}

/// What is kept under a name; nothing where there is nothing.
pub(super) fn read(store: &dyn Store, name: &str) -> Result<Option<Vec<u8>>, Error> {
    store.read(name).map_err(|error| failed(store, name, &error))
}

/// Whether something is kept under a name; what cannot be asked is not there, and told when it is read.
pub(super) fn has(store: &dyn Store, name: &str) -> bool {
    store.has(name).unwrap_or(false)
}

/// Removes what is kept under a name, unless it is gone.
pub(super) fn remove(store: &dyn Store, name: &str) -> Result<(), Error> {
    store.remove(name).map_err(|error| failed(store, name, &error))
}

/// Why something cannot be kept or read.
pub(super) fn failed(store: &dyn Store, name: &str, error: &io::Error) -> Error {
    Error::State { path: store.place().join(name), problem: error.to_string() }
}
