//! Every scheme, width and budget for both targets, on one network in several opsets: what is written loads, computes
//! what was told, and has no higher opset than its codes can need.
//!
//! The network has what numbers of nodes and values depend on: normalizations that are folded, an operator that other
//! opsets write otherwise, and convolutions wide enough that codes save time.

use std::path::{Path, PathBuf};

use onnxquant::calib::Split;
use onnxquant_ir::{ExternalData, Model, write_model};
use onnxquant_passes::raise_opset::raise_opset;
use rayon::prelude::*;
use serde_json::Value;

use crate::support::{Failures, Fixture, Job, Measured, agree, folder, measure, try_report};

const FIXTURE: Fixture = Fixture::RESNET;
/// Opsets of the float model; the fixture has the second.
const OPSETS: [i64; 4] = [11, 13, 17, 21];
/// Scales by channel need it.
const PER_CHANNEL_OPSET: i64 = 13;
const TARGETS: [&str; 2] = ["ort-cpu", "qdq-strict"];

/// A way to quantize.
struct Setting {
    args: &'static [&'static str],
    /// What its codes can need.
    opset: i64,
}

const fn setting(args: &'static [&'static str], opset: i64) -> Setting {
    Setting { args, opset }
}

/// `DequantizeLinear` of two bits needs opset 25, planes of codes 18, fixed scales a channel 13, all else nothing.
const SETTINGS: [Setting; 18] = [
    setting(&["--scheme", "w8"], 0),
    setting(&["--scheme", "w4"], 18),
    setting(&["--scheme", "w3"], 18),
    setting(&["--scheme", "w2"], 18),
    setting(&["--scheme", "w1"], 18),
    setting(&["--average-bits", "4"], 18),
    setting(&["--target-size", "0.2"], 18),
    setting(&["--average-bits", "4", "--format", "dq"], 21),
    setting(&["--scheme", "w8a8"], 13),
    setting(&["--scheme", "w4a8"], 18),
    setting(&["--scheme", "w8a8", "--bits", "3"], 18),
    setting(&["--scheme", "w8a8", "--average-bits", "4"], 18),
    setting(&["--scheme", "w8a8-dynamic"], 13),
    setting(&["--scheme", "w8a8-dynamic", "--bits", "4"], 18),
    setting(&["--scheme", "w8a8-dynamic", "--average-bits", "4"], 18),
    setting(&["--scheme", "auto"], 13),
    setting(&["--scheme", "auto", "--bits", "4", "--min-sqnr", "5"], 18),
    setting(&["--scheme", "auto", "--average-bits", "4", "--min-sqnr", "5"], 18),
];

/// Rounding, and few samples: there are many runs.
const FAST: [&str; 6] = ["--method", "msq", "--samples", "20", "--threads", "1"];
const SAMPLES: usize = 20;

/// Tract and ONNX Runtime round near ties differently.
const MARGIN_DB: f64 = 1.5;

struct Case {
    opset: i64,
    target: &'static str,
    setting: &'static Setting,
    output: PathBuf,
}

impl Case {
    fn name(&self) -> String {
        format!("opset {} {} --target {}", self.opset, self.setting.args.join(" "), self.target)
    }

    /// Of which layers run on codes, with scales of activations that samples tell.
    fn has_regions(&self) -> bool {
        let is_named = self.setting.args.iter().any(|arg| ["w8a8", "w4a8", "auto"].contains(arg));
        is_named || self.target == "qdq-strict"
    }
}

#[test]
fn every_setting_gives_a_model_that_loads_and_does_what_was_told() {
    let folder = folder();
    OPSETS.iter().for_each(|&opset| write_at(opset, &input(folder.path(), opset)));
    let mut cases = Vec::new();
    for opset in OPSETS {
        for target in TARGETS {
            // Accelerators have fixed scales.
            let is_taken = |setting: &&Setting| target == "ort-cpu" || !setting.args.contains(&"w8a8-dynamic");
            for setting in SETTINGS.iter().filter(is_taken) {
                let output = folder.path().join(format!("{}.onnx", cases.len()));
                cases.push(Case { opset, target, setting, output });
            }
        }
    }
    let run = |case: &Case| {
        let range: &[&str] = if case.has_regions() { &["--range", "mse"] } else { &[] };
        let args = [case.setting.args, &["--target", case.target], &FAST, range].concat();
        try_report(&input(folder.path(), case.opset), &case.output, &args, Some(&FIXTURE.calib()))
    };
    let reports: Vec<Result<Value, String>> = cases.par_iter().map(run).collect();
    let mut failures = Failures::default();
    let mut written = Vec::new();
    for (case, report) in cases.iter().zip(reports) {
        match report {
            Ok(report) => written.push((case, report)),
            Err(said) => failures.check(false, || format!("{}: {said}", case.name())),
        }
    }
    let samples = FIXTURE.held_out_of(SAMPLES);
    let job = |case: &Case| Job { load: false, ..Job::compare(&case.output, &FIXTURE.model(), &samples) };
    let jobs: Vec<Job> = written.iter().map(|(case, _)| job(case)).collect();
    let half = jobs.len() / 2;
    let (first, second) = rayon::join(|| measure(&jobs[..half]), || measure(&jobs[half..]));
    for ((case, report), found) in written.iter().zip(first.iter().chain(&second)) {
        check(case, report, found, &mut failures);
    }
    failures.finish();
}

fn input(folder: &Path, opset: i64) -> PathBuf {
    folder.join(format!("opset{opset}.onnx"))
}

/// Writes the fixture as it is in another opset.
fn write_at(opset: i64, path: &Path) {
    let mut model = Model::read(&FIXTURE.model()).expect("the fixture can be read");
    if model.opset("").is_some_and(|present| present < opset) {
        model = raise_opset(model, opset).expect("the opset can be raised").0;
    }
    // Below its own opset the operators of the fixture mean the same.
    model.set_opset("", opset);
    write_model(&model, path, ExternalData::Auto).expect("the model can be written");
}

fn check(case: &Case, report: &Value, found: &Measured, failures: &mut Failures) {
    let name = case.name();
    failures.check(found.faults().is_empty(), || format!("{name}: {}", found.faults()));
    assert_eq!(report["held_out"]["held_out_samples"], Split::of(SAMPLES).held_out.len());
    let told = report["held_out"]["sqnr_db"].as_f64();
    // For a CPU what users get is told, for accelerators what the operators mean.
    let measured = if case.target == "ort-cpu" { found.default_sqnr_db } else { found.sqnr_db };
    let as_told = measured.zip(told).is_some_and(|(measured, told)| agree(measured, told, MARGIN_DB));
    failures.check(as_told, || format!("{name}: SQNR {measured:?} dB, {told:?} dB told"));
    let opset = report["opset"].as_i64();
    let of_scales = if case.has_regions() { PER_CHANNEL_OPSET } else { 0 };
    // For accelerators all codes are bytes.
    let of_codes = if case.target == "ort-cpu" { case.setting.opset } else { 0 };
    let expected = case.opset.max(of_codes).max(of_scales);
    failures.check(opset == Some(expected), || format!("{name}: written in opset {opset:?}, expected {expected}"));
    let on_codes = report["integers"]["static_layers"].as_u64();
    failures
        .check(!case.has_regions() || on_codes > Some(4), || format!("{name}: {on_codes:?} layers on fixed scales"));
}
