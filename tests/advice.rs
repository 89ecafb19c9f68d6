//! Advice at the end of a run does what it says.

use onnxquant_ir::tensor;
use serde_json::Value;

use crate::support::{Fixture, Net, folder, noise, noise_samples, report, write};

/// Inputs and outputs of every branch.
const WIDTH: usize = 32;
/// What one channel of every branch has more than the others.
const OUTLIERS: [f32; 7] = [100.0, 25.0, 1.0, 1.0, 1.0, 1.0, 1.0];

/// A sum of branches, each with a channel that leaves the others few codes, and that its weights hardly count.
fn branches() -> Net {
    let mut net = Net::default();
    for (at, &outlier) in OUTLIERS.iter().enumerate() {
        let name = |of: &str| format!("{of}{at}");
        let shift: Vec<f32> = (0..WIDTH).map(|channel| if channel == 0 { outlier } else { 0.3 }).collect();
        let counts = |number: usize| if number < WIDTH { 0.01 } else { 1.0 };
        let weights = noise(at + 1, WIDTH * WIDTH, 1.0).enumerate().map(|(number, weight)| weight * counts(number));
        let weights: Vec<f32> = weights.collect();
        net.constant(&name("shift"), tensor::from_f32(&[WIDTH], &shift));
        net.constant(&name("weight"), tensor::from_f32(&[WIDTH, WIDTH], &weights));
        net.node("Add", &["x", &name("shift")], &name("shifted"), &[]);
        net.node("Relu", &[&name("shifted")], &name("relu"), &[]);
        net.node("MatMul", &[&name("relu"), &name("weight")], &name("branch"), &[]);
        let sum = if at + 1 == OUTLIERS.len() { "y".to_owned() } else { name("sum") };
        match at {
            0 => net.node("Identity", &["branch0"], &sum, &[]),
            _ => net.node("Add", &[&format!("sum{}", at - 1), &name("branch")], &sum, &[]),
        };
    }
    net
}

/// The layers that read floats.
fn in_float(report: &Value) -> Vec<&str> {
    let layers = report["layers"].as_array().expect("it lists layers").iter();
    layers.filter(|layer| layer["activations"] == "float").filter_map(|layer| layer["label"].as_str()).collect()
}

fn advice(report: &Value) -> impl Iterator<Item = &str> {
    report["outcome"]["advice"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[test]
fn a_goal_that_is_advised_keeps_the_layers_in_float_that_lose_most() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    write(&branches().model(17, &[8, WIDTH as i64], 2), &path("model.onnx"));
    noise_samples(&path("calib"), &[8, WIDTH as i64], 24);
    let run = |output: &str, goal: &str| {
        let args = ["--scheme", "w8a8", "--ort-lib", "off", "--min-sqnr", goal];
        report(&path("model.onnx"), &path(output), &args, Some(&path("calib")))
    };
    let found = run("out.onnx", "30");
    assert_eq!(in_float(&found), ["branch0"]);
    let line = advice(&found).find_map(|line| line.split_once(" lose most on integers: `--min-sqnr "));
    let (named, goal) = line.unwrap_or_else(|| panic!("{:?}", found["outcome"]));
    let (goal, _) = goal.split_once('`').expect("it is quoted");
    assert_eq!(named, "`branch1`");
    let better = run("better.onnx", goal);
    assert_eq!(in_float(&better), ["branch0", "branch1"], "--min-sqnr {goal}");
    assert_eq!(better["outcome"]["missed"], Value::Null, "--min-sqnr {goal}");
    // Those that are left lose alike.
    assert!(!advice(&better).any(|line| line.contains("lose most on integers")), "{:?}", better["outcome"]);
}

#[test]
fn advice_to_keep_a_layer_in_float_makes_the_outputs_more_exact() {
    let folder = folder();
    let (model, calib) = (Fixture::CNN.model(), Fixture::CNN.calib());
    let args = ["--bits", "8", "--method", "msq", "--ort-lib", "off"];
    let coarse = [&args[..], &["--layer", "position = \"last\", bits = 2"]].concat();
    let found = report(&model, &folder.path().join("out.onnx"), &coarse, Some(&calib));
    let advice = found["outcome"]["advice"].as_array().expect("there is advice");
    let of_layer = advice.iter().filter_map(|line| line.as_str()?.split_once("`--exclude "));
    let label =
        of_layer.map(|(_, rest)| rest.split_once('`').expect("it is quoted").0).next().expect("a layer stands out");
    let without = [&args[..], &["--exclude", label]].concat();
    let better = report(&model, &folder.path().join("better.onnx"), &without, Some(&calib));
    let sqnr = |report: &Value| report["held_out"]["sqnr_db"].as_f64().expect("it is measured");
    assert!(sqnr(&better) > sqnr(&found), "{} after {}", sqnr(&better), sqnr(&found));
}
