//! Models of f16 and bf16, which are computed in f32.

use std::path::PathBuf;

use ::half::f16;
use ndarray::{ArrayD, IxDyn};
use onnxquant::calib::{Split, Tensor, write_captures};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::type_proto::Value as Kind;
use onnxquant_ir::onnx::{ModelProto, TensorProto, ValueInfoProto};
use onnxquant_ir::{Model, ints_attribute, tensor};

use crate::support::{Failures, Job, Net, folder, measure, noise, report, write};

const SAMPLES: usize = 20;
const SHAPE: [usize; 4] = [1, 3, 24, 24];

/// Convolutions and a layer of many classes, all of `kind`.
fn network(kind: DataType) -> ModelProto {
    let mut net = Net::default();
    let pads = [ints_attribute("pads", &[1, 1, 1, 1])];
    net.random("w1", &[32, 3, 3, 3], 0.4).random("w2", &[64, 32, 3, 3], 0.1).random("w3", &[64, 512], 0.3);
    net.node("Conv", &["x", "w1"], "c1", &pads).node("Relu", &["c1"], "r1", &[]);
    net.node("Conv", &["r1", "w2"], "c2", &pads).node("Relu", &["c2"], "r2", &[]);
    net.node("GlobalAveragePool", &["r2"], "p", &[]).node("Flatten", &["p"], "f", &[]);
    net.node("MatMul", &["f", "w3"], "y", &[]);
    let mut model = net.model(17, &SHAPE.map(|dim| dim as i64), 2);
    let graph = model.graph.as_mut().expect("it has a graph");
    for weight in &mut graph.initializer {
        let numbers = tensor::to_f32(weight).expect("weights are floats").into_owned();
        let typed = tensor::from_f32_as(kind, &[], &numbers);
        *weight = TensorProto { name: weight.name.clone(), dims: weight.dims.clone(), ..typed };
    }
    graph.input.iter_mut().chain(&mut graph.output).for_each(|info| set_type(info, kind));
    model
}

fn set_type(info: &mut ValueInfoProto, kind: DataType) {
    if let Some(Kind::TensorType(tensor)) = info.r#type.as_mut().and_then(|kind| kind.value.as_mut()) {
        tensor.elem_type = Some(kind as i32);
    }
}

fn samples(folder: &std::path::Path) -> Vec<PathBuf> {
    std::fs::create_dir(folder).expect("the folder can be made");
    let write = |sample: usize| {
        let path = folder.join(format!("{sample:02}.npz"));
        let mut numbers = noise(sample, SHAPE.iter().product(), 1.0).map(f16::from_f32);
        let array = ArrayD::from_shape_fn(IxDyn(&SHAPE), |_| numbers.next().expect("noise does not end"));
        write_captures(&path, &["x".to_owned()], &[Tensor::F16(array)]).expect("a sample can be written");
        path
    };
    (0..SAMPLES).map(write).collect()
}

fn types(infos: &[ValueInfoProto]) -> Vec<i32> {
    let kind = |info: &ValueInfoProto| match info.r#type.as_ref()?.value.as_ref()? {
        Kind::TensorType(tensor) => Some(tensor.elem_type()),
        _ => None,
    };
    infos.iter().filter_map(kind).collect()
}

#[test]
fn half_networks_run_on_codes_between_inputs_and_outputs_of_their_type() {
    let folder = folder();
    let (model, calib) = (folder.path().join("half.onnx"), folder.path().join("calib"));
    write(&network(DataType::Float16), &model);
    let samples = samples(&calib);
    let held_out: Vec<PathBuf> = Split::of(SAMPLES).held_out.into_iter().map(|at| samples[at].clone()).collect();
    let mut failures = Failures::default();
    for scheme in ["--scheme w8a8", "--scheme w8", "--scheme w4", "--scheme w8a8 --target qdq-strict"] {
        let output = folder.path().join("out.onnx");
        let options: Vec<&str> = scheme.split(' ').collect();
        let found = report(&model, &output, &options, Some(&calib));
        assert_eq!(found["raised_type"], serde_json::json!({ "from": "FLOAT16", "tensors": 3 }), "{scheme}");
        let written = Model::read(&output).expect("it can be read").to_proto().graph.expect("it has a graph");
        let half = DataType::Float16 as i32;
        assert_eq!((types(&written.input), types(&written.output)), (vec![half], vec![half]), "{scheme}");
        let measured = measure(&[Job::compare(&output, &model, &held_out)]).remove(0);
        assert_eq!(measured.faults(), "", "{scheme}");
        let (told, real) = (found["held_out"]["sqnr_db"].as_f64(), measured.default_sqnr_db);
        // What is beyond is the rounding of the float model, which computes in f16.
        let figure = |found: Option<f64>| found.map(|db| db.min(60.0));
        let both = figure(told).zip(figure(real));
        failures.check(both.is_some_and(|(told, real)| (told - real).abs() < 1.0), || {
            format!("{scheme}: {told:?} dB told, {real:?} dB measured")
        });
        std::fs::remove_file(&output).expect("it was written");
    }
    failures.finish();
}

#[test]
fn what_is_left_in_float_takes_no_more_bytes_than_it_took() {
    let folder = folder();
    let model = folder.path().join("half.onnx");
    for kind in [DataType::Float16, DataType::Bfloat16] {
        write(&network(kind), &model);
        let output = folder.path().join("out.onnx");
        let options = ["--exclude", "y", "--exclude", "c2"];
        let found = report(&model, &output, &options, None);
        let bytes = |name: &str| found[name].as_u64().expect("a number of bytes");
        assert!(bytes("bytes_after") < bytes("bytes_before") + 1000, "{found}");
        let kept = report(&model, &output, &[&options[..], &["--keep-type"]].concat(), None);
        assert_eq!(kept["raised_type"], serde_json::Value::Null);
    }
}
