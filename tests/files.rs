//! Which files a run may write, and where its texts go.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Failures, Fixture, MatMulModel, Run, files_in, folder, onnxquant, refused, report, write};

/// Every file below a folder with what is in it, and every link with its target.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for name in files_in(folder) {
        let path = folder.join(name);
        let kind = std::fs::symlink_metadata(&path).expect("it is there").file_type();
        if kind.is_dir() {
            found.extend(content(&path));
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).expect("it is a link");
            found.push((path, target.to_string_lossy().into_owned().into_bytes()));
        } else if kind.is_file() {
            found.push((path.clone(), std::fs::read(path).expect("it can be read")));
        } else {
            found.push((path, Vec::new()));
        }
    }
    found
}

/// A model with its weights in `weights.data`, samples in `calib`, a plan, a cache, links, a pipe and a folder.
fn scene(folder: &Path) {
    let at = |name: &str| folder.join(name);
    let fixture = Fixture::MLP;
    std::fs::create_dir(at("calib")).expect("a folder can be made");
    for index in 0..4 {
        std::fs::copy(fixture.sample(index), at(&format!("calib/{index}.npz"))).expect("a sample can be copied");
    }
    let calib = at("calib");
    report(&fixture.model(), &at("in.onnx"), &["--external-data", "--exclude", "*fc*", "--allow-float"], Some(&calib));
    std::fs::remove_file(at("in.report.json")).expect("it was written");
    let plan =
        Run::of(onnxquant(&[at("in.onnx"), at("x")]).args(["--weights-only", "--save-plan"]).arg(at("plan.toml")));
    plan.succeeded();
    std::fs::remove_file(at("x")).expect("it was written");
    std::fs::remove_file(at("x.data")).expect("it was written");
    symlink("in.onnx", at("link.onnx")).expect("a link can be made");
    std::fs::hard_link(at("in.onnx"), at("hard.onnx")).expect("a link can be made");
    std::fs::hard_link(at("in.onnx.data"), at("hard.data")).expect("a link can be made");
    assert!(Command::new("mkfifo").arg(at("pipe")).status().expect("mkfifo can be started").success());
    std::fs::create_dir(at("folder")).expect("a folder can be made");
}

/// Arguments behind IN, and a part of what must be said.
const REFUSED: [(&[&str], &str); 28] = [
    (&["in.onnx"], "the input model"),
    (&["./folder/../in.onnx"], "the input model"),
    (&["link.onnx"], "the input model"),
    (&["hard.onnx"], "the input model"),
    (&["in.onnx.data"], "the input model keeps its weights there"),
    (&["hard.data"], "the input model keeps its weights there"),
    (&["calib/1.npz"], "a calibration sample"),
    (&["pipe"], "expected a file name"),
    (&["/dev/stdout"], "expected a file name"),
    (&["/dev/null"], "expected a file name"),
    (&["-"], "expected a file name"),
    (&["out", "--report", "in.onnx"], "the input model"),
    (&["out", "--report", "hard.data"], "keeps its weights there"),
    (&["out", "--report", "out"], "the output model"),
    (&["out", "--report", "folder/../out.data"], "weights of the output model"),
    (&["out", "--report", "folder"], "it is a folder"),
    (&["out", "--save-plan", "link.onnx"], "the input model"),
    (&["out", "--save-plan", "new", "--report", "new"], "the report"),
    (&["out", "--save-plan", "-", "--report", "-"], "the report"),
    (&["out", "--save-plan", "plan.toml", "--plan", "plan.toml"], "the plan of bits"),
    (&["out", "--report", "calib/0.npz"], "a calibration sample"),
    (&["out", "--calibration-cache", "in.onnx", "--scheme", "w8a8"], "the input model"),
    (&["out", "--calibration-cache", "out", "--scheme", "w8a8"], "the output model"),
    (&["out", "--calibration-cache", "pipe", "--scheme", "w8a8"], "expected a file name"),
    (&["out", "--calibration-cache", "new", "--report", "new", "--scheme", "w8a8"], "the calibration cache"),
    (&["out", "--state", "in.onnx"], "expected a folder"),
    (&["out", "--state", "out"], "the output model"),
    (&["out", "--state", "folder", "--report", "folder/run.toml"], "the state keeps a file there"),
];

#[test]
fn paths_that_coincide_are_refused_and_nothing_is_touched() {
    let folder = folder();
    scene(folder.path());
    let before = content(folder.path());
    let mut failures = Failures::default();
    for (args, text) in REFUSED {
        let mut command = onnxquant(&["in.onnx"]);
        let run = Run::of(command.args(args).args(["--calib", "calib"]).current_dir(folder.path()));
        let fault = refused(&run, &["cannot write `", text]);
        failures.check(fault.is_none(), || format!("{args:?}: {}", fault.unwrap_or_default()));
        failures.check(run.stdout.is_empty(), || format!("{args:?}: printed {}", run.stdout));
        failures.check(content(folder.path()) == before, || format!("{args:?}: files changed"));
    }
    failures.finish();
}

/// The shell command that quantizes a small model with `rest` behind it.
fn shell(folder: &Path, rest: &str) -> Run {
    let program = env!("CARGO_BIN_EXE_onnxquant");
    let line = format!("set -o pipefail; '{program}' in.onnx out.onnx --weights-only {rest}");
    Run::of(Command::new("bash").args(["-c", &line]).current_dir(folder).stdin(Stdio::null())).succeeded()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[test]
fn reports_go_to_the_standard_output_and_to_pipes() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    write(&MatMulModel::new(64, 64).proto(), &at("in.onnx"));
    let layers = |text: &str| json(text)["layers"].as_array().map(Vec::len);
    for path in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let run = shell(folder.path(), &format!("--report {path}"));
        assert_eq!(layers(&run.stdout), Some(1), "{path}");
        assert!(run.stderr.contains("1 layers quantized"), "{path}: {}", run.stderr);
    }
    let run = shell(folder.path(), "--report - --quiet");
    assert_eq!((layers(&run.stdout), run.stderr.as_str()), (Some(1), ""));
    let run = shell(folder.path(), "--save-plan /dev/stderr");
    assert!(run.says("1 layers quantized") && run.stderr.contains("bits = 8"), "{run:?}");
    // The shell made the file, and goes on writing to it.
    let run = shell(folder.path(), "--report direct.json > direct.json");
    assert!(run.stderr.contains("1 layers quantized"), "{}", run.stderr);
    assert_eq!(layers(&std::fs::read_to_string(at("direct.json")).expect("it was written")), Some(1));
    let run = shell(folder.path(), "--report /dev/fd/3 3> third.json");
    assert!(run.says("1 layers quantized"), "{}", run.stdout);
    assert_eq!(layers(&std::fs::read_to_string(at("third.json")).expect("it was written")), Some(1));

    assert!(Command::new("mkfifo").arg(at("pipe")).status().expect("mkfifo can be started").success());
    let run = shell(folder.path(), "--quiet --report pipe & cat pipe; wait $!");
    assert_eq!(layers(&run.stdout), Some(1));
    assert_eq!(files_in(folder.path()), ["direct.json", "in.onnx", "out.onnx", "pipe", "third.json"]);
}

#[test]
fn a_reader_that_goes_away_ends_no_run() {
    let folder = folder();
    write(&MatMulModel::new(64, 64).proto(), &folder.path().join("in.onnx"));
    let run = shell(folder.path(), "> >(true)");
    assert!(!run.stderr.contains("error"), "{}", run.stderr);
    let program = env!("CARGO_BIN_EXE_onnxquant");
    let line = format!("for i in 1 2 3 4 5 6 7 8; do '{program}' inspect in.onnx || exit 1; done > >(true)");
    Run::of(Command::new("bash").args(["-c", &line]).current_dir(folder.path())).succeeded();
}
