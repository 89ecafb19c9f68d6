//! What accuracy is told of, and what is not told because nobody measured it.

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use onnxquant::calib::{Tensor, write_captures};
use onnxquant_ir::onnx::ModelProto;
use onnxquant_ir::tensor;
use onnxquant_proto::read_model;
use serde_json::Value;

use crate::support::{
    Failures, Fixture, Job, Run, agree, chain_around, float_tensor, float_value, folder, integers, library, measure,
    model_of, node, noise, onnxquant, report, shadowing_loop, with_int, with_ints, write,
};

const STRICT: [&str; 4] = ["--scheme", "w8a8", "--target", "qdq-strict"];

/// Writes samples of `x` and returns their paths.
fn samples(folder: &Path, count: usize, shape: &[usize]) -> Vec<PathBuf> {
    std::fs::create_dir(folder).expect("the folder can be made");
    let path = |sample: usize| {
        let path = folder.join(format!("{sample:04}.npz"));
        let mut numbers = noise(sample, shape.iter().product(), 1.0);
        let array = ArrayD::from_shape_fn(IxDyn(shape), |_| numbers.next().expect("noise does not end"));
        write_captures(&path, &["x".to_owned()], &[Tensor::F32(array)]).expect("a sample can be written");
        path
    };
    (0..count).map(path).collect()
}

/// A detector: `both` holds 4 rows of boxes in pixels above 10 rows of scores, `scores` the scores alone. What stands
/// between the Concat and the output `both` is `turned` by an exchange of axes or nothing.
fn detector(turned: bool) -> ModelProto {
    let conv = |inputs: [&str; 3], output: &str, pads: i64, stride: i64| {
        let conv = with_ints(node("Conv", &inputs, &[output]), "pads", &[pads; 4]);
        with_ints(conv, "strides", &[stride; 2])
    };
    let joined = if turned { "joined" } else { "both" };
    let mut nodes = vec![
        conv(["x", "w1", "b1"], "a1", 1, 2),
        node("Relu", &["a1"], &["r1"]),
        conv(["r1", "w2", "b2"], "a2", 1, 2),
        node("Relu", &["a2"], &["r2"]),
        conv(["r2", "wb", "bb"], "boxes", 0, 1),
        node("Relu", &["boxes"], &["positive"]),
        node("Reshape", &["positive", "shape"], &["flat"]),
        node("Mul", &["flat", "stride"], &["pixels"]),
        conv(["r2", "wc", "bc"], "logits", 0, 1),
        node("Reshape", &["logits", "shape"], &["flat_logits"]),
        node("Sigmoid", &["flat_logits"], &["probabilities"]),
        with_int(node("Concat", &["pixels", "probabilities"], &[joined]), "axis", 1),
    ];
    let axis = if turned { 2 } else { 1 };
    if turned {
        nodes.push(with_ints(node("Transpose", &["joined"], &["both"]), "perm", &[0, 2, 1]));
    }
    nodes.push(node("Slice", &["both", "four", "fourteen", "axis"], &["scores"]));
    let weight = |name: &str, dims: &[i64], size: f32| {
        float_tensor(name, dims, noise(name.len() + dims[0] as usize, dims.iter().product::<i64>() as usize, size))
    };
    let constant = |name: &str, count: i64, number: f32| float_tensor(name, &[count], (0..count).map(|_| number));
    let constants = vec![
        weight("w1", &[16, 3, 3, 3], 0.3),
        constant("b1", 16, 0.1),
        weight("w2", &[32, 16, 3, 3], 0.15),
        constant("b2", 32, 0.1),
        weight("wb", &[4, 32, 1, 1], 0.3),
        constant("bb", 4, 2.0),
        weight("wc", &[10, 32, 1, 1], 1.0),
        constant("bc", 10, -3.0),
        float_tensor("stride", &[], std::iter::once(120.0)),
        integers("shape", &[0, 0, -1]),
        integers("four", &[4]),
        integers("fourteen", &[14]),
        integers("axis", &[axis]),
    ];
    let outputs = vec![float_value("both", &[1, -1, -1]), float_value("scores", &[1, -1, -1])];
    model_of(nodes, constants, vec![float_value("x", &[1, 3, 32, 32])], outputs)
}

/// `y` has columns of very different sizes, which one layer makes.
fn uneven() -> ModelProto {
    let size = |at: usize| if at % 12 < 2 { 300.0 } else { 0.05 };
    let second = noise(2, 32 * 12, 1.0).enumerate().map(|(at, number)| number * size(at));
    let nodes =
        vec![node("MatMul", &["x", "w1"], &["h"]), node("Relu", &["h"], &["r"]), node("MatMul", &["r", "w2"], &["y"])];
    let constants = vec![float_tensor("w1", &[32, 32], noise(1, 1024, 0.3)), float_tensor("w2", &[32, 12], second)];
    model_of(nodes, constants, vec![float_value("x", &[4, 32])], vec![float_value("y", &[4, 12])])
}

#[test]
fn scores_beside_boxes_in_pixels_keep_a_scale_of_their_own_and_are_judged_apart() {
    let folder = folder();
    let calib = folder.path().join("calib");
    let samples = samples(&calib, 20, &[1, 3, 32, 32]);
    let (mut failures, mut jobs, mut told) = (Failures::default(), Vec::new(), Vec::new());
    for turned in [false, true] {
        let input = folder.path().join(format!("detector_{turned}.onnx"));
        write(&detector(turned), &input);
        for (index, args) in [&STRICT[..], &["--scheme", "w8"], &["--scheme", "auto"]].into_iter().enumerate() {
            let output = folder.path().join(format!("detector_{turned}_{index}.onnx"));
            let found = report(&input, &output, args, Some(&calib));
            let parts = &found["held_out"]["outputs"][0]["parts"];
            let expected = if turned { ["[:, :, 0:4]", "[:, :, 4:14]"] } else { ["[:, 0:4]", "[:, 4:14]"] };
            let names = [&parts[0]["part"], &parts[1]["part"]];
            failures.check(names == expected, || format!("{turned} {args:?}: {parts}"));
            told.push((format!("{turned} {args:?}"), found["held_out"]["sqnr_db"].as_f64().unwrap_or(f64::INFINITY)));
            jobs.push(Job::compare(&output, &input, &samples));
        }
    }
    for ((name, told), found) in told.iter().zip(measure(&jobs)) {
        let real = found.default_sqnr_db.unwrap_or(f64::INFINITY);
        let right = found.faults().is_empty() && real > 15.0 && *told < real + 3.0;
        failures.check(right, || format!("{name}: {told} dB told, {found:?}"));
    }
    failures.finish();
}

#[test]
fn logits_that_make_scores_keep_their_largest_values() {
    let folder = folder();
    let calib = folder.path().join("calib");
    samples(&calib, 20, &[1, 3, 32, 32]);
    let input = folder.path().join("detector.onnx");
    write(&detector(false), &input);
    let found = report(&input, &folder.path().join("out.onnx"), &STRICT, Some(&calib));
    let tensors = found["integers"]["tensors"].as_array().expect("it lists tensors");
    let of = |name: &str| tensors.iter().find(|tensor| tensor["name"] == name).unwrap_or(&Value::Null);
    for name in ["logits", "positive", "probabilities"] {
        let range = of(name)["range"].as_str().unwrap_or_default();
        assert!(range.starts_with("min-max"), "{name}: {}", of(name));
    }
}

#[test]
fn the_least_exact_part_is_what_is_told_and_named() {
    let folder = folder();
    let calib = folder.path().join("calib");
    samples(&calib, 20, &[4, 32]);
    let input = folder.path().join("uneven.onnx");
    write(&uneven(), &input);
    let output = folder.path().join("out.onnx");
    let found = report(&input, &output, &["--scheme", "w4"], Some(&calib))["held_out"].clone();
    let parts = found["outputs"][0]["parts"].as_array().expect("it has parts").clone();
    let least = parts.iter().filter_map(|part| part["sqnr_db"].as_f64()).fold(f64::INFINITY, f64::min);
    assert_eq!(found["sqnr_db"].as_f64(), Some(least), "{found}");
    assert!(parts.iter().any(|part| part["part"] == "[:, 2:12]"), "{parts:?}");
    let mut command = onnxquant(&[&input, &output]);
    let run = Run::of(command.args(["--scheme", "w4"]).arg("--calib").arg(&calib)).succeeded();
    assert!(run.says("; least exact: `y` [:, "), "{}", run.stdout);
}

/// A run that misses a goal, because nobody measured it.
fn not_measured(command: &mut std::process::Command, why: &str) -> Option<String> {
    let run = Run::of(command);
    let told = run.says("output  not measured: ") && run.stderr.contains(why);
    (run.code != Some(1) || !told || run.says("SQNR inf")).then(|| format!("{run:?}"))
}

#[test]
fn goals_that_were_not_measured_are_missed() {
    let folder = folder();
    let calib = folder.path().join("calib");
    samples(&calib, 6, &[4, 32]);
    let mut failures = Failures::default();
    let output = folder.path().join("out.onnx");
    let goals: [&[&str]; 2] = [&["--min-sqnr", "5"], &["--max-loss", "0.5"]];
    for goal in goals {
        let mut command = onnxquant(&[&Fixture::MLP.model(), &output]);
        command.args(["--weights-only", "--scheme", "w4"]).args(goal);
        let fault = not_measured(&mut command, "was not measured: no samples were given");
        failures.check(fault.is_none(), || format!("without data {goal:?}: {fault:?}"));
        let input = folder.path().join("loop.onnx");
        let (nodes, constants) = shadowing_loop();
        write(&chain_around(nodes, constants), &input);
        let mut command = onnxquant(&[&input, &output]);
        command.args(["--scheme", "w8", "--ort-lib", "off"]).args(goal).arg("--calib").arg(&calib);
        let fault = not_measured(&mut command, "`y` was not measured: it depends on `repeat` (Loop)");
        failures.check(fault.is_none(), || format!("behind a Loop {goal:?}: {fault:?}"));
    }
    failures.finish();
}

#[test]
fn outputs_that_are_not_measured_say_why_in_the_report() {
    let folder = folder();
    let calib = folder.path().join("calib");
    samples(&calib, 6, &[4, 32]);
    let input = folder.path().join("loop.onnx");
    let (nodes, constants) = shadowing_loop();
    write(&chain_around(nodes, constants), &input);
    let found = report(&input, &folder.path().join("out.onnx"), &["--scheme", "w8", "--ort-lib", "off"], Some(&calib));
    let found = found["held_out"].clone();
    let [before, output] = [&found["outputs"][0], &found["outputs"][1]];
    assert!(before["name"] == "h" && before["sqnr_db"].is_f64() && before.get("not_measured").is_none(), "{found}");
    assert!(output["name"] == "y" && output.get("sqnr_db").is_none(), "{found}");
    assert!(output["not_measured"].as_str().is_some_and(|why| why.contains("`repeat` (Loop)")), "{found}");
}

/// Of weights so large that integer sums in the runtime would overflow, though the products do not.
#[test]
fn weights_near_the_end_of_the_range_are_told_as_the_runtime_computes_them() {
    let folder = folder();
    let mut model = read_model(&Fixture::MLP.model()).expect("the fixture can be read");
    let graph = model.graph.as_mut().expect("it has a graph");
    let weight = graph.initializer.iter_mut().find(|tensor| tensor.name() == "fc3.weight").expect("it has the weight");
    let mut numbers = tensor::to_f32(weight).expect("it holds floats").into_owned();
    // [64, 10]: input 3 of output 5.
    numbers[3 * 10 + 5] = 1e37;
    *weight = float_tensor("fc3.weight", &[64, 10], numbers.into_iter());
    let input = folder.path().join("large.onnx");
    write(&model, &input);
    let settings: [&[&str]; 4] =
        [&["--average-bits", "3"], &["--scheme", "w8"], &["--scheme", "w4", "--format", "dq"], &["--scheme", "w2"]];
    let (library, mut failures, mut jobs) = (library(), Failures::default(), Vec::new());
    for (at, setting) in settings.into_iter().enumerate() {
        let output = folder.path().join(format!("{at}.onnx"));
        let args = [setting, &["--ort-lib", &library]].concat();
        let found = report(&input, &output, &args, Some(&Fixture::MLP.calib()));
        let [simulated, measured] = ["held_out", "measured"].map(|by| found[by]["sqnr_db"].as_f64());
        let is_told = simulated.zip(measured).is_some_and(|(told, found)| agree(found, told, 1.0));
        failures.check(is_told, || format!("{setting:?}: {simulated:?} dB simulated, {measured:?} measured"));
        jobs.push(Job::compare(&output, &input, &Fixture::MLP.held_out()));
    }
    for (setting, found) in settings.iter().zip(measure(&jobs)) {
        failures.check(found.faults().is_empty(), || format!("{setting:?}: {}", found.faults()));
    }
    failures.finish();
}
