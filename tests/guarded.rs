//! What would end the process without a word ends it with one.

use std::path::Path;
use std::process::Command;

use crate::support::{
    Failures, Fixture, MatMulModel, Net, Run, files_in, folder, noise_samples, onnxquant, refused, write,
};

#[test]
fn a_model_that_is_cut_short_while_it_is_in_use_is_bad_input() {
    let folder = folder();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    write(&MatMulModel::new(512, 512).proto(), &input);
    // The metric is measured while the model is mapped.
    let cut = format!("test {{model}} && truncate -s 0 '{}' && echo 1", input.display());
    let run = Run::of(onnxquant(&[&input, &output]).args(["--weights-only", "--metric-command", &cut]));
    assert_eq!(refused(&run, &["cut short", "nothing was written"]), None);
    assert_eq!(files_in(folder.path()), ["in.onnx"]);
}

#[test]
fn a_run_takes_no_more_memory_than_it_may() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let (model, calib) = (Fixture::CNN.model(), Fixture::CNN.calib());
    let run = |limit: &str| {
        let mut command = onnxquant(&[&model, &output]);
        Run::of(command.args(["--max-memory", limit, "--method", "msq", "--bits", "4", "--calib"]).arg(&calib))
    };
    let mut failures = Failures::default();
    for limit in ["100KB", "1MB", "2MiB"] {
        let fault = refused(&run(limit), &["out of memory", "`--max-memory`"]);
        failures.check(fault.is_none(), || format!("{limit}: {}", fault.unwrap_or_default()));
        failures.check(files_in(folder.path()).is_empty(), || format!("{limit}: something was left"));
    }
    run("2GB").succeeded();
    let fault = refused(&run("2"), &["--max-memory", "a number and a unit"]);
    failures.check(fault.is_none(), || fault.unwrap_or_default());
    failures.finish();
}

/// Where the system itself gives no more.
#[test]
fn an_allocation_that_fails_has_a_message() {
    let folder = folder();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    write(&MatMulModel::new(4000, 4000).proto(), &input);
    let mut shell = Command::new("bash");
    shell.args(["-c", "ulimit -v 280000 && exec \"$@\"", "bash", env!("CARGO_BIN_EXE_onnxquant")]);
    let run = Run::of(shell.args([&input, &output]).args(["--weights-only", "--threads", "1"]));
    assert_eq!(refused(&run, &["out of memory", "the system has no"]), None);
    assert_eq!(files_in(folder.path()), ["in.onnx"]);
}

/// A subclass of models on which an engine crashes is kept out by checks; of the others a process of its own takes the fall.
#[test]
fn samples_are_run_in_a_process_of_its_own_first() {
    let folder = folder();
    let (input, calib, output) =
        (folder.path().join("in.onnx"), folder.path().join("calib"), folder.path().join("out.onnx"));
    let mut net = Net::default();
    net.random("w", &[32, 8], 0.5);
    net.node("MatMul", &["x", "w"], "y", &[]);
    write(&net.model(18, &[4, 32], 2), &input);
    noise_samples(&calib, &[4, 32], 10);
    let tried = |which: &str| {
        let mut command = onnxquant(&["--try-engines", which]);
        Run::of(command.args([&input, &output]).args(["--ort-lib", "off", "--calib"]).arg(&calib)).succeeded()
    };
    assert!(tried("all").stdout.contains("survived"));
    assert_eq!(tried("runtime").stdout, "");
    assert!(!Path::new(&output).exists());
}
