//! `onnxquant bench`: how long models take in ONNX Runtime, without Python.

use std::path::Path;

use serde_json::Value;

use crate::support::{Failures, Fixture, Run, folder, onnxquant, refused};

/// The library that `cargo xtask test` names.
fn library() -> String {
    std::env::var("ONNXQUANT_ORT_LIB").expect("ONNXQUANT_ORT_LIB is not set: run `cargo xtask test`, which sets it up")
}

#[test]
fn two_models_are_measured_in_turns_with_one_thread_and_with_all() {
    let model = Fixture::CNN.model();
    let mut command = onnxquant(&["bench", "--json", "--ort-lib", &library()]);
    let run = Run::of(command.args([&model, &model]).arg("--calib").arg(Fixture::CNN.calib())).succeeded();
    let found: Value = serde_json::from_str(&run.stdout).expect("bench --json prints JSON");
    assert!(found["runtime"].as_str().is_some_and(|runtime| runtime.starts_with("ONNX Runtime 1.")), "{found}");
    let timings = found["timings"].as_array().expect("it lists timings");
    assert!(timings.len() >= 2 && timings.len().is_multiple_of(2), "{found}");
    for pair in timings.chunks(2) {
        let fine = |timing: &Value| timing["median_ms"].as_f64() > Some(0.0) && timing["speed"].as_f64() > Some(0.0);
        assert!(pair.iter().all(fine) && pair[0]["threads"] == pair[1]["threads"], "{found}");
        assert_eq!(pair[0]["speed"], 1.0);
    }
}

#[test]
fn a_library_that_is_none_is_refused_with_its_reason() {
    let folder = folder();
    let text = folder.path().join("text.so");
    std::fs::write(&text, "not a library").expect("a file can be written");
    let own = std::env::current_exe().expect("it has a path");
    let mut failures = Failures::default();
    for path in [Path::new("/nonexistent/libonnxruntime.so"), &text, folder.path(), &own] {
        let mut command = onnxquant(&["bench"]);
        let run = Run::of(command.arg(Fixture::MLP.model()).arg("--ort-lib").arg(path));
        let fault = refused(&run, &["ONNX Runtime", "--ort-lib"]);
        failures.check(fault.is_none(), || format!("{}: {}", path.display(), fault.unwrap_or_default()));
    }
    failures.finish();
}
