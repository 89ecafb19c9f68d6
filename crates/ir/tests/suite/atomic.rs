//! A file appears whole or not at all.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;

use onnxquant_ir::PendingFile;

use super::names_in;

#[test]
fn dropped_file_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut pending = PendingFile::create(&folder.path().join("a")).unwrap();
    pending.file().write_all(b"half").unwrap();
    drop(pending);
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
}

#[test]
fn committed_file_has_its_content_and_the_usual_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut pending = PendingFile::create(&path).unwrap();
    pending.file().write_all(b"whole").unwrap();
    assert!(!path.exists());
    pending.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(names_in(folder.path()), ["a"]);
}

#[test]
fn existing_file_is_replaced_and_keeps_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::fs::write(&path, "longer than the new one").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let old = std::fs::File::open(&path).unwrap();
    let mut pending = PendingFile::create(&path).unwrap();
    pending.file().write_all(b"new").unwrap();
    pending.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(std::io::read_to_string(old).unwrap(), "longer than the new one", "readers of the old file keep it");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(names_in(folder.path()), ["a"]);
}

#[test]
fn missing_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = PendingFile::create(&folder.path().join("none/a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn folder_that_vanished_before_the_commit_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let pending = PendingFile::create(&inner.join("a")).unwrap();
    std::fs::remove_dir_all(&inner).unwrap();
    assert!(pending.commit().is_err());
    assert_eq!(names_in(folder.path()), Vec::<String>::new());
}

#[test]
fn folder_in_place_of_the_file_stays_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::fs::create_dir(&path).unwrap();
    assert!(PendingFile::create(&path).is_err());
    assert!(path.is_dir());
    assert_eq!(names_in(folder.path()), ["a"]);
}
