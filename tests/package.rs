//! The Python package, in a fresh environment of Python.

use std::path::Path;
use std::process::Command;

use crate::support::{Run, root};

/// The largest wheel that people should have to download.
const MOST_BYTES: u64 = 20_000_000;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`, which sets it up"))
}

#[test]
fn the_wheel_is_small_and_serves_all_versions_of_python() {
    let wheel = variable("ONNXQUANT_WHEEL");
    let bytes = std::fs::metadata(&wheel).expect("the wheel is there").len();
    assert!(bytes <= MOST_BYTES, "{bytes}");
    assert!(wheel.contains("-cp39-abi3-"), "{wheel}");
}

/// Runs the Python tests of one file; what they print is shown where one fails.
fn passes(file: &str) {
    let folder = root().join("tests/python/package");
    let mut python = Command::new(variable("ONNXQUANT_WHEEL_PYTHON"));
    // Tests find one another beside them, and the package where it is installed.
    python.args(["-m", "unittest", "--verbose", file]).current_dir(&folder);
    python.env("ONNXQUANT_COMMAND", env!("CARGO_BIN_EXE_onnxquant")).env_remove("VIRTUAL_ENV");
    let run = Run::of(&mut python);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("Ran ") && !run.stderr.contains("Ran 0 tests"), "{}", run.stderr);
}

#[test]
fn every_file_of_python_tests_is_run() {
    let files = crate::support::files_in(&root().join("tests/python/package"));
    let found: Vec<&str> = files.iter().filter(|name| name.starts_with("test_")).map(String::as_str).collect();
    let run = ["commands", "compat", "data", "metric", "quantize", "ray", "settings"];
    assert_eq!(found, run.map(|name| format!("test_{name}.py")));
    assert!(Path::new(&variable("ONNXQUANT_WHEEL_PYTHON")).exists());
}

#[test]
fn python_quantizes_as_the_command_does() {
    passes("test_quantize.py");
}

#[test]
fn python_takes_samples_as_they_are() {
    passes("test_data.py");
}

#[test]
fn python_knows_the_options_of_the_command() {
    passes("test_settings.py");
}

#[test]
fn a_figure_of_the_users_own_decides() {
    passes("test_metric.py");
}

#[test]
fn python_has_the_other_commands() {
    passes("test_commands.py");
}

#[test]
fn a_cluster_gives_the_same_bytes() {
    passes("test_ray.py");
}

#[test]
fn code_for_onnxruntime_quantization_runs_with_another_import() {
    passes("test_compat.py");
}
