//! Layers inside If, Loop and Scan and in local functions.

use std::path::{Path, PathBuf};

use onnxquant_ir::Model;
use onnxquant_ir::onnx::{GraphProto, ModelProto};
use serde_json::Value;

use crate::support::bodies::{
    branches_of_steps, functions, merged_branches, rows, shadowing_branch, steps, two_branches,
};
use crate::support::{Failures, Job, folder, inspect, measure, noise_samples, report, write};

/// A model and the paths of its layers.
struct Case {
    name: &'static str,
    model: fn() -> ModelProto,
    layers: &'static [&'static str],
}

const CASES: [Case; 7] = [
    Case {
        name: "if",
        model: two_branches,
        layers: &[
            "head",
            "choose/then_branch/shared",
            "choose/then_branch/own",
            "choose/else_branch/shared",
            "choose/else_branch/constant",
        ],
    },
    Case { name: "shadowed", model: shadowing_branch, layers: &["head", "choose/then_branch/inner"] },
    Case {
        name: "merged",
        model: merged_branches,
        layers: &["head", "choose/then_branch/first", "choose/else_branch/both", "choose/else_branch/later"],
    },
    Case { name: "loop", model: steps, layers: &["repeat/body/up", "repeat/body/down"] },
    Case { name: "scan", model: rows, layers: &["scan/body/conv", "scan/body/out"] },
    Case {
        name: "nested",
        model: branches_of_steps,
        layers: &["repeat/body/pick/then_branch/first", "repeat/body/pick/else_branch/later"],
    },
    Case {
        name: "functions",
        model: functions,
        layers: &["outer.3/first.4/product", "choose/then_branch/inner.1/first.2/product"],
    },
];

/// With what it keeps at least, in dB.
const SETTINGS: [(&[&str], f64); 6] = [
    (&["--scheme", "w8"], 30.0),
    (&["--scheme", "w4"], 11.0),
    (&["--scheme", "w2"], 1.5),
    (&["--scheme", "w8", "--format", "dq"], 30.0),
    (&["--scheme", "w4", "--format", "dq"], 11.0),
    (&["--scheme", "fp8"], 22.0),
];

/// What the summary tells may be so much above what is found, in dB.
const MARGIN_DB: f64 = 1.5;

/// Matrices are larger than so many bytes of floats, vectors and scales smaller.
const MATRIX_BYTES: u64 = 700;

fn texts(list: &Value, key: &str) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|entry| entry[key].as_str().unwrap_or_default().to_owned()).collect()
}

fn sorted(names: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
    names.sort();
    names
}

fn told_db(report: &Value) -> f64 {
    let told = [&report["measured"], &report["held_out"]].map(|found| found["sqnr_db"].as_f64());
    told[0].or(told[1]).unwrap_or(f64::NAN)
}

/// Weights that stayed floats.
fn matrices(report: &Value) -> Vec<String> {
    let floats = report["float_weights"].as_array().cloned().unwrap_or_default();
    let is_matrix = |found: &&Value| found["bytes"].as_u64().is_some_and(|bytes| bytes > MATRIX_BYTES);
    floats.iter().filter(is_matrix).map(Value::to_string).collect()
}

/// Writes a model and its samples.
fn prepared(folder: &Path, case: &Case) -> (PathBuf, PathBuf, Vec<PathBuf>) {
    let input = folder.join(format!("{}.onnx", case.name));
    write(&(case.model)(), &input);
    let calib = folder.join(case.name);
    let samples = noise_samples(&calib, &[4, 32], 32);
    (input, calib, samples)
}

#[test]
fn layers_in_bodies_and_functions_are_fitted_and_written() {
    let folder = folder();
    let (mut failures, mut jobs) = (Failures::default(), Vec::new());
    for case in &CASES {
        let (input, calib, samples) = prepared(folder.path(), case);
        for (index, (args, least)) in SETTINGS.iter().enumerate() {
            let output = folder.path().join(format!("{}_{index}.onnx", case.name));
            let report = report(&input, &output, &[args, &["--verify", "ort"][..]].concat(), Some(&calib));
            let layers = report["layers"].as_array().expect("it lists layers");
            let checks = [
                sorted(texts(&report["layers"], "label")) == sorted(case.layers.iter().copied()),
                report["skipped"].as_array().is_some_and(Vec::is_empty),
                layers.iter().all(|layer| layer["calibration_rows"].as_u64() > Some(0)),
                matrices(&report).is_empty(),
            ];
            let name = format!("{} {args:?}", case.name);
            failures.check(checks == [true; 4], || format!("{name}: {checks:?} {report:#}"));
            jobs.push((name, told_db(&report), *least, Job::compare(&output, &input, &samples)));
        }
    }
    let of_jobs: Vec<Job> = jobs.iter().map(|(.., job)| job.clone()).collect();
    for ((name, told, least, _), found) in jobs.iter().zip(measure(&of_jobs)) {
        let reached = found.default_sqnr_db.unwrap_or(f64::INFINITY);
        let is_fine = found.faults().is_empty() && reached >= *least && *told <= reached + MARGIN_DB;
        failures.check(is_fine, || format!("{name}: told {told}, found {reached} {}", found.faults()));
    }
    failures.finish();
}

#[test]
fn layers_in_bodies_are_rounded_where_nobody_shows_what_they_read() {
    let folder = folder();
    let (mut failures, mut jobs) = (Failures::default(), Vec::new());
    for case in &CASES {
        let (input, calib, samples) = prepared(folder.path(), case);
        let output = folder.path().join(format!("{}_rounded.onnx", case.name));
        let rounded = report(&input, &output, &["--scheme", "w8"], None);
        let labels = sorted(texts(&rounded["layers"], "label"));
        let is_rounded = texts(&rounded["layers"], "method").iter().all(|method| method == "msq");
        failures.check(labels == sorted(case.layers.iter().copied()) && is_rounded, || {
            format!("{}: {labels:?}", case.name)
        });
        jobs.push((format!("{} without data", case.name), Job::compare(&output, &input, &samples)));
        // The embedded engine has no Loop.
        if case.name == "loop" {
            let output = folder.path().join("alone.onnx");
            let args = ["--scheme", "w8", "--ort-lib", "off", "--allow-float"];
            let alone = report(&input, &output, &args, Some(&calib));
            let notes = alone["layers"][0]["notes"].to_string();
            failures.check(notes.contains("rounded without data: "), || format!("alone: {notes}"));
            jobs.push(("alone".to_owned(), Job::compare(&output, &input, &samples)));
        }
    }
    let of_jobs: Vec<Job> = jobs.iter().map(|(_, job)| job.clone()).collect();
    for ((name, _), found) in jobs.iter().zip(measure(&of_jobs)) {
        let reached = found.default_sqnr_db.unwrap_or(f64::INFINITY);
        failures.check(found.faults().is_empty() && reached > 25.0, || format!("{name}: {reached} {}", found.faults()));
    }
    failures.finish();
}

/// The bodies of the nodes of a graph.
fn bodies(graph: &GraphProto) -> Vec<&GraphProto> {
    graph.node.iter().flat_map(onnxquant_proto::bodies).collect()
}

#[test]
fn branches_that_read_one_weight_have_one_set_of_codes() {
    let folder = folder();
    let (input, calib, _) = prepared(folder.path(), &CASES[0]);
    let output = folder.path().join("out.onnx");
    let report = report(&input, &output, &["--scheme", "w4"], Some(&calib));
    let layers = report["layers"].as_array().expect("it lists layers");
    let shared: Vec<&Value> = layers.iter().filter(|layer| layer["label"].to_string().contains("shared")).collect();
    let bytes: Vec<u64> = shared.iter().filter_map(|layer| layer["bytes"].as_u64()).collect();
    assert!(bytes.len() == 2 && bytes.contains(&0) && bytes.iter().sum::<u64>() > 500, "{bytes:?}");
    let written = Model::read(&output).expect("the file is valid").to_proto();
    let graph = written.graph.expect("it has a graph");
    let codes = |body: &GraphProto| {
        let layer = body.node.iter().find(|node| node.name() == "shared").expect("the layer is there");
        layer.input[1].clone()
    };
    let read: Vec<String> = bodies(&graph).into_iter().map(codes).collect();
    assert_eq!(read[0], read[1]);
    assert!(graph.initializer.iter().any(|tensor| tensor.name() == read[0]), "it lies outside");
    assert!(!graph.initializer.iter().any(|tensor| tensor.name() == "both"), "the floats are gone");
}

#[test]
fn layers_in_bodies_are_chosen_by_their_paths() {
    let folder = folder();
    let (input, calib, samples) = prepared(folder.path(), &CASES[0]);
    let exclude = ["--exclude", "choose/then_branch/*"];
    let seen = inspect(&input, &exclude);
    let skipped = ["choose/then_branch/shared", "choose/then_branch/own"].map(str::to_owned);
    assert_eq!(texts(&seen["skipped"], "label"), skipped);
    let floats = seen["float_weights"].to_string();
    assert!(
        floats.contains("mine") && floats.contains("both") && floats.contains("excluded by the settings"),
        "{floats}"
    );
    let output = folder.path().join("out.onnx");
    let report = report(&input, &output, &exclude, Some(&calib));
    assert_eq!(texts(&report["skipped"], "label"), skipped);
    assert_eq!(
        sorted(texts(&report["layers"], "label")),
        ["choose/else_branch/constant", "choose/else_branch/shared", "head"]
    );
    let found = measure(&[Job::compare(&output, &input, &samples)]).remove(0);
    assert!(found.faults().is_empty() && found.sqnr_db > Some(30.0), "{found:?}");
}
