//! Writes an object, whole or not at all.

use std::io::{self, Read};
use std::path::Path;

use object_store::{ObjectStoreExt, WriteMultipart};

use super::held::{Kept, keep, wait};
use super::store::Place;
use crate::address::invalid;

/// Bytes of a part; stores take at most 10,000 parts.
const PART_BYTES: usize = 16 << 20;
/// Parts that are on their way at once.
const PARTS: usize = 3;

/// An object that is being written: until [`Upload::finish`] nobody sees it, and one that is dropped is given up.
#[derive(Debug)]
pub struct Upload {
    place: Place,
    writer: Option<WriteMultipart>,
    _kept: Kept,
}

impl Upload {
    /// Begins one, which tells whether it may be written.
    ///
    /// # Errors
    /// It may not, the store cannot be reached, or there is none to be written to.
    pub fn begin(address: &Path) -> io::Result<Self> {
        let kept = keep();
        let place = Place::of(address)?;
        if place.address.is_url() {
            return Err(invalid(
                "nothing is written to a web server: name a file, or an object of s3, gs or az".into(),
            ));
        }
        if place.address.is_folder {
            return Err(invalid("the address names no object, expected a name that does not end in `/`".into()));
        }
        let upload = wait(place.store.put_multipart(&place.key))?.map_err(|error| place.failure(&error))?;
        let writer = wait(async { WriteMultipart::new_with_chunk_size(upload, PART_BYTES) })?;
        Ok(Self { place, writer: Some(writer), _kept: kept })
    }

    /// Sends what is read.
    ///
    /// # Errors
    /// It cannot be read or sent.
    pub fn fill(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let mut part = vec![0; PART_BYTES];
        loop {
            let read = from.read(&mut part)?;
            if read == 0 {
                return Ok(());
            }
            let send = async {
                writer.wait_for_capacity(PARTS).await?;
                writer.write(&part[..read]);
                Ok(())
            };
            wait(send)?.map_err(|error| self.place.failure(&error))?;
        }
    }

    /// Makes it visible, in place of what had its name.
    ///
    /// # Errors
    /// It cannot be finished; then it is given up.
    pub fn finish(mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        wait(writer.finish())?.map(drop).map_err(|error| self.place.failure(&error))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _ = wait(writer.abort());
        }
    }
}
