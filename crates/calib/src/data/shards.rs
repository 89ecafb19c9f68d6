//! Tar archives as WebDataset writes them: members with one stem are one sample.
//!
//! Only the headers of members are read when a set is opened. A sample is read from where it lies in the archive, and
//! nothing is unpacked.
//!
//! | members of a sample | it is |
//! |---|---|
//! | `.npz`, else `.safetensors` | arrays by name |
//! | else a picture | a picture; of several that whose extension has no other before it (`7.jpg`, not `7.mask.png`) |
//! | else a sound | a sound |
//! | else `.npy` | arrays by name: `7.input_ids.npy` is `input_ids`, and `7.npy` feeds the only input |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use super::kind::{Kind, Place};
use super::named::NamedFile;
use super::part::Part;
use crate::error::{CalibError, FormatError};

/// A member of an archive.
#[derive(Debug)]
struct Member {
    /// Its path up to the first dot of its name.
    stem: String,
    /// What follows.
    extension: String,
    part: Part,
}

/// Samples in order, by kind.
pub(crate) type ByKind = BTreeMap<Kind, Vec<Place>>;

/// The samples of an archive, and members that are none.
pub(crate) fn samples(path: &Path) -> Result<(ByKind, Vec<PathBuf>), CalibError> {
    let mut samples = ByKind::new();
    let mut skipped = Vec::new();
    for group in members(path)?.chunk_by(|one, next| one.stem == next.stem) {
        match sample(path, group) {
            Some((kind, sample)) => samples.entry(kind).or_default().push(sample),
            None => skipped.extend(group.iter().map(|member| member.part.label().to_owned())),
        }
    }
    Ok((samples, skipped))
}

fn members(path: &Path) -> Result<Vec<Member>, CalibError> {
    let io = |source| CalibError::Io { path: path.into(), source };
    let broken = |source: std::io::Error| CalibError::Malformed { path: path.into(), source: FormatError::Tar(source) };
    let file = onnxquant_storage::open(path).map_err(io)?;
    let length = file.length();
    let mut archive = Archive::new(file);
    let mut members = Vec::new();
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (start, bytes) = (entry.raw_file_position(), entry.size());
        if start.checked_add(bytes).is_none_or(|end| end > length) {
            let source = FormatError::Member { name, bytes, left: length.saturating_sub(start) };
            return Err(CalibError::Malformed { path: path.into(), source });
        }
        members.extend(Member::new(path, &name, start, bytes));
    }
    Ok(members)
}

impl Member {
    /// One with this name; none where it has no extension or is hidden.
    fn new(archive: &Path, name: &str, start: u64, bytes: u64) -> Option<Self> {
        let (folder, file) = name.rsplit_once('/').map_or(("", name), |(folder, file)| (folder, file));
        let (stem, extension) = file.split_once('.').filter(|(stem, _)| !stem.is_empty())?;
        let part = Part::member(archive.to_owned(), name, start, bytes);
        Some(Self { stem: format!("{folder}/{stem}"), extension: extension.to_owned(), part })
    }

    fn kind(&self) -> Option<Kind> {
        Kind::of_extension(self.extension.rsplit('.').next()?)
    }
}

/// The sample that members with one stem make.
fn sample(archive: &Path, members: &[Member]) -> Option<(Kind, Place)> {
    let first = |kind: Kind| {
        let of_kind = || members.iter().filter(move |member| member.kind() == Some(kind));
        of_kind().find(|member| !member.extension.contains('.')).or_else(|| of_kind().next())
    };
    if let Some(member) = first(Kind::Npz) {
        return Some((Kind::Npz, Place::Named(NamedFile::Npz(member.part.clone()))));
    }
    if let Some(member) = first(Kind::Safetensors) {
        return Some((Kind::Safetensors, Place::Named(NamedFile::Safetensors(member.part.clone()))));
    }
    for kind in [Kind::Picture, Kind::Sound] {
        if let Some(member) = first(kind) {
            return Some((kind, Place::Part(member.part.clone())));
        }
    }
    let of_npy = members.iter().filter(|member| member.kind() == Some(Kind::Npy));
    let name = |member: &Member| member.extension.rsplit_once('.').map_or("", |(name, _)| name).to_owned();
    let arrays: Vec<(String, Part)> = of_npy.map(|member| (name(member), member.part.clone())).collect();
    let label = archive.join(members.first()?.stem.trim_start_matches('/'));
    (!arrays.is_empty()).then_some((Kind::Npy, Place::Named(NamedFile::Npys { label, arrays })))
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
