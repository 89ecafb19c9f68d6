//! What is written runs in ONNX Runtime: at every optimization level, with the outputs that were promised, fused,
//! and as accurate as it should be.

use std::path::{Path, PathBuf};

use onnxquant::calib::Split;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{ModelProto, NodeProto, TensorProto};
use onnxquant_ir::{int_attribute, tensor};
use serde_json::Value;

use crate::support::{
    Failures, Fixture, Job, MatMulModel, Measured, Run, agree, files_in, folder, measure, node, noise_samples,
    onnxquant, refused, report, write,
};

/// A way to quantize, and what it must achieve.
struct Setting {
    name: &'static str,
    args: &'static [&'static str],
    /// Output SQNR on labelled samples, at least; `None` where so few bits promise nothing.
    sqnr_db: Option<f64>,
}

const fn setting(name: &'static str, args: &'static [&'static str], sqnr_db: Option<f64>) -> Setting {
    Setting { name, args, sqnr_db }
}

const SETTINGS: [Setting; 23] = [
    setting(CHOSEN, &["--scheme", "w8"], Some(30.0)),
    setting("w8", &["--scheme", "w8", "--format", "matmulnbits"], Some(30.0)),
    setting("w8 msq", &["--method", "msq", "--format", "matmulnbits"], Some(30.0)),
    setting("w8 tensor", &["--granularity", "tensor", "--format", "matmulnbits"], Some(25.0)),
    setting("w8 block", &["--granularity", "block:32", "--format", "matmulnbits"], Some(30.0)),
    setting("w8 asymmetric", &["--asymmetric", "--format", "matmulnbits"], Some(30.0)),
    setting("w4", &["--scheme", "w4"], Some(8.0)),
    setting("w4 block", &["--scheme", "w4", "--granularity", "block:32"], Some(8.0)),
    setting("w4 block asymmetric", &["--bits", "4", "--granularity", "block:16", "--asymmetric"], Some(8.0)),
    setting("w3", &["--scheme", "w3"], Some(3.0)),
    setting("w2", &["--scheme", "w2"], None),
    setting("w2 asymmetric", &["--bits", "2", "--asymmetric"], None),
    setting("w2 block", &["--bits", "2", "--granularity", "block:32"], None),
    setting("w2 below opset 25", &["--bits", "2", "--opset-max", "21"], None),
    setting("w1", &["--scheme", "w1"], None),
    setting("w8 dq", &["--format", "dq", "--ort-min", "1.26"], Some(30.0)),
    setting(
        "w4 dq block",
        &["--bits", "4", "--granularity", "block:32", "--format", "dq", "--ort-min", "1.26"],
        Some(8.0),
    ),
    setting("w2 dq", &["--bits", "2", "--format", "dq", "--ort-min", "1.26"], None),
    setting("w3 below opset 18", &["--bits", "3", "--opset-max", "17"], Some(3.0)),
    setting(FOLDED[0], &["--ort-min", "1.19"], Some(30.0)),
    setting(FOLDED[1], &["--scheme", "fp8"], Some(30.0)),
    setting(FOLDED[2], &["--scheme", "fp8", "--method", "msq"], Some(29.0)),
    setting(FOLDED[3], &["--scheme", "fp8", "--granularity", "tensor", "--ort-min", "1.19"], Some(25.0)),
];

/// The form is the faster one for the rows of the samples, which differ from layer to layer.
const CHOSEN: &str = "w8 in the faster form";

/// There is no kernel for 8 bits in that version, nor for FP8 in any: the weights become floats when the model loads.
const FOLDED: [&str; 4] = ["w8 for 1.19", "fp8", "fp8 msq", "fp8 tensor"];

/// Tract and ONNX Runtime round sums differently, by far less than quantization changes them.
const SIMULATION_MARGIN_DB: f64 = 0.1;
/// ONNX Runtime's fast kernels round activations to 8 bits, and change the outputs by that and no more.
const AGREEMENT_DB: f64 = 30.0;
/// The same where both round to f16, each in its own way.
const HALF_MARGIN_DB: f64 = 0.5;
/// Accuracy that 8 bits may cost.
const ACCURACY_MARGIN: f64 = 0.01;

/// A written file and what was reported of it.
struct Written {
    fixture: Fixture,
    setting: &'static Setting,
    report: Value,
}

impl Written {
    fn name(&self) -> String {
        format!("{}, {}", self.fixture.name, self.setting.name)
    }
}

fn write_all(folder: &Path) -> Vec<(Written, std::path::PathBuf)> {
    let cases = Fixture::ALL.into_iter().flat_map(|fixture| SETTINGS.iter().map(move |setting| (fixture, setting)));
    let write = |(index, (fixture, setting)): (usize, (Fixture, &'static Setting))| {
        let path = folder.join(format!("{index}.onnx"));
        let report = report(&fixture.model(), &path, setting.args, Some(&fixture.calib()));
        (Written { fixture, setting, report }, path)
    };
    cases.enumerate().map(write).collect()
}

#[test]
fn written_files_run_in_onnx_runtime_as_reported() {
    let folder = folder();
    let written = write_all(folder.path());
    let mut jobs = Vec::new();
    for (case, path) in &written {
        let model = case.fixture.model();
        jobs.push(Job { nodes: true, ..Job::compare(path, &model, &case.fixture.held_out()) });
        let labels = case.fixture.test_set();
        jobs.push(Job {
            labels: Some(labels.clone()),
            check: false,
            load: false,
            ..Job::compare(path, &model, &[labels])
        });
    }
    let float_from = jobs.len();
    let float = |fixture: Fixture| Job { model: fixture.model(), labels: Some(fixture.test_set()), ..Job::default() };
    jobs.extend(Fixture::ALL.map(float));
    let found = measure(&jobs);
    let (found, float) = found.split_at(float_from);

    let mut failures = Failures::default();
    for ((case, _), results) in written.iter().zip(found.chunks(2)) {
        let (held_out, test_set) = (&results[0], &results[1]);
        let faults = [held_out.faults(), test_set.faults()].concat();
        failures.check(faults.is_empty(), || format!("{}: {faults}", case.name()));
        check_simulation(case, held_out, &mut failures);
        check_fusion(case, held_out, &mut failures);
        let position = Fixture::ALL.iter().position(|fixture| *fixture == case.fixture).expect("it is one of all");
        check_accuracy(case, test_set, float[position].accuracy, &mut failures);
    }
    failures.finish();
}

/// The simulated error on held-out samples is the one that ONNX Runtime has.
fn check_simulation(case: &Written, found: &Measured, failures: &mut Failures) {
    let simulated = case.report["held_out"]["sqnr_db"].as_f64();
    let agree =
        found.default_sqnr_db.zip(simulated).is_some_and(|(found, told)| agree(found, told, SIMULATION_MARGIN_DB));
    failures.check(agree, || {
        let (name, found) = (case.name(), found.default_sqnr_db);
        format!("{name}: held-out SQNR {found:?} dB in ONNX Runtime, {simulated:?} dB reported")
    });
}

/// MatMul and Gemm became MatMulNBits, Conv has a float weight again, nothing is decoded at every run.
fn check_fusion(case: &Written, found: &Measured, failures: &mut Failures) {
    let convolutions = found.count("Conv") + found.count("FusedConv");
    let layers = case.report["layers"].as_array().map_or(&[][..], Vec::as_slice);
    let predicted = layers.iter().filter(|layer| layer["runs_as"] == "MatMulNBits").count() as u64;
    let n_dense = match case.setting.name {
        CHOSEN => predicted.min(case.fixture.n_dense),
        name if FOLDED.contains(&name) => 0,
        _ => case.fixture.n_dense,
    };
    let counts = [
        ("predicted MatMulNBits", predicted, n_dense),
        ("MatMulNBits", found.count("MatMulNBits"), n_dense),
        ("Conv", convolutions, case.fixture.n_conv),
        ("DequantizeLinear", found.count("DequantizeLinear"), 0),
        ("Cast", found.count("Cast"), 0),
    ];
    for (op_type, count, expected) in counts {
        let nodes = &found.nodes;
        failures.check(count == expected, || {
            format!("{}: {count} {op_type}, expected {expected}, in {nodes:?}", case.name())
        });
    }
}

fn check_accuracy(case: &Written, found: &Measured, float: Option<f64>, failures: &mut Failures) {
    if let Some(least) = case.setting.sqnr_db {
        for (how, sqnr_db) in [("exact", found.sqnr_db), ("default", found.default_sqnr_db)] {
            let reached = sqnr_db.is_some_and(|sqnr_db| sqnr_db >= least);
            failures.check(reached, || format!("{}: {how} SQNR {sqnr_db:?} dB, expected {least} dB", case.name()));
        }
    }
    let agree = found.agreement_db.is_none_or(|agreement_db| agreement_db >= AGREEMENT_DB);
    failures.check(agree, || {
        let name = case.name();
        format!("{name}: {:?} dB between ONNX Runtime's fast and plain kernels", found.agreement_db)
    });
    if case.report["settings"]["bits"] == 8 {
        let kept = found.accuracy.zip(float).is_some_and(|(found, float)| found >= float - ACCURACY_MARGIN);
        failures.check(kept, || format!("{}: accuracy {:?}, float {float:?}", case.name(), found.accuracy));
    }
}

#[test]
fn compare_agrees_with_onnx_runtime_on_all_samples() {
    let folder = folder();
    let mut failures = Failures::default();
    let (mut jobs, mut simulated) = (Vec::new(), Vec::new());
    for fixture in [Fixture::CNN, Fixture::TRANSFORMER] {
        let (model, quantized) = (fixture.model(), folder.path().join(format!("{}.onnx", fixture.name)));
        report(&model, &quantized, &["--bits", "4"], Some(&fixture.calib()));
        let samples = (0..48).map(|index| fixture.sample(index)).collect::<Vec<_>>();
        jobs.push(Job::compare(&quantized, &model, &samples));
        simulated.push(crate::command::compare(&model, &quantized, &fixture.calib()));
    }
    for (found, simulated) in measure(&jobs).iter().zip(simulated) {
        let outputs = simulated["outputs"].as_array().expect("compare lists outputs");
        let in_outputs = outputs.iter().filter_map(|output| output["sqnr_db"].as_f64()).collect::<Vec<_>>();
        let (low, high) = (in_outputs.iter().copied().reduce(f64::min), in_outputs.iter().copied().reduce(f64::max));
        let found = found.sqnr_db.expect("4 bits change something");
        // ONNX Runtime's figure is over all outputs together, so it lies between those of the outputs.
        let inside = low.is_some_and(|low| found >= low - SIMULATION_MARGIN_DB)
            && high.is_some_and(|high| found <= high + SIMULATION_MARGIN_DB);
        failures.check(inside, || format!("{found} dB in ONNX Runtime, {in_outputs:?} dB by compare"));
    }
    failures.finish();
}

#[test]
fn layers_run_as_predicted() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let settings: [&[&str]; 7] = [
        &["--scheme", "w8"],
        &["--scheme", "fp8"],
        &["--bits", "2", "--granularity", "block:16"],
        &["--bits", "4", "--format", "dq"],
        &["--scheme", "w8a8", "--target", "qdq-strict"],
        &["--scheme", "w4a8", "--target", "qdq-strict"],
        &["--scheme", "w8a8-dynamic"],
    ];
    let mut failures = Failures::default();
    for fixture in Fixture::ALL {
        for args in settings {
            let args = [args, &["--method", "msq", "--verify", "ort"]].concat();
            let verified = report(&fixture.model(), &output, &args, Some(&fixture.calib()))["verified"].take();
            let right = verified["as_predicted"] == fixture.n_dense + fixture.n_conv;
            failures.check(right, || format!("{} {args:?}: {verified}", fixture.name));
        }
    }
    failures.finish();
}

#[test]
fn bits_in_the_file_are_those_that_were_asked_for() {
    let folder = folder();
    let (model, output) = (folder.path().join("model.onnx"), folder.path().join("out.onnx"));
    write(&MatMulModel::new(512, 256).proto(), &model);
    let mut failures = Failures::default();
    for (bits, block, most) in [
        ("4", "block:32", 5.0),
        ("3", "block:32", 4.1),
        ("3", "block:128", 3.3),
        ("2", "block:32", 3.1),
        ("1", "block:128", 1.3),
    ] {
        let args = ["--bits", bits, "--granularity", block];
        let found = report(&model, &output, &args, None);
        let stored = found["layers"][0]["bytes"].as_u64().expect("layers have bytes") as f64 * 8.0 / (512.0 * 256.0);
        let file = std::fs::metadata(&output).expect("it was written").len() as f64 * 8.0 / (512.0 * 256.0);
        failures.check(stored <= most, || format!("{bits} bits, {block}: {stored} a weight"));
        failures.check(file <= stored + 0.2, || {
            format!("{bits} bits, {block}: {file} a weight in the file, {stored} counted")
        });
    }
    failures.finish();
}

/// `y = x w` computed in f16, between f32 inputs and outputs.
fn half_model(k: i64, n: i64) -> ModelProto {
    let mut model = MatMulModel::new(k, n).proto();
    let graph = model.graph.as_mut().expect("it has a graph");
    let weight = &mut graph.initializer[0];
    let numbers = tensor::to_f32(weight).expect("the weight holds floats").into_owned();
    let halves = tensor::from_f32_as(DataType::Float16, &[k as usize, n as usize], &numbers);
    *weight = TensorProto { name: weight.name.clone(), ..halves };
    let cast = |from: &str, into: &str, dtype: DataType| NodeProto {
        attribute: vec![int_attribute("to", dtype as i64)],
        ..node("Cast", &[from], &[into])
    };
    let product = NodeProto { name: Some("product".to_owned()), ..node("MatMul", &["h", "w"], &["p"]) };
    graph.node = vec![cast("x", "h", DataType::Float16), product, cast("p", "y", DataType::Float)];
    model
}

#[test]
fn fp8_weights_of_a_half_precision_layer_are_folded_too() {
    let folder = folder();
    let (model, output) = (folder.path().join("model.onnx"), folder.path().join("out.onnx"));
    write(&half_model(256, 64), &model);
    let calib = folder.path().join("calib");
    let samples = noise_samples(&calib, &[1, 256], 30);
    let held_out: Vec<PathBuf> = Split::of(30).held_out.into_iter().map(|at| samples[at].clone()).collect();
    let found = report(&model, &output, &["--scheme", "fp8", "--verify", "ort"], Some(&calib));
    assert_eq!((&found["verified"]["as_predicted"], &found["layers"][0]["alphabet"]), (&1.into(), &"e4m3".into()));
    let measured = measure(&[Job { nodes: true, ..Job::compare(&output, &model, &held_out) }]).remove(0);
    assert_eq!((measured.faults(), measured.count("Mul")), (String::new(), 0), "{:?}", measured.nodes);
    let told = found["held_out"]["sqnr_db"].as_f64().expect("it was measured");
    let real = measured.default_sqnr_db.expect("FP8 changes something");
    assert!(told > 25.0 && (told - real).abs() < HALF_MARGIN_DB, "{told} dB told, {real} dB measured");
}

#[test]
fn file_that_the_runtime_does_not_load_is_not_left() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    for python in ["/nonexistent/python", "/bin/false"] {
        let mut command = onnxquant(&[Fixture::MLP.model(), output.clone()]);
        let run = Run::of(command.args(["--weights-only", "--verify", "ort", "--python", python]));
        assert_eq!(refused(&run, &["`--verify ort` needs ONNX Runtime", "no packages of Python"]), None, "{python}");
        assert_eq!(files_in(folder.path()), [""; 0]);
    }
}
