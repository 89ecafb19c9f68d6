//! Maps a file into memory: the only unsafe code of the project.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;

/// What is read at most from something that cannot be mapped, such as a pipe.
const MAX_STREAM_BYTES: u64 = 1 << 31;

/// The content of a file: mapped if it is a regular file, else read.
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() > 0 {
        return map(&file);
    }
    let mut content = Vec::new();
    file.take(MAX_STREAM_BYTES).read_to_end(&mut content)?;
    Ok(content.into())
}

/// The content of an open regular file, mapped; it must not be changed while the bytes live.
#[allow(unsafe_code)]
pub fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: the mapping is read-only and private to this process; that nobody truncates
    // or changes the file while it is mapped is asked of the caller of `read_model`.
    let mapping = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(mapping))
}
