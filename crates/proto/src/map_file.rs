//! Maps a file into memory, and gives memory back: the only unsafe code of this crate.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use memmap2::Mmap;

/// The mappings that somebody holds.
static MAPPINGS: Mutex<Vec<Weak<Mmap>>> = Mutex::new(Vec::new());

/// Stretches from so many bytes on are given back.
#[cfg(unix)]
const LEAST_BYTES: usize = 1 << 20;

/// What bytes are slices of.
struct Mapping(Arc<Mmap>);

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The content of a regular file, mapped.
///
/// Folders, devices and pipes are refused: opening a pipe would wait for a writer.
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if metadata.len() == 0 {
        return Ok(Bytes::new());
    }
    map(&File::open(path)?)
}

/// The content of an open regular file, mapped; it must not be changed while the bytes live.
#[allow(unsafe_code)]
pub fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the mapping is read-only and private to this process; that nobody truncates
    // or changes the file while it is mapped is asked of the caller of `read_model`.
    let mapping = Arc::new(unsafe { Mmap::map(file)? });
    let mut mappings = MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
    mappings.retain(|other| other.strong_count() > 0);
    mappings.push(Arc::downgrade(&mapping));
    Ok(Bytes::from_owner(Mapping(mapping)))
}

/// Gives back the memory behind bytes that were mapped, once their reader has made something of them: whoever looks again reads
/// them from the file again. Of a model that is larger than the memory no more is resident than what is read now. Bytes that lie
/// elsewhere stay as they are.
#[cfg(unix)]
#[allow(unsafe_code)]
pub fn give_back(bytes: &[u8]) {
    if bytes.len() < LEAST_BYTES {
        return;
    }
    let mappings = MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
    for mapping in mappings.iter().filter_map(Weak::upgrade) {
        let (outer, inner) = (mapping.as_ptr_range(), bytes.as_ptr_range());
        if outer.start <= inner.start && inner.end <= outer.end {
            let offset = inner.start.addr() - outer.start.addr();
            // SAFETY: the mapping is read-only, so its pages hold nothing but what is in the file, from which they come again.
            // What cannot be given back stays.
            let _ = unsafe { mapping.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, bytes.len()) };
        }
    }
}

/// Where the system has no such request, it takes memory back by itself.
#[cfg(not(unix))]
pub fn give_back(_bytes: &[u8]) {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_given_back_is_there_again() {
        let content: Vec<u8> = (0..3 << 20).map(|at| (at / 7) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let mapped = map(&file).unwrap();
        assert_eq!(mapped, content);
        give_back(&mapped.slice(1 << 10..(2 << 20) + 77));
        assert_eq!(mapped, content);
        // Not of a file: it would be zeros.
        let own = content.clone();
        give_back(&own);
        assert_eq!(own, content);
    }
}
