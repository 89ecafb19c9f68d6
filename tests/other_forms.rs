//! Layers in forms that are brought into plain ones first: each is quantized, and ONNX Runtime computes what was told.

use std::path::PathBuf;

use onnxquant::calib::Split;
use onnxquant_ir::onnx::{AttributeProto, ModelProto, NodeProto};
use onnxquant_ir::{float_attribute, int_attribute, ints_attribute, text_attribute};
use serde_json::Value;

use crate::support::{Failures, Job, Net, Told, check_told, folder, noise_samples, report, write};

const OPSET: i64 = 17;
const SAMPLES: usize = 40;
/// Tract and ONNX Runtime round near ties differently.
const MARGIN_DB: f64 = 1.5;
/// What is asked for, and the least it keeps in dB. Weights that are decoded as a whole have 8 bits in both.
const SETTINGS: [(&[&str], f64); 2] = [(&["--scheme", "w8"], 32.0), (&["--scheme", "w4"], 10.0)];

/// A network, and what becomes of it.
struct Form {
    name: &'static str,
    input: &'static [i64],
    model: ModelProto,
    layers: usize,
    whole: usize,
}

fn form(name: &'static str, input: &'static [i64], (net, rank): (Net, usize), layers: usize, whole: usize) -> Form {
    Form { name, input, model: net.model(OPSET, input, rank), layers, whole }
}

fn forms() -> Vec<Form> {
    const ROWS: &[i64] = &[1, 12, 32];
    vec![
        form("weight normalization", &[1, 8, 9, 10], weight_normalization(), 1, 0),
        form("packed matrices", ROWS, packed(), 3, 0),
        form("products of several axes", ROWS, einsum(), 2, 0),
        form("matrix on the left", ROWS, on_the_left(), 1, 0),
        form("factors and transA", &[32, 16], gemm(), 1, 0),
        form("recurrent layers", &[12, 1, 32], recurrent(), 0, 4),
        form("products of several matrices", &[4, 12, 32], several_matrices(), 0, 2),
    ]
}

fn weight_normalization() -> (Net, usize) {
    let mut net = Net::default();
    net.random("v", &[16, 8, 3, 3], 0.3).random("g", &[16, 1, 1, 1], 2.0).random("b", &[16], 0.3);
    net.node("ReduceL2", &["v"], "length", &[ints_attribute("axes", &[1, 2, 3])]);
    net.node("Div", &["g", "length"], "factor", &[]).node("Mul", &["v", "factor"], "w", &[]);
    net.node("Conv", &["x", "w", "b"], "y", &[ints_attribute("pads", &[1; 4])]);
    (net, 4)
}

fn packed() -> (Net, usize) {
    let mut net = Net::default();
    net.random("w", &[32, 96], 0.3);
    net.push(NodeProto {
        name: Some("parts".to_owned()),
        op_type: Some("Split".to_owned()),
        input: vec!["w".to_owned()],
        output: ["q", "k", "v"].map(str::to_owned).to_vec(),
        attribute: vec![int_attribute("axis", 1)],
        ..NodeProto::default()
    });
    for part in ["q", "k", "v"] {
        net.node("MatMul", &["x", part], &format!("x{part}"), &[]);
    }
    net.node("Mul", &["xq", "xk"], "qk", &[]).node("Add", &["qk", "xv"], "y", &[]);
    (net, 3)
}

fn einsum() -> (Net, usize) {
    let equation = |text: &str| vec![text_attribute("equation", text)];
    let mut net = Net::default();
    net.random("heads", &[32, 2, 24], 0.3).random("out", &[2, 24, 32], 0.3);
    net.node("Einsum", &["x", "heads"], "h", &equation("bsd,dhk->bshk")).node("Relu", &["h"], "r", &[]);
    net.node("Einsum", &["r", "out"], "y", &equation("bshk,hkd->bsd"));
    (net, 3)
}

fn on_the_left() -> (Net, usize) {
    let mut net = Net::default();
    net.random("w", &[20, 12], 0.3).node("MatMul", &["w", "x"], "y", &[]);
    (net, 3)
}

fn gemm() -> (Net, usize) {
    let mut net = Net::default();
    let factors = [float_attribute("alpha", 0.3), float_attribute("beta", 1.5)];
    let attributes: Vec<AttributeProto> = [&factors[..], &[int_attribute("transA", 1)]].concat();
    net.random("w", &[32, 24], 0.3).random("b", &[24], 0.3).node("Gemm", &["x", "w", "b"], "y", &attributes);
    (net, 2)
}

fn recurrent() -> (Net, usize) {
    let both = [int_attribute("hidden_size", 32), text_attribute("direction", "bidirectional")];
    let mut net = Net::default();
    net.random("w", &[2, 128, 32], 0.3).random("r", &[2, 128, 32], 0.3).random("b", &[2, 256], 0.2);
    net.random("w2", &[2, 96, 64], 0.3).random("r2", &[2, 96, 32], 0.3).integers("shape", &[0, 0, -1]);
    net.node("LSTM", &["x", "w", "r", "b"], "h", &both);
    net.node("Transpose", &["h"], "t", &[ints_attribute("perm", &[0, 2, 1, 3])]);
    net.node("Reshape", &["t", "shape"], "rows", &[]).node("GRU", &["rows", "w2", "r2"], "y", &both);
    (net, 4)
}

/// A matrix for each of four heads, on the right and then on the left.
fn several_matrices() -> (Net, usize) {
    let mut net = Net::default();
    net.random("w", &[4, 32, 48], 0.3).random("v", &[4, 32, 32], 0.3);
    net.node("MatMul", &["x", "w"], "h", &[]).node("Relu", &["h"], "r", &[]);
    net.node("Transpose", &["x"], "t", &[ints_attribute("perm", &[0, 2, 1])]);
    net.node("MatMul", &["v", "t"], "u", &[]).node("Transpose", &["u"], "s", &[ints_attribute("perm", &[0, 2, 1])]);
    net.node("Concat", &["r", "s"], "y", &[int_attribute("axis", 2)]);
    (net, 3)
}

/// What is wrong with what is told of the layers, or nothing.
fn wrong_layers(told: &Value, form: &Form) -> Option<String> {
    let count = |list: &str| told[list].as_array().map_or(0, Vec::len);
    let fine = count("layers") == form.layers && count("whole_weights") == form.whole && count("skipped") == 0;
    (!fine).then(|| format!("layers {}, {}, skipped {}", told["layers"], told["whole_weights"], told["skipped"]))
}

#[test]
fn layers_in_other_forms_compute_what_was_told() {
    let folder = folder();
    let (mut jobs, mut told, mut failures) = (Vec::new(), Vec::new(), Failures::default());
    for (at, form) in forms().iter().enumerate() {
        let calib = folder.path().join(format!("calib_{at}"));
        let samples = noise_samples(&calib, form.input, SAMPLES);
        let held_out: Vec<PathBuf> = Split::of(SAMPLES).held_out.into_iter().map(|at| samples[at].clone()).collect();
        let input = folder.path().join(format!("{at}.onnx"));
        write(&form.model, &input);
        for (setting, least) in SETTINGS {
            let output = folder.path().join(format!("{at}_{}.onnx", told.len()));
            let found = report(&input, &output, setting, Some(&calib));
            let wrong = wrong_layers(&found, form);
            failures.check(wrong.is_none(), || format!("{}: {}", form.name, wrong.unwrap_or_default()));
            told.push(Told {
                name: format!("{} {setting:?}", form.name),
                sqnr_db: found["held_out"]["sqnr_db"].as_f64(),
                least,
            });
            jobs.push(Job::compare(&output, &input, &held_out));
        }
    }
    check_told(&told, &jobs, MARGIN_DB, &mut failures);
    failures.finish();
}
