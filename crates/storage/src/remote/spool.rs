//! The temporary file in which fetched stretches are kept.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

/// A file without a name to which stretches of all objects are appended.
#[derive(Debug)]
pub(super) struct Spool(Mutex<File>);

/// Where a stretch lies in the spool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) at: u64,
    pub(super) bytes: u64,
}

impl Spool {
    pub(super) fn new() -> io::Result<Self> {
        tempfile::tempfile().map(|file| Self(Mutex::new(file))).map_err(|error| unkept(&error))
    }

    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<Stretch> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = file.seek(SeekFrom::End(0))?;
        file.write_all(bytes).map_err(|error| unkept(&error))?;
        Ok(Stretch { at, bytes: bytes.len() as u64 })
    }

    pub(super) fn read(&self, stretch: Stretch, from: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(stretch.at + from))?;
        (&mut *file).take(stretch.bytes - from).read(buffer)
    }
}

fn unkept(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("what was fetched cannot be kept in a temporary file (TMPDIR): {error}"))
}
