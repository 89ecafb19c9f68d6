//! What CONTRIBUTING.md names is there: files, folders, and the commits that show how a thing is done.

use std::path::Path;
use std::process::Command;

/// Where a path in the text begins.
const FOLDERS: [&str; 5] = ["crates/", "docs/", "fixtures/", "tests/", "xtask/"];

/// What stands for a name that is still to be chosen.
const TO_CHOOSE: &str = "NAME";

#[test]
fn files_and_commits_that_contributing_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository");
    let text = std::fs::read_to_string(root.join("CONTRIBUTING.md")).expect("the file can be read");
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let is_path = |word: &&&str| FOLDERS.iter().any(|folder| word.starts_with(folder)) && !word.contains(['*', ' ']);
    let paths: Vec<&&str> = quoted.iter().filter(is_path).filter(|word| !word.contains(TO_CHOOSE)).collect();
    let missing: Vec<_> = paths.iter().filter(|path| !root.join(path).exists()).collect();
    assert!(paths.len() > 10 && missing.is_empty(), "{missing:?}");
    let commits: Vec<&str> = quoted.iter().filter_map(|word| word.strip_prefix("git show ")).collect();
    assert_eq!(commits.len(), 6, "one for an operator, two for a format, two for an engine, one for a pass");
    let git = |words: &[&str]| Command::new("git").args(words).current_dir(root).output();
    let Ok(shallow) = git(&["rev-parse", "--is-shallow-repository"]) else { return };
    if String::from_utf8_lossy(&shallow.stdout).trim() == "false" {
        let unknown = |commit: &&&str| !git(&["cat-file", "-e", commit]).is_ok_and(|output| output.status.success());
        assert_eq!(commits.iter().filter(unknown).count(), 0, "of {commits:?}");
    }
}
