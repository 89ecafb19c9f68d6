//! Finds the sample files below a folder.
//!
//! Folders are searched recursively and files sorted by path, so that the order of samples
//! does not depend on the file system. Hidden files are left out, files of other kinds ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use onnxquant_storage::{MAX_DEPTH, Unlisted, is_folder, list};

use super::PROCESSOR;
use super::kind::{Kind, Place};
use super::named::NamedFile;
use super::part::Part;
use super::shards::{ByKind, samples};
use crate::error::CalibError;

/// Samples below a folder.
#[derive(Debug)]
pub(crate) struct Found {
    /// Not that of archives, but of what they hold.
    pub(crate) kind: Kind,
    pub(crate) places: Vec<Place>,
    /// Files and members of other kinds, configurations left out.
    pub(crate) skipped: Vec<PathBuf>,
}

/// The samples below `path`.
pub(crate) fn discover(path: &Path) -> Result<Found, CalibError> {
    let (kind, files, skipped) = find(path)?;
    let whole = files.iter().cloned().map(Part::whole);
    let places = match kind {
        Kind::Tar => return unpacked(path, &files, skipped),
        Kind::TestData => group_by_folder(files).into_iter().map(Place::TestData).collect(),
        Kind::Npz => whole.map(|part| Place::Named(NamedFile::Npz(part))).collect(),
        Kind::Safetensors => whole.map(|part| Place::Named(NamedFile::Safetensors(part))).collect(),
        Kind::Npy | Kind::Picture | Kind::Sound | Kind::Text => whole.map(Place::Part).collect(),
    };
    Ok(Found { kind, places, skipped })
}

/// The samples in archives.
fn unpacked(path: &Path, archives: &[PathBuf], mut skipped: Vec<PathBuf>) -> Result<Found, CalibError> {
    let mut by_kind = ByKind::new();
    for archive in archives {
        let (found, others) = samples(archive)?;
        skipped.extend(others);
        found.into_iter().for_each(|(kind, places)| by_kind.entry(kind).or_default().extend(places));
    }
    check_one_kind(path, by_kind.keys())?;
    match by_kind.pop_first() {
        Some((kind, places)) => Ok(Found { kind, places, skipped }),
        None => Err(no_samples(path, &what_is_there(&skipped))),
    }
}

/// The kind of the files below `path` that hold samples, these, and others.
fn find(path: &Path) -> Result<(Kind, Vec<PathBuf>, Vec<PathBuf>), CalibError> {
    let is_folder = is_folder(path).map_err(|source| CalibError::Io { path: path.into(), source })?;
    if !is_folder {
        let text = is_text(path).then_some(Kind::Text);
        let kind = Kind::of(path).or(text).ok_or_else(|| no_samples(path, "it is a file of another kind"))?;
        return Ok((kind, vec![path.into()], Vec::new()));
    }
    let mut files = list(path, MAX_DEPTH).map_err(|Unlisted { path, source }| CalibError::Io { path, source })?;
    files.sort();
    let mut by_kind: BTreeMap<Kind, Vec<PathBuf>> = BTreeMap::new();
    for file in &files {
        if let Some(kind) = Kind::of(file) {
            by_kind.entry(kind).or_default().push(file.clone());
        }
    }
    check_one_kind(path, by_kind.keys())?;
    match by_kind.pop_first() {
        None => Err(no_samples(path, &what_is_there(&files))),
        Some((kind, samples)) => {
            files.retain(|file| Kind::of(file).is_none() && !is_known(kind, file));
            Ok((kind, samples, files))
        }
    }
}

fn check_one_kind<'a>(path: &Path, kinds: impl Iterator<Item = &'a Kind>) -> Result<(), CalibError> {
    let kinds: Vec<&str> = kinds.map(|kind| kind.name()).collect();
    match kinds.len() {
        0 | 1 => Ok(()),
        _ => Err(CalibError::MixedKinds { path: path.into(), kinds: kinds.join(", ") }),
    }
}

/// The files below `path` that hold samples.
pub fn sample_files(path: &Path) -> Result<Vec<PathBuf>, CalibError> {
    Ok(find(path)?.1)
}

/// Whether a file belongs to samples of this kind without being one.
fn is_known(kind: Kind, file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == PROCESSOR || (kind == Kind::TestData && name.starts_with("output_"))
}

fn is_text(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| extension == "txt" || extension == "jsonl")
}

fn no_samples(path: &Path, found: &str) -> CalibError {
    CalibError::NoSamples { path: path.into(), found: found.into() }
}

fn what_is_there(files: &[PathBuf]) -> String {
    let first = files.first().and_then(|f| f.file_name());
    match first {
        None => "the folder is empty".into(),
        Some(name) => format!("{} files of other kinds, such as `{}`", files.len(), name.to_string_lossy()),
    }
}

/// Files `input_0.pb`, `input_1.pb`, ... of one folder make one sample, ordered by number.
fn group_by_folder(files: Vec<PathBuf>) -> Vec<Vec<PathBuf>> {
    let mut groups: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        groups.entry(file.parent().map(Path::to_path_buf).unwrap_or_default()).or_default().push(file);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    for group in &mut groups {
        group.sort_by_key(|f| (file_number(f), f.clone()));
    }
    groups.sort_by_key(|g| g.first().and_then(|f| f.parent()).map(natural_key));
    groups
}

fn file_number(path: &Path) -> u64 {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    stem.rsplit('_').next().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX)
}

/// Orders `test_data_set_10` after `test_data_set_9`.
fn natural_key(folder: &Path) -> (PathBuf, u64, PathBuf) {
    (folder.parent().map(Path::to_path_buf).unwrap_or_default(), file_number(folder), folder.to_path_buf())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn touch(dir: &Path, name: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    /// The files of each place.
    fn groups(places: Vec<Place>) -> Vec<Vec<PathBuf>> {
        let files = |place| match place {
            Place::Part(part) => vec![part.label().to_owned()],
            Place::Named(file) => vec![file.label().to_owned()],
            Place::TestData(files) => files,
        };
        places.into_iter().map(files).collect()
    }

    fn names(dir: &Path, groups: &[Vec<PathBuf>]) -> Vec<Vec<String>> {
        let relative = |f: &PathBuf| f.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
        groups.iter().map(|g| g.iter().map(relative).collect()).collect()
    }

    #[test]
    fn nested_files_are_sorted_and_others_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/1.npz", "a.npz", "b/0.NPZ", "README.md", ".hidden.npz"] {
            touch(dir.path(), name);
        }
        let Found { kind, places, skipped } = discover(dir.path()).unwrap();
        assert_eq!(kind, Kind::Npz);
        assert_eq!(names(dir.path(), &groups(places)), [["a.npz"], ["b/0.NPZ"], ["b/1.npz"]]);
        assert_eq!(names(dir.path(), &[skipped]), [["README.md"]]);
    }

    #[test]
    fn test_data_sets_are_grouped_and_ordered_by_number() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "test_data_set_10/input_0.pb",
            "test_data_set_9/input_10.pb",
            "test_data_set_9/input_2.pb",
            "test_data_set_9/output_0.pb",
        ] {
            touch(dir.path(), name);
        }
        let Found { kind, places, skipped } = discover(dir.path()).unwrap();
        assert_eq!((kind, skipped), (Kind::TestData, vec![]));
        let expected: [&[&str]; 2] =
            [&["test_data_set_9/input_2.pb", "test_data_set_9/input_10.pb"], &["test_data_set_10/input_0.pb"]];
        assert_eq!(names(dir.path(), &groups(places)), expected);
    }

    #[test]
    fn empty_and_mixed_folders_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert!(discover(dir.path()).unwrap_err().to_string().contains("the folder is empty"));
        touch(dir.path(), "notes.txt");
        assert!(discover(dir.path()).unwrap_err().to_string().contains("such as `notes.txt`"));
        touch(dir.path(), "a.npz");
        touch(dir.path(), "b.png");
        assert!(discover(dir.path()).unwrap_err().to_string().contains("(.npz, pictures)"));
        assert!(discover(&dir.path().join("missing")).unwrap_err().to_string().contains("cannot read"));
    }
}
