//! Networks in which numbers decide which rows go on to a layer.

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use onnxquant::calib::{Split, Tensor, write_captures};
use onnxquant_ir::onnx::{ModelProto, TensorProto};
use serde_json::Value;

use crate::support::{
    Failures, Run, float_tensor, float_value, folder, integers, model_of, node, noise, onnxquant, report, with_int,
    write,
};

/// Rows of `x` go through a layer; those with a high score go on to two more, `hidden` and `boxes`. The scores of samples
/// below 0.1 are all low.
fn selecting() -> ModelProto {
    let nodes = vec![
        node("MatMul", &["x", "w1"], &["h"]),
        node("Relu", &["h"], &["rows"]),
        node("MatMul", &["rows", "ws"], &["column"]),
        node("Squeeze", &["column", "one"], &["scores"]),
        node("Greater", &["scores", "threshold"], &["chosen"]),
        node("NonZero", &["chosen"], &["places"]),
        node("Squeeze", &["places", "zero"], &["indices"]),
        with_int(node("Gather", &["rows", "indices"], &["picked"]), "axis", 0),
        node("Gemm", &["picked", "wf", "bf"], &["f"]),
        node("Relu", &["f"], &["hidden"]),
        node("Gemm", &["hidden", "wo", "bo"], &["boxes"]),
    ];
    let named = |mut nodes: Vec<onnxquant_ir::onnx::NodeProto>| {
        nodes.iter_mut().for_each(|node| node.name = Some(format!("make_{}", node.output[0])));
        nodes
    };
    let constants: Vec<TensorProto> = vec![
        float_tensor("w1", &[32, 32], noise(1, 1024, 0.3)),
        float_tensor("ws", &[32, 1], noise(2, 32, 0.3)),
        float_tensor("threshold", &[], std::iter::once(0.2)),
        float_tensor("wf", &[32, 64], noise(3, 2048, 0.3)),
        float_tensor("bf", &[64], noise(4, 64, 0.1)),
        float_tensor("wo", &[64, 4], noise(5, 256, 0.3)),
        float_tensor("bo", &[4], noise(6, 4, 0.1)),
        integers("zero", &[0]),
        integers("one", &[1]),
    ];
    model_of(named(nodes), constants, vec![float_value("x", &[-1, 32])], vec![float_value("boxes", &[-1, 4])])
}

/// Writes samples of `x`; `has_rows` says which of them have rows with a high score.
fn samples(folder: &Path, count: usize, has_rows: impl Fn(usize) -> bool) -> Vec<PathBuf> {
    std::fs::create_dir(folder).expect("the folder can be made");
    let path = |sample: usize| {
        let path = folder.join(format!("{sample:04}.npz"));
        let mut numbers = noise(sample, 40 * 32, if has_rows(sample) { 1.5 } else { 0.01 });
        let array = ArrayD::from_shape_fn(IxDyn(&[40, 32]), |_| numbers.next().expect("noise does not end"));
        write_captures(&path, &["x".to_owned()], &[Tensor::F32(array)]).expect("a sample can be written");
        path
    };
    (0..count).map(path).collect()
}

const SAMPLES: usize = 24;
const SETTINGS: [&[&str]; 6] = [
    &["--scheme", "w8"],
    &["--scheme", "w4", "--method", "feedback"],
    &["--scheme", "w4", "--one-pass"],
    &["--scheme", "w8", "--method", "msq"],
    &["--scheme", "w8a8-dynamic"],
    &["--scheme", "w8a8", "--target", "qdq-strict"],
];

fn layer<'a>(report: &'a Value, label: &str) -> &'a Value {
    let layers = report["layers"].as_array().expect("it lists layers");
    layers.iter().find(|layer| layer["label"] == label).unwrap_or_else(|| panic!("`{label}` is quantized"))
}

/// The reports of all settings.
fn reports(has_rows: impl Fn(usize) -> bool) -> Vec<(String, Value)> {
    let folder = folder();
    let calib = folder.path().join("calib");
    samples(&calib, SAMPLES, has_rows);
    let input = folder.path().join("in.onnx");
    write(&selecting(), &input);
    // Most of its weights see no rows where nothing is selected.
    let of = |args: &[&str]| {
        let args = [args, &["--allow-float"]].concat();
        report(&input, &folder.path().join("out.onnx"), &args, Some(&calib))
    };
    SETTINGS.iter().map(|args| (format!("{args:?}"), of(args))).collect()
}

#[test]
fn rows_without_a_counterpart_are_counted_and_the_layers_solved() {
    let mut failures = Failures::default();
    let mut counted = 0;
    for (name, report) in reports(|sample| sample % 3 != 0) {
        for label in ["make_f", "make_boxes"] {
            let found = layer(&report, label);
            failures.check(found["calibration_rows"].is_number(), || format!("{name}: {found}"));
            counted += usize::from(found["notes"].to_string().contains("have no counterpart in the float network"));
        }
    }
    failures.check(counted > 0, || "no setting selects other rows than the float network".to_owned());
    failures.finish();
}

#[test]
fn layers_without_held_out_rows_are_judged_on_calibration_rows() {
    let calibration = Split::of(SAMPLES).calibration;
    let mut failures = Failures::default();
    for (name, report) in reports(|sample| calibration[..4].contains(&sample)) {
        let found = layer(&report, "make_f");
        let judged = found["validation_error"].is_number();
        let noted = found["notes"].to_string().contains("judged on the calibration rows");
        failures.check(judged == noted, || format!("{name}: {found}"));
        failures.check(noted || name.contains("msq"), || format!("{name}: {found}"));
        let why = report["held_out"]["not_measured"].as_str().unwrap_or_default();
        failures.check(why.contains("no elements"), || format!("{name}: {}", report["held_out"]));
    }
    failures.finish();
}

#[test]
fn layers_without_any_rows_are_rounded_without_data_and_said_so() {
    let mut failures = Failures::default();
    for (name, report) in reports(|_| false) {
        let found = layer(&report, "make_f");
        let checks = [
            found["method"] == "msq" && found.get("calibration_rows").is_none() && found.get("error").is_none(),
            found["notes"].to_string().contains("rounded without data: no row of the calibration samples comes here"),
            layer(&report, "make_h")["calibration_rows"].is_number(),
        ];
        failures.check(checks == [true; 3], || format!("{name}: {checks:?} {found}"));
    }
    failures.finish();
    let folder = folder();
    let calib = folder.path().join("calib");
    samples(&calib, 6, |_| false);
    let input = folder.path().join("in.onnx");
    write(&selecting(), &input);
    let mut command = onnxquant(&[&input, &folder.path().join("out.onnx")]);
    let run = Run::of(command.args(["--scheme", "w8", "--min-sqnr", "20"]).arg("--calib").arg(&calib));
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.says("no rows 2 layers, which are rounded without data: `make_f`, `make_boxes`"), "{run:?}");
    assert!(run.says("output  not measured: `boxes`: it has no elements in any of the "), "{run:?}");
}
