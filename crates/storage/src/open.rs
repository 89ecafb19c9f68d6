//! Opens what is read: a file, or an object behind an address.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::address::is_address;
use crate::remote::Reading;

/// A file or an object that is read.
#[derive(Debug)]
pub struct Opened {
    source: Source,
    length: u64,
}

#[derive(Debug)]
enum Source {
    File(File),
    Object(Reading),
}

/// Opens the file or object at `path`.
///
/// # Errors
/// It is not there, or cannot be reached.
pub fn open(path: &Path) -> io::Result<Opened> {
    if is_address(path) {
        let reading = Reading::open(path)?;
        let length = reading.length();
        return Ok(Opened { source: Source::Object(reading), length });
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok(Opened { source: Source::File(file), length })
}

/// All of it, where it has at most so many bytes; else how many it has.
///
/// # Errors
/// As [`open`]; or it ends early.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Result<Vec<u8>, u64>> {
    let opened = open(path)?;
    if opened.length > most {
        return Ok(Err(opened.length));
    }
    let mut bytes = Vec::new();
    opened.take(most).read_to_end(&mut bytes)?;
    Ok(Ok(bytes))
}

impl Opened {
    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::File(file) => file.read(buffer),
            Source::Object(reading) => reading.read(buffer),
        }
    }
}

impl Seek for Opened {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.source {
            Source::File(file) => file.seek(to),
            Source::Object(reading) => reading.seek(to),
        }
    }
}
