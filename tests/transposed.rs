//! Transposed convolutions: every way to write them computes in ONNX Runtime what was told, in a quarter of the bytes.
//!
//! Each network is `x -> Conv -> Relu -> ConvTranspose -> Mul -> Relu -> ConvTranspose -> y`. The first of the two has
//! channels of very different size, which the Mul evens out: one scale for all of them would ruin the small ones.

use std::path::{Path, PathBuf};

use onnxquant::calib::Split;
use onnxquant_ir::onnx::{AttributeProto, ModelProto};
use onnxquant_ir::{int_attribute, ints_attribute, tensor, text_attribute};
use serde_json::Value;

use crate::support::{Failures, Job, Net, Told, check_told, folder, measure, noise_samples, report, write};

const OPSET: i64 = 17;
const INPUT: [i64; 4] = [1, 3, 9, 10];
const SAMPLES: usize = 40;
/// Channels between the layers.
const CHANNELS: [usize; 2] = [32, 24];
const UNEVEN: f32 = 300.0;
/// Tract and ONNX Runtime round near ties differently.
const MARGIN_DB: f64 = 1.5;

/// Attributes of the first transposed convolution, whose kernel is 3 x 3.
struct Form {
    name: &'static str,
    groups: usize,
    attributes: Vec<AttributeProto>,
}

fn form(name: &'static str, groups: usize, mut attributes: Vec<AttributeProto>) -> Form {
    attributes.push(int_attribute("group", groups as i64));
    Form { name, groups, attributes }
}

fn strides() -> AttributeProto {
    ints_attribute("strides", &[2, 3])
}

fn forms() -> Vec<Form> {
    let padded = || vec![strides(), ints_attribute("pads", &[1, 0, 1, 2])];
    let output_padding = || [padded(), vec![ints_attribute("output_padding", &[1, 0])]].concat();
    let same = |which: &str| vec![ints_attribute("strides", &[2, 2]), text_attribute("auto_pad", which)];
    vec![
        form("plain", 1, vec![]),
        form("output padding", 1, output_padding()),
        form("groups", 4, output_padding()),
        form("groups and dilations", 8, vec![strides(), ints_attribute("dilations", &[2, 1])]),
        form("same, odd part at the end", 1, same("SAME_UPPER")),
        form("same, odd part at the beginning", 2, same("SAME_LOWER")),
    ]
}

fn network(form: &Form) -> ModelProto {
    let [first, second] = CHANNELS;
    let mut net = Net::default();
    net.random("w0", &[first, 3, 3, 3], 0.4).random("b0", &[first], 0.3);
    net.node("Conv", &["x", "w0", "b0"], "c", &[ints_attribute("pads", &[1; 4])]).node("Relu", &["c"], "h", &[]);
    let size = |channel: usize| if channel.is_multiple_of(5) { UNEVEN } else { 1.0 };
    let per_group = second / form.groups;
    let weight = (0..first * per_group * 9).map(|at| {
        let (channel, output) = (at / 9 / per_group, at / 9 % per_group);
        ((at * 73 % 101) as f32 - 50.0) / 400.0 * size(channel * form.groups / first * per_group + output)
    });
    net.constant("w1", tensor::from_f32(&[first, per_group, 3, 3], &weight.collect::<Vec<f32>>()));
    net.random("b1", &[second], 0.2).node("ConvTranspose", &["h", "w1", "b1"], "uneven", &form.attributes);
    let even: Vec<f32> = (0..second).map(|channel| 1.0 / size(channel)).collect();
    net.constant("even", tensor::from_f32(&[1, second, 1, 1], &even)).node("Mul", &["uneven", "even"], "e", &[]);
    net.node("Relu", &["e"], "g", &[]).random("w2", &[second, 5, 2, 2], 0.3);
    net.node("ConvTranspose", &["g", "w2"], "y", &[ints_attribute("strides", &[2, 2])]);
    net.model(OPSET, &INPUT, 4)
}

/// What is asked for, and the least it keeps in dB. Activations so uneven need 16 bits on codes.
const SETTINGS: [(&[&str], f64); 8] = [
    (&["--scheme", "w8"], 38.0),
    (&["--scheme", "w8", "--method", "msq", "--asymmetric"], 34.0),
    (&["--scheme", "fp8"], 25.0),
    (&["--scheme", "w4", "--method", "feedback"], 14.0),
    (&["--scheme", "w4", "--method", "cell-walk"], 10.0),
    (&["--scheme", "w4", "--method", "maly-saab"], 5.0),
    (&["--scheme", "auto"], 25.0),
    (&["--scheme", "w8a8", "--target", "qdq-strict", "--activation-bits", "16"], 36.0),
];

/// What is wrong with what is told of the layers, or nothing.
fn wrong_layers(told: &Value, form: &Form, setting: &[&str]) -> Option<String> {
    let of_kind = |layer: &&Value| layer["op_type"] == "ConvTranspose";
    let layers: Vec<&Value> = told["layers"].as_array()?.iter().filter(of_kind).collect();
    let is_small = |layer: &&Value| {
        let (bytes, parameters) = (layer["bytes"].as_u64(), layer["parameters"].as_u64());
        bytes.zip(parameters).is_some_and(|(bytes, parameters)| bytes * 2 < parameters * 4)
    };
    let runs = |layer: &&Value| layer["runs_as"] == "float";
    // For accelerators outputs in groups have no axis for scales.
    let expected = if form.groups > 1 && setting.contains(&"qdq-strict") { 1 } else { 2 };
    let fine = layers.len() == expected && layers.iter().all(|layer| is_small(layer) && runs(layer));
    (!fine).then(|| format!("{setting:?}: layers {layers:?}, skipped {:?}", told["skipped"]))
}

#[test]
fn transposed_convolutions_compute_what_was_told() {
    let folder = folder();
    let calib = folder.path().join("calib");
    let samples = noise_samples(&calib, &INPUT, SAMPLES);
    let held_out: Vec<PathBuf> = Split::of(SAMPLES).held_out.into_iter().map(|at| samples[at].clone()).collect();
    let (mut jobs, mut told, mut failures) = (Vec::new(), Vec::new(), Failures::default());
    for (at, form) in forms().iter().enumerate() {
        let input = folder.path().join(format!("{at}.onnx"));
        write(&network(form), &input);
        for (setting, least) in SETTINGS {
            let output = folder.path().join(format!("{at}_{}.onnx", told.len()));
            let found = report(&input, &output, setting, Some(&calib));
            let wrong = wrong_layers(&found, form, setting);
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

/// The engine cuts a result of given size otherwise; the layer is quantized by what it reads.
#[test]
fn a_result_of_given_size_is_quantized_by_what_the_layer_reads() {
    let folder = folder();
    let (calib, input, output) = paths(folder.path());
    let samples = noise_samples(&calib, &INPUT, SAMPLES);
    let given = vec![strides(), ints_attribute("output_shape", &[18, 30])];
    write(&network(&form("given size", 2, given)), &input);
    let told = report(&input, &output, &["--scheme", "w8"], Some(&calib));
    let layers = told["layers"].as_array().expect("a report has layers");
    let reached = layers.iter().find(|layer| layer["label"] == "uneven").expect("the layer is quantized");
    assert!(reached["calibration_rows"].as_u64() > Some(0), "{reached}");
    let found = measure(&[Job::compare(&output, &input, &samples)]);
    assert!(found[0].faults().is_empty() && found[0].sqnr_db > Some(34.0), "{:?}", found[0]);
}

fn paths(folder: &Path) -> (PathBuf, PathBuf, PathBuf) {
    (folder.join("calib"), folder.join("in.onnx"), folder.join("out.onnx"))
}
