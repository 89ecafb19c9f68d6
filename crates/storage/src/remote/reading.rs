//! A place in an object from which is read.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::held::{Kept, keep};
use super::object::{BLOCK_BYTES, MOST_BLOCKS, Object};

/// An object, and how far it was read.
#[derive(Debug)]
pub(crate) struct Reading {
    object: Arc<Object>,
    _kept: Kept,
    at: u64,
    /// Blocks that are fetched when one is missing: more and more while reading goes straight on.
    ahead: u64,
    /// Where the next block would be missing then.
    next: u64,
}

impl Reading {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let kept = keep();
        Ok(Self { object: Object::open(path)?, _kept: kept, at: 0, ahead: 1, next: BLOCK_BYTES })
    }

    pub(crate) fn length(&self) -> u64 {
        self.object.length()
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.length() && self.object.lacks(self.at) {
            let first = self.at / BLOCK_BYTES * BLOCK_BYTES;
            self.ahead = if first == self.next { (self.ahead * 2).min(MOST_BLOCKS) } else { 1 };
            self.next = first + self.ahead * BLOCK_BYTES;
        }
        let read = self.object.read(self.at, self.ahead, buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reading {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the beginning");
        self.at = at.ok_or_else(before)?;
        Ok(self.at)
    }
}
