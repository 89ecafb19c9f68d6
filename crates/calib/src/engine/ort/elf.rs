//! Whether a library on Linux is whole.
//!
//! A file that was cut off (a download that stopped) begins as it should. The system maps it all the same, and the
//! program dies when it touches what is missing.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of the header of a 64-bit file, and of an entry of its tables.
const HEADER: usize = 64;
const SECTION_ENTRY: u64 = 64;

/// What is wrong with a 64-bit ELF file whose end is missing; files of other kinds are left to the system.
pub(super) fn cut_off(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    // 64 bits, little end first.
    if !header.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return None;
    }
    let number = |bytes: &[u8], at: usize, size: usize| {
        let of_field = bytes.get(at..at + size)?;
        Some(of_field.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte)))
    };
    let field = |at, size| number(&header, at, size);
    let (segments, segment_size, n_segments) = (field(32, 8)?, field(54, 2)?, field(56, 2)?);
    // The table of sections stands last where there is one.
    let sections_end = field(40, 8)?.checked_add(field(60, 2)? * SECTION_ENTRY)?;
    let mut needed = sections_end;
    for segment in 0..n_segments {
        let mut entry = [0; 56];
        file.seek(SeekFrom::Start(segments.checked_add(segment * segment_size)?)).ok()?;
        if file.read_exact(&mut entry).is_err() {
            needed = u64::MAX;
            break;
        }
        needed = needed.max(number(&entry, 8, 8)?.checked_add(number(&entry, 32, 8)?)?);
    }
    (needed > length).then(|| format!("it has {length} bytes, and its end is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_whole_and_its_beginning_is_not() {
        let own = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&own).unwrap();
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return;
        }
        assert_eq!(cut_off(&own), None);
        let folder = tempfile::tempdir().unwrap();
        for kept in [HEADER, 1 << 12, bytes.len() / 2, bytes.len() - 1] {
            let path = folder.path().join("cut");
            std::fs::write(&path, &bytes[..kept]).unwrap();
            assert!(cut_off(&path).is_some(), "{kept} of {} bytes", bytes.len());
        }
    }
}
