//! What stays in float is told, with its bytes and the reason, and little or nothing quantized is no success.

use std::path::{Path, PathBuf};

use onnxquant::AUTO_SQNR_DB;
use onnxquant_ir::onnx::{ModelProto, NodeProto, TensorProto};
use onnxquant_ir::tensor;
use serde_json::Value;

use crate::support::{
    Failures, Fixture, Net, Run, float_tensor, float_value, folder, inspect, model_of, node, noise, noise_samples,
    onnxquant, report, write,
};

/// Factors for every element and a table of places behind an Add, and, where that is wanted, a small MatMul behind both.
fn scaled(with_layer: bool) -> ModelProto {
    let random = |name: &str, dims: &[i64], seed: usize| {
        float_tensor(name, dims, noise(seed, dims.iter().product::<i64>() as usize, 0.2))
    };
    let mut nodes = vec![node("Mul", &["x", "factors"], &["h"]), node("Add", &["h", "places"], &["p"])];
    let mut constants = vec![random("factors", &[5, 4, 32], 1), random("places", &[1, 4, 32], 4)];
    if with_layer {
        constants.push(random("m", &[32, 8], 5));
        nodes.push(node("MatMul", &["p", "m"], &["y"]));
    } else {
        nodes.push(node("Relu", &["p"], &["y"]));
    }
    let outputs = if with_layer { 8 } else { 32 };
    model_of(nodes, constants, vec![float_value("x", &[5, 4, 32])], vec![float_value("y", &[5, 4, outputs])])
}

/// Runs the command with a report; returns that too, where one was written.
fn run(input: &Path, output: &Path, args: &[&str]) -> (Run, Value) {
    let report = output.with_extension("json");
    let run = Run::of(onnxquant(&[input, output]).args(args).arg("--report").arg(&report));
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    (run, serde_json::from_str(&text).unwrap_or_default())
}

fn names(weights: &Value) -> Vec<String> {
    let weights = weights.as_array().expect("it lists weights");
    let line = |weight: &Value| format!("{} {} {}", weight["name"], weight["operators"], weight["bytes"]);
    weights.iter().map(|weight| line(weight).replace('"', "")).collect()
}

#[test]
fn every_float_weight_is_listed_whatever_operator_reads_it() {
    let folder = folder();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    write(&scaled(true), &input);
    let (run, report) = run(&input, &output, &["--weights-only"]);
    let expected = ["factors [Mul] 2560", "places [Add] 512"];
    let found = names(&report["float_weights"]);
    assert_eq!(found[..2], expected, "{}", run.stderr);
    assert!(found[2..].iter().all(|line| line.contains("MatMulNBits")), "only scales: {found:?}");
    for text in ["Mul 2.6 kB (no quantized form)", "Add 512 B (no quantized form)", "biases and other vectors "] {
        assert!(run.says(text), "{text}: {}", run.stdout);
    }
    assert_eq!(names(&inspect(&input, &[])["float_weights"]), expected);
}

#[test]
fn little_quantized_is_no_success_unless_that_is_allowed() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    write(&scaled(false), &at("none.onnx"));
    write(&scaled(true), &at("some.onnx"));
    noise_samples(&at("calib"), &[5, 4, 32], 6);
    let calib = at("calib").to_str().expect("the path is text").to_owned();
    let fixture = Fixture::MLP.model();
    let mlp_calib = Fixture::MLP.calib().to_str().expect("the path is text").to_owned();
    let cases: [(PathBuf, &[&str], &str); 5] = [
        (at("none.onnx"), &["--weights-only"], "nothing is quantized: `factors`, read by Mul: no quantized form"),
        (at("none.onnx"), &["--calib", &calib], "nothing is quantized: `factors`"),
        (
            fixture.clone(),
            &["--weights-only", "--exclude", "*fc1*", "--exclude", "zz*"],
            "`--exclude zz*` matches no layer",
        ),
        (fixture.clone(), &["--calib", &mlp_calib, "--include", "*fc9"], "`--include *fc9` matches no layer"),
        (
            fixture,
            &["--weights-only", "--exclude", "*"],
            "nothing is quantized: `node_fc1` (Gemm): excluded by the settings",
        ),
    ];
    let mut failures = Failures::default();
    for (index, (input, args, text)) in cases.iter().enumerate() {
        let output = at(&format!("{index}.out.onnx"));
        let (refused, _) = run(input, &output, args);
        let is_told = refused.code == Some(1) && refused.stderr.contains(text) && output.exists();
        failures.check(is_told, || format!("{args:?}: {refused:?}"));
        let (allowed, _) = run(input, &output, &[args, &["--allow-float"][..]].concat());
        let is_fine = allowed.code == Some(0) && allowed.says("doubt   ");
        failures.check(is_fine, || format!("{args:?} --allow-float: {allowed:?}"));
    }
    failures.finish();
}

#[test]
fn scheme_that_no_layer_can_obey_is_no_success() {
    let folder = folder();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    let weight = float_tensor("w", &[4, 4, 3, 3], noise(1, 144, 0.3));
    let up = NodeProto { name: Some("up".to_owned()), ..node("ConvTranspose", &["x", "w"], &["y"]) };
    let value = |name: &str, side: i64| float_value(name, &[1, 4, side, side]);
    write(&model_of(vec![up], vec![weight], vec![value("x", 6)], vec![value("y", 8)]), &input);
    noise_samples(&folder.path().join("calib"), &[1, 4, 6, 6], 6);
    let calib = folder.path().join("calib");
    let calib = calib.to_str().expect("the path is text");
    for scheme in ["w8a8", "w8a8-dynamic"] {
        let args = ["--calib", calib, "--scheme", scheme];
        let (found, _) = run(&input, &output, &args);
        assert!(found.code == Some(1) && found.stderr.contains("no layer runs on codes: `up`: "), "{found:?}");
        let (found, _) = run(&input, &output, &[&args[..], &["--allow-float"]].concat());
        assert_eq!(found.code, Some(0), "{found:?}");
    }
    let (found, _) = run(&input, &output, &["--calib", calib, "--scheme", "auto"]);
    assert_eq!(found.code, Some(0), "nobody asked for codes: {found:?}");
}

#[test]
fn floor_of_auto_is_told_and_missing_it_is_no_success() {
    let folder = folder();
    let (fixture, output) = (Fixture::TRANSFORMER, folder.path().join("out.onnx"));
    let calib = fixture.calib();
    let calib = calib.to_str().expect("the path is text");
    let floor = format!("SQNR {AUTO_SQNR_DB:.0} dB, that of `--scheme auto`");
    let coarse = ["--calib", calib, "--scheme", "auto", "--bits", "2", "--method", "msq", "--ort-lib", "off"];
    let (found, report) = run(&fixture.model(), &output, &coarse);
    assert!(report["held_out"]["sqnr_db"].as_f64() < Some(AUTO_SQNR_DB), "{report}");
    let missed = format!("{AUTO_SQNR_DB:.2} dB wanted by `--scheme auto`");
    assert!(found.code == Some(1) && found.stderr.contains(&missed), "{}", found.stderr);
    assert!(found.says(&floor), "{}", found.stdout);
    let (found, _) = run(&fixture.model(), &output, &[&coarse[..], &["--min-sqnr", "1"]].concat());
    assert!(found.code == Some(0) && !found.says(&floor), "{found:?}");
    let help = Run::of(onnxquant(&["--help"]).env("COLUMNS", "200")).succeeded().stdout;
    let help: Vec<&str> = help.split_whitespace().collect();
    assert!(help.join(" ").contains(&format!("must keep {AUTO_SQNR_DB:.0} dB")));
}

/// Two products, of which the second has in every column a weight that is a thousand times the others, on an input that is as
/// much smaller.
fn wild() -> ModelProto {
    let mut net = Net::default();
    net.random("a", &[64, 96], 0.3).random("b", &[96, 32], 0.3);
    net.node("MatMul", &["x", "a"], "h", &[]).node("Relu", &["h"], "r", &[]).node("MatMul", &["r", "b"], "y", &[]);
    let mut model = net.model(17, &[1, 64], 2);
    let constants = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for constant in constants {
        let mut numbers = tensor::to_f32(constant).expect("it holds floats").into_owned();
        match constant.name() {
            "a" => numbers.iter_mut().step_by(96).for_each(|weight| *weight *= 1e-3),
            _ => numbers[..32].iter_mut().for_each(|weight| *weight *= 1e3),
        }
        let dims: Vec<usize> = constant.dims.iter().map(|&dim| dim as usize).collect();
        *constant = TensorProto { name: constant.name.clone(), ..tensor::from_f32(&dims, &numbers) };
    }
    model
}

#[test]
fn weights_that_cost_the_accuracy_are_mended() {
    let folder = folder();
    let (model, calib) = (folder.path().join("wild.onnx"), folder.path().join("calib"));
    write(&wild(), &model);
    noise_samples(&calib, &[1, 64], 60);
    let run = |name: &str, options: &[&str]| report(&model, &folder.path().join(name), options, Some(&calib));
    let lossy = run("lossy.onnx", &["--scheme", "w8"]);
    assert!(lossy["held_out"]["sqnr_db"].as_f64().expect("it is measured") < 20.0, "{}", lossy["held_out"]);
    let mended = run("mended.onnx", &["--scheme", "w8", "--max-loss", "0.001"]);
    assert!(mended["held_out"]["loss"].as_f64().expect("it is measured") <= 0.001, "{}", mended["held_out"]);
    assert_eq!((&mended["layers"][0]["label"], &mended["skipped"][0]["label"]), (&"h".into(), &"y".into()));
    assert_eq!(mended["skipped"][0]["reason"], "costs-accuracy");
    // Of 4 bits the other layer loses more than that too: it gets 8.
    let of_four = run("of_four.onnx", &["--scheme", "w4", "--max-loss", "0.0002"]);
    assert!(of_four["held_out"]["loss"].as_f64().expect("it is measured") <= 0.0002, "{}", of_four["held_out"]);
    assert_eq!((&of_four["layers"][0]["bits"], of_four["skipped"].as_array().map(Vec::len)), (&8.into(), Some(1)));
}
