//! Maps a file into memory: the only unsafe code of the project.

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;

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
    let mapping = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(mapping))
}
