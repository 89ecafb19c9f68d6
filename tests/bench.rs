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

/// Nothing names a library but Python, which `cargo xtask test` names.
#[test]
fn the_library_of_the_python_package_is_found_and_a_sample_is_made() {
    let mut command = onnxquant(&["bench", "--threads", "1", "--dim", "batch=3"]);
    let run = Run::of(command.arg(Fixture::MLP.model()).env_remove("ORT_DYLIB_PATH")).succeeded();
    let lines = run.stdout.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 3, "{}", run.stdout);
    assert!(lines[0].starts_with("ONNX Runtime 1.") && lines[0].ends_with("one sample: `x` 3x64"), "{}", run.stdout);
    assert!(lines[2].ends_with(" 1.00x") && lines[2].contains(" ms"), "{}", run.stdout);
}

#[test]
fn a_library_that_is_none_is_refused_with_its_reason() {
    let folder = folder();
    let (text, cut) = (folder.path().join("text.so"), folder.path().join("cut.so"));
    std::fs::write(&text, "not a library").expect("a file can be written");
    let whole = std::fs::read(library()).expect("the library can be read");
    std::fs::write(&cut, &whole[..whole.len() / 2]).expect("a file can be written");
    let own = std::env::current_exe().expect("it has a path");
    let mut failures = Failures::default();
    for path in [Path::new("/nonexistent/libonnxruntime.so"), &text, &cut, folder.path(), &own] {
        for named in [true, false] {
            let mut command = onnxquant(&["bench"]);
            command.arg(Fixture::MLP.model());
            match named {
                true => command.arg("--ort-lib").arg(path),
                false => command.env("ORT_DYLIB_PATH", path),
            };
            let fault = refused(&Run::of(&mut command), &["ONNX Runtime: ", "--ort-lib"]);
            failures.check(fault.is_none(), || format!("{}: {}", path.display(), fault.unwrap_or_default()));
        }
    }
    failures.finish();
}

#[test]
fn what_cannot_be_measured_is_refused_with_its_reason() {
    let (mlp, cnn) = (Fixture::MLP.model(), Fixture::CNN.model());
    let nothing = Path::new("none.onnx");
    let cases: [(&[&Path], &[&str], &str); 5] = [
        (&[nothing], &[], "cannot read model `none.onnx`: No such file"),
        (&[&mlp], &["--dim", "rows=3"], "no symbolic dimension `rows` (those of its inputs: `batch`)"),
        (&[&mlp], &["--dim", "batch=0"], "for example batch=8"),
        (&[&cnn], &["--mean", "1"], "--calib"),
        // It is given samples of the first one.
        (&[&mlp, &cnn], &[], "mnist_cnn/model.onnx`: "),
    ];
    let mut failures = Failures::default();
    for (models, args, text) in cases {
        let mut command = onnxquant(&["bench", "--ort-lib", &library()]);
        let fault = refused(&Run::of(command.args(models).args(args)), &[text]);
        failures.check(fault.is_none(), || fault.unwrap_or_default());
    }
    failures.finish();
}
