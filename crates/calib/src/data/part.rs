//! Bytes that are read like a file: a whole one, or a member of an archive that lies in it as it is.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use onnxquant_storage::Opened;

use crate::error::CalibError;

/// A file, or a stretch of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    file: PathBuf,
    /// What messages call it.
    label: PathBuf,
    start: u64,
    /// Bytes of the stretch; `None`: all that follow.
    length: Option<u64>,
}

impl Part {
    /// All of a file.
    pub(crate) fn whole(file: PathBuf) -> Self {
        Self { label: file.clone(), file, start: 0, length: None }
    }

    /// A stretch of an archive.
    pub(crate) fn member(file: PathBuf, name: &str, start: u64, bytes: u64) -> Self {
        Self { label: file.join(name.trim_start_matches('/')), file, start, length: Some(bytes) }
    }

    /// The file in which it lies.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// What messages call it: a path, of a member with that of its archive before it.
    pub(crate) fn label(&self) -> &Path {
        &self.label
    }

    /// Opens it; the first byte read is its first one.
    pub(crate) fn open(&self) -> Result<BufReader<Section>, CalibError> {
        let open = || {
            let mut file = onnxquant_storage::open(&self.file)?;
            let all = file.length().saturating_sub(self.start);
            file.seek(SeekFrom::Start(self.start))?;
            Ok(Section { file, start: self.start, length: self.length.map_or(all, |length| length.min(all)), at: 0 })
        };
        open().map(BufReader::new).map_err(|source| CalibError::Io { path: self.label.clone(), source })
    }
}

/// A stretch of an open file.
#[derive(Debug)]
pub(crate) struct Section {
    file: Opened,
    start: u64,
    length: u64,
    at: u64,
}

impl Section {
    /// Bytes of the stretch.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.at);
        let read = (&mut self.file).take(left).read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let place = at.and_then(|at| self.start.checked_add(at));
        let (Some(at), Some(place)) = (at, place) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a place before the beginning"));
        };
        self.file.seek(SeekFrom::Start(place))?;
        self.at = at;
        Ok(at)
    }
}
