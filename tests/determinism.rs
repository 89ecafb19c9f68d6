//! Same input, same options: the same bytes, whatever the number of threads.

use std::path::Path;

use serde_json::Value;

use crate::support::{Failures, Fixture, Run, folder, onnxquant};

const RUNS: [&[&str]; 3] = [&["--threads", "1"], &["--threads", "2"], &["--threads", "2"]];
const SETTINGS: [&[&str]; 15] = [
    &["--method", "auto", "--bits", "4"],
    &["--method", "msq", "--bits", "8", "--asymmetric"],
    &["--scheme", "w8a8", "--target", "qdq-strict", "--min-sqnr", "26"],
    &["--scheme", "w8a8-dynamic"],
    &["--method", "maly-saab", "--bits", "4"],
    &["--method", "maly-saab", "--bits", "4", "--no-fallback"],
    &["--method", "maly-saab", "--saturation", "min", "--bits", "2", "--no-fallback"],
    &["--method", "cell-walk", "--bits", "3", "--no-fallback"],
    &["--method", "optq", "--bits", "4"],
    &["--method", "feedback", "--bits", "4", "--asymmetric"],
    &["--method", "feedback", "--bits", "3", "--beam", "4"],
    &["--average-bits", "3.5"],
    &["--scheme", "auto", "--range", "mse"],
    &["--scheme", "fp8"],
    &["--method", "cell-walk", "--bits", "4", "--granularity", "block:32", "--no-fallback"],
];

#[test]
fn number_of_threads_and_repetition_change_no_byte() {
    let folder = folder();
    let mut failures = Failures::default();
    for fixture in [Fixture::MLP, Fixture::CNN, Fixture::CONV1D, Fixture::TRANSFORMER] {
        for setting in SETTINGS {
            let results = RUNS.map(|threads| quantize(folder.path(), fixture, &[setting, threads].concat()));
            let name = || format!("{} {}", fixture.name, setting.join(" "));
            failures.check(results[0] == results[1], || format!("{}: 1 and 2 threads differ", name()));
            failures.check(results[1] == results[2], || format!("{}: two runs differ", name()));
        }
    }
    failures.finish();
}

/// Bytes of the model and of the report, which is the same too but for what it says of the run itself.
fn quantize(folder: &Path, fixture: Fixture, args: &[&str]) -> [Vec<u8>; 2] {
    let (output, report) = (folder.join("out.onnx"), folder.join("out.json"));
    let mut command = onnxquant(&[fixture.model(), output.clone()]);
    command.args(args).arg("--calib").arg(fixture.calib()).arg("--report").arg(&report);
    Run::of(&mut command).succeeded();
    let [model, report] = [output, report].map(|path| std::fs::read(path).expect("it was written"));
    let mut report: Value = serde_json::from_slice(&report).expect("the report is JSON");
    let run = report.as_object_mut().and_then(|fields| fields.remove("run"));
    assert!(run.is_some_and(|run| run["seconds"].is_f64()), "the report says how long the run took");
    [model, report.to_string().into_bytes()]
}
