//! In place of `remote` where this build does without: every address is refused.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::address::{Address, invalid};

/// Nothing is kept.
#[derive(Debug)]
pub struct Kept;

/// See the feature `remote`.
pub fn keep() -> Kept {
    Kept
}

/// See the feature `remote`.
pub fn foresee(_paths: &[PathBuf]) {}

/// Never made.
#[derive(Debug)]
pub(crate) enum Reading {}

/// Never made.
#[derive(Debug)]
pub enum Upload {}

fn refused(path: &Path) -> io::Error {
    match Address::of(path) {
        Err(error) => error,
        Ok(address) => invalid(format!(
            "this build reads no addresses of {:?}: build it with the feature `remote`, or fetch the file first",
            address.scheme
        )),
    }
}

pub(crate) fn is_folder(path: &Path) -> io::Result<bool> {
    Err(refused(path))
}

pub(crate) fn list(path: &Path) -> io::Result<Vec<String>> {
    Err(refused(path))
}

/// Refused.
///
/// # Errors
/// Always.
pub fn fetch(address: &Path, _to: &Path, _most: u64) -> io::Result<()> {
    Err(refused(address))
}

impl Upload {
    /// Refused.
    ///
    /// # Errors
    /// Always.
    pub fn begin(address: &Path) -> io::Result<Self> {
        Err(refused(address))
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn fill(&mut self, _from: &mut dyn Read) -> io::Result<()> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn finish(self) -> io::Result<()> {
        match self {}
    }
}

impl Reading {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Err(refused(path))
    }

    pub(crate) fn length(&self) -> u64 {
        match *self {}
    }
}

impl Read for Reading {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}

impl Seek for Reading {
    fn seek(&mut self, _to: SeekFrom) -> io::Result<u64> {
        match *self {}
    }
}

/// See the feature `remote`.
pub mod whole {
    use std::io;
    use std::path::Path;

    use super::refused;

    /// Refused.
    ///
    /// # Errors
    /// Always.
    pub fn get(address: &Path) -> io::Result<Option<Vec<u8>>> {
        Err(refused(address))
    }

    /// Refused.
    ///
    /// # Errors
    /// Always.
    pub fn has(address: &Path) -> io::Result<bool> {
        Err(refused(address))
    }

    /// Refused.
    ///
    /// # Errors
    /// Always.
    pub fn put(address: &Path, _bytes: Vec<u8>) -> io::Result<()> {
        Err(refused(address))
    }

    /// Refused.
    ///
    /// # Errors
    /// Always.
    pub fn remove(address: &Path) -> io::Result<()> {
        Err(refused(address))
    }
}
