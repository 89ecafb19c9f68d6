//! Every input by which a fuzz target ever failed, and those by which fuzzing begins.

#[path = "fuzz/bodies.rs"]
mod bodies;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::support::{Failures, root};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be listed").path()).collect();
    files.sort();
    files
}

#[test]
fn no_input_that_once_failed_a_target_fails_again() {
    let mut failures = Failures::default();
    for (name, target) in bodies::TARGETS {
        for kind in ["seeds", "regressions"] {
            for path in files(&root().join("tests/fuzz").join(kind).join(name)) {
                let data = std::fs::read(&path).expect("it can be read");
                failures.check(catch_unwind(|| target(&data)).is_ok(), || path.display().to_string());
            }
        }
    }
    failures.finish();
}
