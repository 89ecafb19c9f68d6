//! `.tar.gz` files whose bytes depend on nothing but what is in them.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use flate2::Compression;
use flate2::GzBuilder;
use tar::{Builder, EntryType, Header};

/// A file of an archive.
pub(super) struct Entry {
    /// Its path below the archive's one folder.
    pub(super) path: String,
    /// What is in it.
    pub(super) bytes: Vec<u8>,
    /// Whether it is a program.
    pub(super) is_program: bool,
}

/// Writes `entries`, sorted, in a folder `name`; everything has the same time (seconds since 1970) and belongs to root.
pub(super) fn write(file: &Path, name: &str, entries: &[Entry], time: u64) -> anyhow::Result<()> {
    let failed = || format!("cannot write `{}`", file.display());
    let out = File::create(file).with_context(failed)?;
    // No name and no time in the header; system 255 is "unknown".
    let packed = GzBuilder::new().mtime(0).operating_system(255).write(out, Compression::best());
    let mut tar = Builder::new(packed);
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    for entry in sorted {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(if entry.is_program { 0o755 } else { 0o644 });
        header.set_mtime(time);
        header.set_size(entry.bytes.len() as u64);
        tar.append_data(&mut header, format!("{name}/{}", entry.path), entry.bytes.as_slice()).with_context(failed)?;
    }
    tar.into_inner().and_then(|packed| packed.finish()).with_context(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_entries_does_not_change_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let entry =
            |path: &str| Entry { path: path.to_owned(), bytes: path.as_bytes().to_vec(), is_program: path == "b" };
        let bytes = |name: &str, paths: [&str; 2]| {
            let file = folder.path().join(name);
            write(&file, "x", &paths.map(entry), 1_700_000_000).unwrap();
            std::fs::read(file).unwrap()
        };
        let (first, second) = (bytes("first", ["a", "b"]), bytes("second", ["b", "a"]));
        assert!(!first.is_empty() && first == second);
    }
}
