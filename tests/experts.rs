//! Experts: weights that a router picks, token by token.

use std::path::{Path, PathBuf};

use onnxquant::calib::Split;
use onnxquant_ir::onnx::{ModelProto, NodeProto, OperatorSetIdProto};
use onnxquant_ir::{int_attribute, text_attribute};
use serde_json::Value;

use crate::support::{
    Failures, Job, Measured, float_tensor, float_value, folder, measure, model_of, node, noise, noise_samples, report,
    with_int, write,
};

const EXPERTS: i64 = 4;
const WIDTH: i64 = 64;
const HIDDEN: i64 = 96;
const TOKENS: i64 = 24;
const SAMPLES: usize = 12;

fn named(node: NodeProto) -> NodeProto {
    NodeProto { name: node.output.first().cloned(), ..node }
}

/// Tokens go through a layer, a router and `middle`, which makes `mixed` of `h`, of the scores `routes`, and through a head.
fn around(middle: Vec<NodeProto>, weights: [(&str, [i64; 3]); 2]) -> ModelProto {
    let nodes =
        [named(node("MatMul", &["x", "in_weight"], &["h"])), named(node("MatMul", &["h", "router"], &["routes"]))];
    let nodes = nodes.into_iter().chain(middle).chain([named(node("MatMul", &["mixed", "out_weight"], &["y"]))]);
    let of = |seed: usize, name: &str, dims: &[i64]| {
        float_tensor(name, dims, noise(seed, dims.iter().product::<i64>() as usize, 0.25))
    };
    let mut constants = vec![
        of(1, "in_weight", &[WIDTH, WIDTH]),
        of(2, "router", &[WIDTH, EXPERTS]),
        of(3, "out_weight", &[WIDTH, WIDTH]),
    ];
    constants.extend(weights.iter().enumerate().map(|(at, (name, dims))| of(4 + at, name, dims)));
    let mut model = model_of(
        nodes.collect(),
        constants,
        vec![float_value("x", &[TOKENS, WIDTH])],
        vec![float_value("y", &[TOKENS, WIDTH])],
    );
    let import = OperatorSetIdProto { domain: Some("com.microsoft".to_owned()), version: Some(1) };
    model.opset_import.push(import);
    model
}

/// ONNX Runtime's operator, whose router's weights add up to 1 or not.
fn mixture(normalized: bool) -> ModelProto {
    let mut moe = named(node("MoE", &["h", "routes", "w1", "", "w2"], &["mixed"]));
    moe.domain = Some("com.microsoft".to_owned());
    moe.attribute.extend([
        int_attribute("k", 2),
        int_attribute("normalize_routing_weights", i64::from(normalized)),
        text_attribute("activation_type", "silu"),
    ]);
    around(vec![moe], [("w1", [EXPERTS, HIDDEN, WIDTH]), ("w2", [EXPERTS, WIDTH, HIDDEN])])
}

/// As plain exporters write it: the matrices of the best expert are picked from a table and multiplied with.
fn picked() -> ModelProto {
    let unary = |op_type: &str, from: &str, to: &str| named(node(op_type, &[from], &[to]));
    let middle = vec![
        with_int(with_int(unary("ArgMax", "routes", "best"), "axis", -1), "keepdims", 0),
        named(node("Gather", &["w1", "best"], &["first"])),
        named(node("Gather", &["w2", "best"], &["second"])),
        named(node("Unsqueeze", &["h", "middle"], &["row"])),
        named(node("MatMul", &["row", "first"], &["inside"])),
        unary("Relu", "inside", "active"),
        named(node("MatMul", &["active", "second"], &["column"])),
        named(node("Squeeze", &["column", "middle"], &["mixed"])),
    ];
    let mut model = around(middle, [("w1", [EXPERTS, WIDTH, HIDDEN]), ("w2", [EXPERTS, HIDDEN, WIDTH])]);
    let middle = crate::support::integers("middle", &[1]);
    model.graph.iter_mut().for_each(|graph| graph.initializer.push(middle.clone()));
    model
}

/// What the run told, and what ONNX Runtime makes of the file.
fn quantized(folder: &Path, samples: &[PathBuf], model: &ModelProto, args: &[&str]) -> (Value, Measured) {
    let (input, output) = (folder.join("in.onnx"), folder.join("out.onnx"));
    write(model, &input);
    let found = report(&input, &output, args, Some(&folder.join("calib")));
    let held_out: Vec<_> = Split::of(SAMPLES).held_out.into_iter().map(|sample| samples[sample].clone()).collect();
    let job = Job { nodes: true, ..Job::compare(&output, &input, &held_out) };
    (found, measure(&[job]).remove(0))
}

/// A name, a model, options, the operator that is left, the field of the report that has the weights, and the least SQNR.
type Case<'a> = (&'a str, ModelProto, &'a [&'a str], &'a str, &'a str, f64);

#[test]
fn experts_are_codes_and_told_as_they_are_served() {
    let folder = folder();
    let samples = noise_samples(&folder.path().join("calib"), &[TOKENS, WIDTH], SAMPLES);
    let mut failures = Failures::default();
    let new = ["--ort-min", "1.24"];
    let cases: [Case<'_>; 6] = [
        ("MoE, 8 bits", mixture(true), &["--scheme", "w8", new[0], new[1]], "QMoE", "whole_weights", 30.0),
        ("MoE, 4 bits", mixture(true), &["--scheme", "w4", new[0], new[1]], "QMoE", "whole_weights", 12.0),
        ("MoE for older ones", mixture(true), &["--scheme", "w8"], "MoE", "whole_weights", 30.0),
        ("MoE in DequantizeLinear", mixture(true), &["--scheme", "w8", "--format", "dq"], "MoE", "whole_weights", 30.0),
        ("not normalized", mixture(false), &["--scheme", "w8", new[0], new[1]], "MoE", "whole_weights", 30.0),
        // The best of several is another one where two are nearly as good.
        ("picked", picked(), &["--scheme", "w8"], "Gather", "embeddings", 15.0),
    ];
    for (what, model, args, operator, field, least) in cases {
        let (found, measured) = quantized(folder.path(), &samples, &model, args);
        failures.check(measured.faults().is_empty(), || format!("{what}: {}", measured.faults()));
        failures.check(measured.count(operator) > 0, || format!("{what}: {:?}", measured.nodes));
        let tables = found[field].as_array().map_or(0, Vec::len);
        failures.check(tables == 2, || format!("{what}: {tables} weights of experts are codes"));
        let told = found["measured"]["sqnr_db"].as_f64().unwrap_or(f64::NAN);
        let real = measured.default_sqnr_db.or(measured.sqnr_db).unwrap_or(f64::INFINITY);
        failures.check(told - real <= 1.5 && told >= least, || format!("{what}: {told} told, {real} measured"));
    }
    failures.finish();
}
