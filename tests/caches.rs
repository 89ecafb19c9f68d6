//! Caches of keys and values as int8.

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use onnxquant::calib::{Split, Tensor, write_captures};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, type_proto};
use serde_json::Value;

use crate::support::{
    Failures, MatMulModel, Run, float_tensor, float_value, folder, integers, model_of, node, noise, noise_samples,
    onnxquant, python, refused, report, with_int, write,
};

const HEADS: i64 = 4;
const KV: i64 = 2;
const SIZE: i64 = 16;
const WIDTH: i64 = HEADS * SIZE;
const LAYERS: usize = 2;
const SAMPLES: usize = 16;
const NEW: usize = 6;
const INT8: [&str; 4] = ["--kv-cache", "int8", "--ort-min", "1.27"];

/// Tokens of past of a sample: none, or some.
fn past_of(sample: usize) -> usize {
    if sample.is_multiple_of(2) { 0 } else { 3 + sample }
}

/// A name with the number of a layer.
fn of_layer(layer: usize, what: &str) -> String {
    format!("{what}.{layer}")
}

/// An input or output of this type; a negative length is any.
fn declared(name: &str, kind: DataType, dims: &[i64]) -> ValueInfoProto {
    let mut info = float_value(name, dims);
    if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|found| found.value.as_mut()) {
        tensor.elem_type = Some(kind as i32);
    }
    info
}

/// Layers of attention over packed queries, keys and values that are rotated inside, each added to what it reads.
fn decoder() -> ModelProto {
    let (mut nodes, mut constants, mut inputs, mut outputs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    inputs.push(declared("x", DataType::Float, &[-1, -1, WIDTH]));
    let packed = WIDTH + 2 * KV * SIZE;
    let mut read = "x".to_owned();
    for layer in 0..LAYERS {
        let name = |what: &str| of_layer(layer, what);
        let made = if layer + 1 == LAYERS { "y".to_owned() } else { name("sum") };
        nodes.extend([
            called(node("MatMul", &[&read, &name("qkv_weight")], &[&name("qkv")])),
            attention(layer),
            called(node("MatMul", &[&name("seen"), &name("o_weight")], &[&name("o")])),
            called(node("Add", &[&read, &name("o")], &[&made])),
        ]);
        let weight = |what: &str, columns: i64| {
            let numbers = noise(7 * layer + what.len(), (WIDTH * columns) as usize, 0.3);
            float_tensor(&name(what), &[WIDTH, columns], numbers)
        };
        constants.extend([weight("qkv_weight", packed), weight("o_weight", WIDTH)]);
        for what in ["key", "value"] {
            let cache = |name: &str| declared(name, DataType::Float, &[-1, KV, -1, SIZE]);
            inputs.push(cache(&name(&format!("past_{what}"))));
            outputs.push(cache(&name(&format!("present_{what}"))));
        }
        read = made;
    }
    nodes.splice(0..0, counts());
    constants.extend([integers("axis", &[0]), scalar("batch_and", 1), scalar("heads_and_batch", 2), scalar("one", 1)]);
    outputs.insert(0, declared("y", DataType::Float, &[-1, -1, WIDTH]));
    for (name, turn) in [("cos", f64::cos as fn(f64) -> f64), ("sin", f64::sin)] {
        let pairs = SIZE / 2;
        let angle = |at: i64| (at / pairs) as f64 / 100_f64.powf((at % pairs) as f64 / pairs as f64);
        constants.push(float_tensor(name, &[64, pairs], (0..64 * pairs).map(|at| turn(angle(at)) as f32)));
    }
    let mut model = model_of(nodes, constants, inputs, outputs);
    let import = OperatorSetIdProto { domain: Some("com.microsoft".to_owned()), version: Some(1) };
    model.opset_import.push(import);
    model
}

/// The node, called as what it makes.
fn called(node: NodeProto) -> NodeProto {
    NodeProto { name: node.output.first().cloned(), ..node }
}

/// How many tokens there are, as attention wants to know it: `total`, and `lengths`, which is one less.
fn counts() -> Vec<NodeProto> {
    let cast = |from: &str, to: &str| with_int(called(node("Cast", &[from], &[to])), "to", DataType::Int32 as i64);
    vec![
        called(node("Shape", &["x"], &["shape"])),
        called(node("Gather", &["shape", "batch_and"], &["new"])),
        called(node("Shape", &["past_key.0"], &["past_shape"])),
        called(node("Gather", &["past_shape", "heads_and_batch"], &["past"])),
        called(node("Add", &["past", "new"], &["all"])),
        cast("all", "total"),
        called(node("Sub", &["all", "one"], &["last"])),
        called(node("Unsqueeze", &["last", "axis"], &["lasts"])),
        cast("lasts", "lengths"),
    ]
}

/// A 64-bit integer as a tensor without dimensions.
fn scalar(name: &str, number: i64) -> TensorProto {
    TensorProto { dims: Vec::new(), ..integers(name, &[number]) }
}

fn attention(layer: usize) -> NodeProto {
    let name = |what: &str| of_layer(layer, what);
    let (qkv, past_key, past_value) = (name("qkv"), name("past_key"), name("past_value"));
    let inputs = [&qkv, "", "", &past_key, &past_value, "lengths", "total", "cos", "sin"];
    let outputs = [name("seen"), name("present_key"), name("present_value")];
    let node = called(node("GroupQueryAttention", &inputs, &outputs.each_ref().map(String::as_str)));
    let node = NodeProto { domain: Some("com.microsoft".to_owned()), ..node };
    let counts = [("num_heads", HEADS), ("kv_num_heads", KV), ("do_rotary", 1)];
    counts.into_iter().fold(node, |node, (name, count)| with_int(node, name, count))
}

/// Writes samples, of which every other one has a past; returns their paths.
fn samples(folder: &Path) -> Vec<PathBuf> {
    std::fs::create_dir(folder).expect("the folder can be made");
    let floats = |seed: usize, shape: [usize; 4], size: f32| {
        let mut numbers = noise(seed, shape.iter().product(), size);
        ArrayD::from_shape_fn(IxDyn(&shape), |_| numbers.next().expect("noise does not end"))
    };
    let path = |sample: usize| {
        let past = past_of(sample);
        let x = floats(sample, [1, 1, NEW, WIDTH as usize], 1.0).remove_axis(ndarray::Axis(0));
        let mut values = vec![("x".to_owned(), Tensor::F32(x))];
        for (at, what) in ["past_key", "past_value"].into_iter().enumerate() {
            for layer in 0..LAYERS {
                let cache = floats(100 * sample + 10 * layer + at, [1, KV as usize, past, SIZE as usize], 1.5);
                values.push((of_layer(layer, what), Tensor::F32(cache)));
            }
        }
        let (names, values): (Vec<_>, Vec<_>) = values.into_iter().unzip();
        let path = folder.join(format!("{sample:04}.npz"));
        write_captures(&path, &names, &values).expect("a sample can be written");
        path
    };
    (0..SAMPLES).map(path).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What `tests/python/caches.py` finds.
fn served(float: &Path, quantized: &Path, samples: &[PathBuf]) -> Value {
    let run = Run::of(python("caches.py").arg(float).arg(quantized).args(samples)).succeeded();
    serde_json::from_str(&run.stdout).expect("it prints JSON")
}

#[test]
fn caches_become_int8_and_are_told_as_they_are_served() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let paths = samples(&at("calib"));
    let held_out: Vec<PathBuf> = Split::of(SAMPLES).held_out.into_iter().map(|sample| paths[sample].clone()).collect();
    write(&decoder(), &at("in.onnx"));
    for (engine, field) in [(["--engine", "ort"], "measured"), (["--ort-lib", "off"], "held_out")] {
        let args = [&["--scheme", "w8"][..], &INT8, &engine].concat();
        let found = report(&at("in.onnx"), &at("out.onnx"), &args, Some(&at("calib")));
        let caches = &found["kv_cache"];
        assert_eq!(caches["attention"], LAYERS, "{engine:?}");
        let per_token = LAYERS as i64 * 2 * KV * SIZE;
        let bytes = [&caches["bytes_per_token_before"], &caches["bytes_per_token_after"]].map(number);
        assert_eq!(bytes, [4 * per_token, per_token].map(|bytes| bytes as f64), "{engine:?}");
        let told = number(&found[field]["sqnr_db"]);
        let real = served(&at("in.onnx"), &at("out.onnx"), &held_out);
        assert!((told - number(&real["sqnr_db"])).abs() < 1.5, "{engine:?}: {told} told, {real}");
        assert!(number(&real["past_tokens"]) > 0.0, "no sample has a past");
        let with_floats = number(&caches["with_float_caches"]["sqnr_db"]);
        assert!(with_floats > told && told > 30.0, "{engine:?}: {with_floats} with floats, {told} with codes");
    }
}

#[test]
fn models_are_compared_whatever_their_caches_are() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    samples(&at("calib"));
    write(&decoder(), &at("in.onnx"));
    let args = [&["--exclude", "*"][..], &INT8, &["--embeddings", "off"]].concat();
    let found = report(&at("in.onnx"), &at("out.onnx"), &args, Some(&at("calib")));
    assert_eq!(found["layers"].as_array().map(Vec::len), Some(0));
    let compare = |a: &str, b: &str| {
        let mut command = onnxquant(&["compare", a, b, "--data", "calib", "--report", "compared.json"]);
        Run::of(command.current_dir(folder.path())).succeeded();
        let text = std::fs::read_to_string(at("compared.json")).expect("the report was written");
        serde_json::from_str::<Value>(&text).expect("the report is JSON")
    };
    let near = |found: &Value| (30.0..70.0).contains(&number(&found["sqnr_db"]));
    let (forth, back) = (compare("in.onnx", "out.onnx"), compare("out.onnx", "in.onnx"));
    assert!(near(&forth) && near(&back), "{forth} {back}");
}

#[test]
fn what_keeps_caches_from_being_int8_is_told() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    samples(&at("calib"));
    write(&decoder(), &at("in.onnx"));
    let mut read_elsewhere = decoder();
    let graph = read_elsewhere.graph.as_mut().expect("it has a graph");
    graph.node.push(called(node("Relu", &["present_key.0"], &["again"])));
    graph.output.push(declared("again", DataType::Float, &[-1, KV, -1, SIZE]));
    write(&read_elsewhere, &at("read.onnx"));
    write(&MatMulModel::new(8, 8).proto(), &at("plain.onnx"));
    noise_samples(&at("plain"), &[1, 8], 8);
    let run = |model: &str, calib: &str, args: &[&str]| {
        let mut command = onnxquant(&[&at(model), &at("out.onnx")]);
        match calib {
            "" => command.arg("--weights-only"),
            calib => command.arg("--calib").arg(at(calib)),
        };
        Run::of(command.args(args))
    };
    let cases = [
        ("in.onnx", "calib", &INT8[..2], "add `--ort-min 1.27`"),
        ("in.onnx", "", &INT8, "scales of caches need calibration data"),
        ("in.onnx", "calib", &[&INT8[..], &["--target", "qnn"]].concat(), "leave out --target"),
        ("read.onnx", "calib", &INT8, "`present_key.0` is also read by others"),
        ("plain.onnx", "plain", &INT8, "the model has no GroupQueryAttention"),
    ];
    let mut failures = Failures::default();
    for (model, calib, args, text) in cases {
        let problem = refused(&run(model, calib, args), &[text]);
        failures.check(problem.is_none(), || format!("{model} {args:?}: {}", problem.unwrap_or_default()));
    }
    failures.finish();
}
