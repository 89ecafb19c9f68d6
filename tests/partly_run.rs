//! Models of which the calibration engine cannot run a part: what comes before is calibrated, what depends on it rounded.

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use onnxquant::calib::{Tensor, write_captures};
use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto};
use onnxquant_ir::tensor;
use serde_json::{Value, json};

use crate::support::{
    Failures, Job, Run, chain_around, folder, forget_lengths, measure, node, onnxquant, refused, report,
    shadowing_loop, write,
};

/// ONNX Runtime would run what the embedded engine cannot.
const ALONE: [&str; 2] = ["--ort-lib", "off"];

/// Writes samples of `x` and returns their paths.
fn samples(folder: &Path, count: usize) -> Vec<PathBuf> {
    std::fs::create_dir(folder).expect("the folder can be made");
    let number = |sample: usize, at: usize| ((sample * 131 + at * at * 17) as f32 * 0.61).sin();
    let path = |sample: usize| {
        let path = folder.join(format!("{sample:04}.npz"));
        let array = ArrayD::from_shape_fn(IxDyn(&[4, 32]), |at| number(sample, at[0] * 32 + at[1]));
        write_captures(&path, &["x".to_owned()], &[Tensor::F32(array)]).expect("a sample can be written");
        path
    };
    (0..count).map(path).collect()
}

/// `m` is `h`, padded by nothing, in a mode on which the engine only fails when it tries.
fn wrapping() -> ModelProto {
    let mode = AttributeProto {
        name: Some("mode".to_owned()),
        r#type: Some(AttributeType::String as i32),
        s: Some(b"wrap".to_vec()),
        ..AttributeProto::default()
    };
    let pad =
        NodeProto { name: Some("pad".to_owned()), attribute: vec![mode], ..node("Pad", &["h", "widths"], &["m"]) };
    let widths = TensorProto { name: Some("widths".to_owned()), ..tensor::from_i64(&[4], &[0; 4]) };
    let mut model = chain_around(vec![pad], vec![widths]);
    model.opset_import[0].version = Some(19);
    model
}

/// `m` is `x` plus the place of the largest number in each row of `h`, which goes through a sequence.
fn picking() -> ModelProto {
    let int = |name: &str, number: i64| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(number),
        ..AttributeProto::default()
    };
    let with = |attribute: AttributeProto, node: NodeProto| NodeProto { attribute: vec![attribute], ..node };
    let list = NodeProto { name: Some("list".to_owned()), ..node("SequenceConstruct", &["places"], &["sequence"]) };
    let middle = vec![
        with(int("axis", 1), node("ArgMax", &["h"], &["places"])),
        list,
        node("SequenceAt", &["sequence", "first"], &["picked"]),
        with(int("to", 1), node("Cast", &["picked"], &["number"])),
        node("Add", &["number", "x"], &["m"]),
    ];
    chain_around(middle, vec![TensorProto { name: Some("first".to_owned()), ..tensor::from_i64(&[], &[0]) }])
}

fn repeating() -> ModelProto {
    let (nodes, constants) = shadowing_loop();
    chain_around(nodes, constants)
}

fn layer<'a>(report: &'a Value, label: &str) -> &'a Value {
    let layers = report["layers"].as_array().expect("it lists layers");
    layers.iter().find(|layer| layer["label"] == label).unwrap_or_else(|| panic!("`{label}` is quantized"))
}

#[test]
fn what_comes_before_a_node_that_cannot_be_run_is_calibrated() {
    let folder = folder();
    let calib = folder.path().join("calib");
    let samples = samples(&calib, 24);
    let cases = [("repeat", "Loop", repeating()), ("pad", "Pad", wrapping()), ("list", "SequenceConstruct", picking())];
    let settings: [&[&str]; 5] = [
        &["--scheme", "w8"],
        &["--scheme", "w8", "--method", "optq"],
        &["--scheme", "w8a8-dynamic"],
        &["--scheme", "w8a8", "--target", "qdq-strict", "--one-pass"],
        &["--average-bits", "6"],
    ];
    let (mut failures, mut jobs) = (Failures::default(), Vec::new());
    for (label, op_type, model) in &cases {
        let input = folder.path().join(format!("{label}.onnx"));
        write(model, &input);
        for (index, args) in settings.iter().enumerate() {
            let output = folder.path().join(format!("{label}_{index}.onnx"));
            let report = report(&input, &output, &[args, &ALONE[..]].concat(), Some(&calib));
            let fits = |label: &str| layer(&report, label)["calibration_rows"].is_number();
            let behind = layer(&report, "behind");
            let not_run = &report["not_run"];
            let checks = [
                fits("product") && fits("second") && behind.get("error").is_none(),
                behind["method"] == "msq" && behind["activations"] == "float",
                behind["notes"].to_string().contains(&format!("`{label}` ({op_type})")),
                not_run["nodes"][0]["label"] == *label && not_run["nodes"][0]["op_type"] == *op_type,
                not_run["outputs"] == json!(["y"]) && not_run["layers"] == json!(["behind"]),
                not_run["compared"] == json!(["h"]) && report["held_out"]["outputs"][0]["name"] == "h",
                report["held_out"]["sqnr_db"].as_f64().is_some_and(|found| found > 10.0),
            ];
            failures.check(checks == [true; 7], || format!("{label} {args:?}: {checks:?} {not_run} {behind}"));
            jobs.push((format!("{label} {args:?}"), Job::compare(&output, &input, &samples)));
        }
    }
    let of_jobs: Vec<Job> = jobs.iter().map(|(_, job)| job.clone()).collect();
    for ((name, _), found) in jobs.iter().zip(measure(&of_jobs)) {
        let sqnr_db = found.sqnr_db.unwrap_or(f64::INFINITY);
        failures.check(found.faults().is_empty() && sqnr_db > 10.0, || format!("{name}: {found:?}"));
    }
    failures.finish();
}

#[test]
fn what_is_not_run_is_said_in_the_summary() {
    let folder = folder();
    let calib = folder.path().join("calib");
    samples(&calib, 4);
    let input = folder.path().join("in.onnx");
    write(&repeating(), &input);
    let mut command = onnxquant(&[&input, &folder.path().join("out.onnx")]);
    let run = Run::of(command.args(["--scheme", "w8"]).args(ALONE).arg("--calib").arg(&calib)).succeeded();
    let expected = "\
not run `repeat` (Loop): the calibration engine cannot
        it says: it does not know this operator
        1 layers that depend on that are rounded without data: `behind`
        outputs that depend on that are not compared: `y`
";
    assert!(run.says(expected), "{}", run.stdout);
    assert!(run.says(" dB of the values before what is not run on "), "{}", run.stdout);
}

/// `m` is what an RNN makes of `from` that is activated otherwise than the engine does.
fn recurring(from: &str) -> ModelProto {
    let activations = AttributeProto {
        name: Some("activations".to_owned()),
        r#type: Some(AttributeType::Strings.into()),
        strings: vec![b"Relu".to_vec()],
        ..AttributeProto::default()
    };
    let recur = NodeProto {
        name: Some("recur".to_owned()),
        output: vec![String::new(), "mixed".to_owned()],
        attribute: vec![onnxquant_ir::int_attribute("hidden_size", 32), activations],
        ..node("RNN", &["batch", "seen", "kept"], &[])
    };
    let middle =
        vec![node("Unsqueeze", &[from, "axis"], &["batch"]), recur, node("Squeeze", &["mixed", "axis"], &["m"])];
    let numbers = |count: usize| (0..count).map(|at| ((at * 37 % 101) as f32 - 50.0) / 300.0).collect::<Vec<f32>>();
    let named = |name: &str, tensor: TensorProto| TensorProto { name: Some(name.to_owned()), ..tensor };
    let constants = vec![
        named("axis", tensor::from_i64(&[1], &[0])),
        named("seen", tensor::from_f32(&[1, 32, 32], &numbers(32 * 32))),
        named("kept", tensor::from_f32(&[1, 32, 32], &numbers(32 * 32))),
    ];
    let mut model = chain_around(middle, constants);
    if from == "x" {
        model.graph.as_mut().expect("made with a graph").node.drain(..3);
    }
    model
}

/// The same with a Loop.
fn looping_first() -> ModelProto {
    let (mut nodes, constants) = shadowing_loop();
    nodes[0].input[2] = "x".to_owned();
    let mut model = chain_around(nodes, constants);
    model.graph.as_mut().expect("made with a graph").node.drain(..3);
    model
}

#[test]
fn model_all_of_whose_layers_depend_on_such_a_node_is_rounded_without_data() {
    let folder = folder();
    let calib = folder.path().join("calib");
    let samples = samples(&calib, 8);
    let cases = [("`repeat` (Loop)", looping_first()), ("`recur` (RNN)", recurring("x"))];
    let settings: [&[&str]; 4] = [
        &["--scheme", "w8"],
        &["--scheme", "w8", "--method", "optq", "--one-pass"],
        &["--scheme", "w8a8", "--target", "qdq-strict"],
        &["--average-bits", "6"],
    ];
    let (mut failures, mut jobs) = (Failures::default(), Vec::new());
    for (case, (label, model)) in cases.iter().enumerate() {
        let input = folder.path().join(format!("{case}.onnx"));
        write(model, &input);
        for (index, args) in settings.iter().enumerate() {
            let output = folder.path().join(format!("{case}_{index}.onnx"));
            let mut command = onnxquant(&[&input, &output]);
            let run = Run::of(command.args(*args).args(ALONE).arg("--calib").arg(&calib));
            let texts =
                [*label, "1 layers that depend on that are rounded without data: `behind`", "that is all layers"];
            let missing = texts.iter().find(|text| !run.says(text));
            failures
                .check(run.code == Some(1) && run.stderr.contains("rounded without data") && missing.is_none(), || {
                    format!("{label} {args:?}: {missing:?} {run:?}")
                });
            // Shape inference does not follow a Loop from the graph's input.
            jobs.push(Job { check: false, ..Job::compare(&output, &input, &samples) });
        }
        let mut compare = onnxquant(&["compare"]);
        let alone = compare.args([&input, &input]).args(ALONE).arg("--data").arg(&calib);
        let fault = refused(&Run::of(alone), &[*label]);
        failures.check(fault.is_none(), || fault.unwrap_or_default());
    }
    for (job, found) in jobs.iter().zip(measure(&jobs)) {
        let fine = found.faults().is_empty() && found.sqnr_db.unwrap_or(f64::INFINITY) > 10.0;
        failures.check(fine, || format!("{}: {found:?}", job.model.display()));
    }
    failures.finish();
}

#[test]
fn layers_before_an_operator_that_the_engine_misreads_are_calibrated() {
    let folder = folder();
    let (calib, input) = (folder.path().join("calib"), folder.path().join("in.onnx"));
    samples(&calib, 8);
    write(&recurring("h"), &input);
    let args = [&["--scheme", "w8"], &ALONE[..]].concat();
    let report = report(&input, &folder.path().join("out.onnx"), &args, Some(&calib));
    assert!(layer(&report, "second")["calibration_rows"].is_number());
    assert_eq!(
        report["not_run"]["nodes"][0]["reason"],
        "it computes activation functions other than the default ones otherwise, as these"
    );
    assert_eq!(report["not_run"]["layers"], json!(["behind"]));
}

/// The first layer takes 32 numbers a row and gets 31.
#[test]
fn samples_that_do_not_fit_the_first_layer_are_refused() {
    let folder = folder();
    let (calib, input) = (folder.path().join("calib"), folder.path().join("in.onnx"));
    std::fs::create_dir(&calib).expect("the folder can be made");
    let mut model = chain_around(vec![node("Relu", &["h"], &["m"])], vec![]);
    let graph = model.graph.as_mut().expect("made with a graph");
    forget_lengths(&mut graph.input[0]);
    write(&model, &input);
    for sample in 0..4 {
        let array = ArrayD::from_elem(IxDyn(&[4, 31]), 0.5);
        write_captures(&calib.join(format!("{sample}.npz")), &["x".to_owned()], &[Tensor::F32(array)])
            .expect("a sample can be written");
    }
    let mut command = onnxquant(&[&input, &folder.path().join("out.onnx")]);
    assert_eq!(refused(&Run::of(command.arg("--calib").arg(&calib)), &["`x`", "[4, 31]"]), None);
}
