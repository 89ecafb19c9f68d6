//! Every form of every operator that may lie between layers on codes: the file loads, and does what was told.
//!
//! Each network is `x -> Conv -> Relu = h -> form = m -> layer -> y`, small and with weights that look random. It is
//! quantized with fixed scales everywhere, loaded in ONNX Runtime at every level of optimization, and run with and
//! without it.

mod operators;

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use onnxquant::calib::{Split, Tensor, write_captures};
use onnxquant_ir::onnx::ModelProto;
use onnxquant_ir::tensor;
use serde_json::Value;

use operators::{
    Form, PICTURE, convolutions, elementwise, global_pools, ints, movements, pools, pools_of_other_ranks, products,
    resizes, transposed_convolutions, unary,
};

use crate::support::{Failures, Job, Measured, Net, agree, folder, measure, report, write};

/// The first that knows all forms, 16-bit codes included.
const OPSET: i64 = 21;
const SAMPLES: usize = 48;
/// The least that any form keeps, in dB.
const LEAST_DB: f64 = 18.0;
/// Tract and ONNX Runtime round near ties differently.
const TOLD_MARGIN_DB: f64 = 2.0;

/// The network around a form.
fn network(form: &Form) -> ModelProto {
    let mut net = Net::default();
    net.random("w1", &[8, 8, 3, 3], 0.3).random("b1", &[8], 0.4);
    net.node("Conv", &["x", "w1", "b1"], "before", &[ints("pads", &[1; 4])]).node("Relu", &["before"], "h", &[]);
    (form.add)(&mut net);
    let rank = match form.shape.as_slice() {
        // As maps are read in a network of convolutions.
        [1, channels, height, width] if height * width > 1 => {
            net.random("w2", &[4, *channels, 1, 1], 0.5).node("Conv", &["m", "w2"], "y", &[]);
            4
        }
        shape => {
            let inputs = shape[1..].iter().product();
            net.node("Flatten", &["m"], "row", &[]).random("w2", &[inputs, 4], (3.0 / inputs as f32).sqrt());
            net.node("Gemm", &["row", "w2"], "y", &[]);
            2
        }
    };
    net.model(OPSET, &PICTURE.map(|dim| dim as i64), rank)
}

/// Writes samples of `x` and returns those that are held out.
fn samples(folder: &Path) -> Vec<PathBuf> {
    std::fs::create_dir(folder).expect("the folder can be made");
    let path = |sample: usize| {
        let path = folder.join(format!("{sample:04}.npz"));
        let number = |at: usize| ((sample * 131 + at * at * 17 + at) as f32 * 0.61).sin() * 1.5;
        let numbers = (0..PICTURE.iter().product()).map(number).collect();
        let array = ArrayD::from_shape_vec(IxDyn(&PICTURE), numbers).expect("as many as the shape says");
        write_captures(&path, &["x".to_owned()], &[Tensor::F32(array)]).expect("a sample can be written");
        path
    };
    let all: Vec<PathBuf> = (0..SAMPLES).map(path).collect();
    Split::of(SAMPLES).held_out.into_iter().map(|at| all[at].clone()).collect()
}

/// Quantizes the networks of all forms and checks what ONNX Runtime makes of them.
fn check(forms: Vec<Form>, args: &[&str]) {
    let folder = folder();
    let calib = folder.path().join("calib");
    let samples = samples(&calib);
    let (mut jobs, mut told) = (Vec::new(), Vec::new());
    for (at, form) in forms.iter().enumerate() {
        let (input, output) =
            (folder.path().join(format!("{at}.onnx")), folder.path().join(format!("{at}_quantized.onnx")));
        write(&network(form), &input);
        told.push(report(&input, &output, args, Some(&calib)));
        jobs.push(Job::compare(&output, &input, &samples));
    }
    let mut failures = Failures::default();
    for ((form, told), found) in forms.iter().zip(&told).zip(measure(&jobs)) {
        let problem = problem(told, &found);
        failures.check(problem.is_none(), || format!("{}: {}", form.name, problem.unwrap_or_default()));
    }
    failures.finish();
}

/// What is wrong with a written file, or nothing.
fn problem(told: &Value, found: &Measured) -> Option<String> {
    let told_db = told["held_out"]["sqnr_db"].as_f64()?;
    let faults = found.faults();
    if !faults.is_empty() {
        return Some(faults);
    }
    if told["integers"]["static_layers"].as_u64() == Some(0) {
        return Some("nothing runs on codes".to_owned());
    }
    let as_told =
        |db: &Option<f64>| db.is_some_and(|db| db >= LEAST_DB && (db >= told_db || agree(db, told_db, TOLD_MARGIN_DB)));
    let fine = as_told(&found.sqnr_db) && as_told(&found.default_sqnr_db);
    (!fine).then(|| format!("told {told_db:.1} dB, plain {:?}, optimized {:?}", found.sqnr_db, found.default_sqnr_db))
}

const STRICT: [&str; 6] = ["--scheme", "w8a8", "--target", "qdq-strict", "--method", "msq"];

#[test]
fn pools_between_layers_on_codes_do_what_was_told() {
    check([pools(), pools_of_other_ranks(), global_pools()].into_iter().flatten().collect(), &STRICT);
}

#[test]
fn layers_between_layers_on_codes_do_what_was_told() {
    check([convolutions(), transposed_convolutions(1.0), products()].into_iter().flatten().collect(), &STRICT);
}

#[test]
fn other_operators_between_layers_on_codes_do_what_was_told() {
    check([elementwise(), unary(), movements(), resizes()].into_iter().flatten().collect(), &STRICT);
}

#[test]
fn layers_that_stay_in_float_do_what_was_told_between_codes_of_16_bits() {
    let args = [&STRICT[..], &["--activation-bits", "16"]].concat();
    check(transposed_convolutions(10.0), &args);
}

/// The layer in the middle has channels of very different size, which one scale would ruin.
#[test]
fn an_excluded_layer_does_no_harm() {
    let mut net = Net::default();
    let even = |at: usize| if at == 0 { 100.0 } else { 1.0 };
    let noise: Vec<f32> = (0..16 * 16 * 9).map(|at| ((at * 73 % 101) as f32 - 50.0) / 400.0).collect();
    let of_output = noise.iter().enumerate().map(|(at, x)| x * even(at / 144));
    let of_input = noise.iter().enumerate().map(|(at, x)| x / even(at / 9 % 16));
    let [uneven, evening] = [of_output.collect::<Vec<f32>>(), of_input.collect()];
    net.random("w0", &[16, 8, 3, 3], 0.2).random("b0", &[16], 0.2).random("b1", &[16], 0.2).random(
        "w3",
        &[10, 16, 1, 1],
        0.3,
    );
    net.constant("w1", tensor::from_f32(&[16, 16, 3, 3], &uneven));
    net.constant("w2", tensor::from_f32(&[16, 16, 3, 3], &evening));
    let pads = [ints("pads", &[1; 4])];
    net.node("Conv", &["x", "w0", "b0"], "first", &pads).node("Relu", &["first"], "r0", &[]);
    net.node("Conv", &["r0", "w1", "b1"], "keep", &pads).node("Relu", &["keep"], "r1", &[]);
    net.node("Conv", &["r1", "w2"], "third", &pads).node("Relu", &["third"], "r2", &[]);
    net.node("Conv", &["r2", "w3"], "y", &[]);
    let (folder, model) = (folder(), net.model(OPSET, &PICTURE.map(|dim| dim as i64), 4));
    let (calib, input) = (folder.path().join("calib"), folder.path().join("in.onnx"));
    let samples = samples(&calib);
    write(&model, &input);
    let written = ["all", "but_one"].map(|name| folder.path().join(format!("{name}.onnx")));
    let exclude = ["--exclude", "keep"];
    let args = [STRICT.to_vec(), [&STRICT[..], &exclude].concat()];
    let told: Vec<Value> =
        written.iter().zip(&args).map(|(output, args)| report(&input, output, args, Some(&calib))).collect();
    let jobs: Vec<Job> =
        written.iter().map(|output| Job { nodes: true, ..Job::compare(output, &input, &samples) }).collect();
    let found = measure(&jobs);
    let mut failures = Failures::default();
    for (told, found) in told.iter().zip(&found) {
        let problem = problem(told, found);
        failures.check(problem.is_none(), || problem.unwrap_or_default());
    }
    let [with, without] = [&found[0], &found[1]].map(|found| found.default_sqnr_db);
    let harmless = with.zip(without).is_some_and(|(with, without)| without >= with - 0.5);
    failures.check(harmless, || format!("{with:?} dB with the layer on codes, {without:?} dB without"));
    failures.check(found[1].count("QLinearConv") == 3, || format!("{:?}", found[1].nodes));
    failures.finish();
}
