//! Integer activations in ONNX Runtime: the nodes that it fuses, the outputs, and the accuracy.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Failures, Fixture, Job, Measured, Run, folder, measure, onnxquant, refused, report};

/// A way to quantize, and what it must achieve.
struct Setting {
    args: &'static [&'static str],
    /// Output SQNR on held-out samples, at least.
    sqnr_db: f64,
}

const SETTINGS: [Setting; 9] = [
    Setting { args: &["--scheme", "w8a8"], sqnr_db: 25.0 },
    Setting { args: &["--scheme", "w8a8", "--target", "qdq-strict"], sqnr_db: 10.0 },
    Setting { args: &["--scheme", "w8a8", "--target", "qdq-strict", "--range", "min-max"], sqnr_db: 10.0 },
    Setting { args: &["--scheme", "w8a8-dynamic"], sqnr_db: 25.0 },
    Setting { args: &["--scheme", "auto"], sqnr_db: 25.0 },
    Setting { args: &["--scheme", "auto", "--reduce-range"], sqnr_db: 22.0 },
    Setting { args: &["--scheme", "w8a8", "--target", "qdq-strict", "--min-sqnr", "25"], sqnr_db: 24.0 },
    Setting { args: &["--scheme", "w4a8", "--target", "qdq-strict"], sqnr_db: 8.0 },
    Setting { args: &["--scheme", "auto", "--bits", "4"], sqnr_db: 8.0 },
];

/// Tract and ONNX Runtime round near ties differently.
const SIMULATION_MARGIN_DB: f64 = 1.0;
/// Optimized and plain kernels may differ by single steps.
const AGREEMENT_DB: f64 = 25.0;
/// Accuracy that integer activations may cost.
const ACCURACY_MARGIN: f64 = 0.02;

#[test]
fn integer_layers_are_fused_and_do_what_was_reported() {
    let folder = folder();
    let mut cases = Vec::new();
    let mut jobs = Vec::new();
    for fixture in Fixture::ALL {
        for setting in &SETTINGS {
            let path = folder.path().join(format!("{}.onnx", cases.len()));
            let found = report(&fixture.model(), &path, setting.args, Some(&fixture.calib()));
            jobs.push(Job { nodes: true, ..Job::compare(&path, &fixture.model(), &fixture.held_out()) });
            let labels = Some(fixture.test_set());
            jobs.push(Job { model: path, labels, ..Job::default() });
            cases.push((fixture, setting, found));
        }
    }
    let float_from = jobs.len();
    jobs.extend(Fixture::ALL.map(|fixture| Job {
        model: fixture.model(),
        labels: Some(fixture.test_set()),
        ..Job::default()
    }));
    let found = measure(&jobs);
    let (found, float) = found.split_at(float_from);
    let mut failures = Failures::default();
    let mut nodes = String::new();
    for ((fixture, setting, report), results) in cases.iter().zip(found.chunks(2)) {
        let name = format!("{} {}", fixture.name, setting.args.join(" "));
        nodes += &format!("{name}\n    {}\n", counted(&results[0]));
        let position = Fixture::ALL.iter().position(|other| other == fixture).expect("it is one of all");
        check(&name, setting, report, results, float[position].accuracy, &mut failures);
    }
    let expected = include_str!("fused_nodes.txt");
    failures.check(nodes == expected, || format!("ONNX Runtime makes other nodes of it:\n{nodes}"));
    failures.finish();
}

/// Quantized operators and what is left of their kinds in float, with their numbers.
fn counted(found: &Measured) -> String {
    let short = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let shown = ["Q", "Dynamic", "MatMul", "Conv", "Gemm", "FusedConv", "FusedGemm", "Dequantize", "Nhwc"];
    let counts: BTreeMap<String, u64> = found.nodes.iter().map(|(name, &count)| (short(name), count)).collect();
    let relevant = counts.iter().filter(|(name, _)| shown.iter().any(|start| name.starts_with(start)));
    relevant.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn check(
    name: &str,
    setting: &Setting,
    report: &Value,
    results: &[Measured],
    float: Option<f64>,
    failures: &mut Failures,
) {
    let (held_out, test_set) = (&results[0], &results[1]);
    let faults = [held_out.faults(), test_set.faults()].concat();
    failures.check(faults.is_empty(), || format!("{name}: {faults}"));
    let reported = report["held_out"]["sqnr_db"].as_f64();
    for (how, found) in [("plain", held_out.sqnr_db), ("optimized", held_out.default_sqnr_db)] {
        let reached = found.is_some_and(|found| found >= setting.sqnr_db);
        failures.check(reached, || format!("{name}: {how} SQNR {found:?} dB, expected {} dB", setting.sqnr_db));
    }
    let plain = held_out.sqnr_db;
    let as_reported = plain.zip(reported).is_some_and(|(found, told)| (found - told).abs() <= SIMULATION_MARGIN_DB);
    failures.check(as_reported, || format!("{name}: SQNR {plain:?} dB, {reported:?} dB reported"));
    let agrees = held_out.agreement_db.is_none_or(|agreement_db| agreement_db >= AGREEMENT_DB);
    failures.check(agrees, || format!("{name}: {:?} dB between optimized and plain", held_out.agreement_db));
    let kept = test_set.accuracy.zip(float).is_some_and(|(found, float)| found >= float - ACCURACY_MARGIN);
    failures.check(kept, || format!("{name}: accuracy {:?}, float {float:?}", test_set.accuracy));
}

#[test]
fn a_missed_accuracy_has_an_exit_code_of_its_own() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let mut command = onnxquant(&[Fixture::CONV1D.model(), output.clone()]);
    command.args(["--scheme", "auto", "--min-sqnr", "90"]).arg("--calib").arg(Fixture::CONV1D.calib());
    let run = Run::of(&mut command);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("90.0 dB wanted") && output.exists(), "{}", run.stderr);
}

#[test]
fn what_integers_cannot_do_is_a_usage_error() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let table: [(&[&str], &str); 4] = [
        (&["--scheme", "w8a8", "--asymmetric"], "symmetric weights"),
        (&["--scheme", "auto", "--granularity", "block:32"], "not in blocks"),
        (&["--scheme", "w8a8", "--range", "median"], "--range"),
        (&["--scheme", "w8a8", "--opset-max", "12"], "opset 13"),
    ];
    let mut failures = Failures::default();
    for (args, text) in table {
        let mut command = onnxquant(&[Fixture::CNN.model(), output.clone()]);
        let run = Run::of(command.args(args).arg("--calib").arg(Fixture::CNN.calib()));
        let problem = refused(&run, &[text]);
        failures.check(problem.is_none(), || format!("{args:?}: {problem:?}"));
    }
    let mut command = onnxquant(&[Fixture::MLP.model(), output.clone()]);
    let run = Run::of(command.args(["--scheme", "w8a8", "--weights-only"]));
    let problem = refused(&run, &["calibration data"]);
    failures.check(problem.is_none(), || format!("without data: {problem:?}"));
    failures.check(!output.exists(), || "something was written".to_owned());
    failures.finish();
}
