//! A file appears whole or not at all.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;

use onnxquant_ir::atomic::faults::{Step, fail};
use onnxquant_ir::{PendingFile, ScratchFolder, scratch_file, sweep};

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

#[test]
fn a_file_with_the_longest_name_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n".repeat(255));
    for text in ["old", "new"] {
        let mut pending = PendingFile::create(&path).unwrap();
        pending.file().write_all(text.as_bytes()).unwrap();
        pending.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    let longer = PendingFile::create(&folder.path().join("n".repeat(256))).unwrap_err();
    assert_eq!(longer.kind(), ErrorKind::InvalidFilename);
    assert_eq!(names_in(folder.path()).len(), 1);
}

#[test]
fn what_a_kill_left_is_swept_away_and_what_is_in_use_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at(".onnxquant-dead"), "half").unwrap();
    std::fs::create_dir_all(at(".onnxquant-gone/deep")).unwrap();
    std::fs::write(at(".onnxquant-gone/deep/model.onnx"), "half").unwrap();
    std::fs::write(at("another"), "whole").unwrap();
    let (file, inner) = (scratch_file(folder.path()).unwrap(), ScratchFolder::inside(folder.path()).unwrap());
    sweep(folder.path());
    assert!(file.path().exists() && inner.path().exists());
    assert_eq!(names_in(folder.path()).len(), 3);
    drop((file, inner));
    assert_eq!(names_in(folder.path()), ["another"]);
    sweep(&at("absent"));
}

#[test]
fn a_rename_that_fails_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::fs::write(&path, "old").unwrap();
    for step in Step::ALL {
        let fault = fail(folder.path(), step, 0);
        let written = PendingFile::create(&path).and_then(|pending| pending.commit());
        assert!(written.is_err(), "{step:?}");
        drop(fault);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old", "{step:?}");
        assert_eq!(names_in(folder.path()), ["a"], "{step:?}");
    }
    PendingFile::create(&path).and_then(|pending| pending.commit()).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
}
