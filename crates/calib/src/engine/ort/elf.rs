//! Whether a library on Linux is whole, and whether this program can load it.
//!
//! A file that was cut off (a download that stopped) begins as it should. The system maps it all the same, and the
//! program dies when it touches what is missing.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of the header of a 64-bit file, and of an entry of its tables.
const HEADER: usize = 64;
const SECTION_ENTRY: u64 = 64;

/// The kind of segment that names the loader of a dynamic program.
const INTERPRETER: u64 = 3;

/// What is wrong with a 64-bit ELF file whose end is missing; files of other kinds are left to the system.
pub(super) fn cut_off(path: &Path) -> Option<String> {
    let mut elf = Elf::open(path)?;
    let needed = elf.segments().map(|segments| {
        let ends = segments.iter().map(|segment| segment.offset.checked_add(segment.bytes));
        ends.fold(elf.sections_end(), |needed, end| Some(needed?.max(end?)))
    });
    // The table of segments itself may be missing.
    let needed = needed.unwrap_or(Some(u64::MAX))?;
    let length = elf.length;
    (needed > length).then(|| format!("it has {length} bytes, and its end is missing"))
}

/// Whether a file is a program of 64-bit ELF that no loader starts; what cannot be read counts as none.
pub(super) fn is_static(path: &Path) -> bool {
    let segments = Elf::open(path).and_then(|mut elf| elf.segments());
    segments.is_some_and(|segments| segments.iter().all(|segment| segment.kind != INTERPRETER))
}

/// A 64-bit file, little end first.
struct Elf {
    file: File,
    length: u64,
    header: [u8; HEADER],
}

/// An entry of its table of segments.
struct Segment {
    kind: u64,
    offset: u64,
    bytes: u64,
}

impl Elf {
    fn open(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut header = [0; HEADER];
        file.read_exact(&mut header).ok()?;
        header.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]).then_some(Self { file, length, header })
    }

    /// Where the table of sections ends, which stands last where there is one.
    fn sections_end(&self) -> Option<u64> {
        let field = |at, size| number(&self.header, at, size);
        field(40, 8)?.checked_add(field(60, 2)? * SECTION_ENTRY)
    }

    /// The table of segments; nothing where the file ends before it does.
    fn segments(&mut self) -> Option<Vec<Segment>> {
        let field = |at, size| number(&self.header, at, size);
        let (segments, segment_size, n_segments) = (field(32, 8)?, field(54, 2)?, field(56, 2)?);
        let mut found = Vec::new();
        for segment in 0..n_segments {
            let mut entry = [0; 56];
            self.file.seek(SeekFrom::Start(segments.checked_add(segment * segment_size)?)).ok()?;
            self.file.read_exact(&mut entry).ok()?;
            let of_entry = |at, size| number(&entry, at, size);
            found.push(Segment { kind: of_entry(0, 4)?, offset: of_entry(8, 8)?, bytes: of_entry(32, 8)? });
        }
        Some(found)
    }
}

/// The number of `size` bytes at `at`.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let of_field = bytes.get(at..at + size)?;
    Some(of_field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
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
        assert!(!is_static(&own), "tests are linked as usual");
        let folder = tempfile::tempdir().unwrap();
        for kept in [HEADER, 1 << 12, bytes.len() / 2, bytes.len() - 1] {
            let path = folder.path().join("cut");
            std::fs::write(&path, &bytes[..kept]).unwrap();
            assert!(cut_off(&path).is_some(), "{kept} of {} bytes", bytes.len());
        }
    }
}
