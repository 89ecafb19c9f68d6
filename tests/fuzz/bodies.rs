//! What the fuzz targets do with bytes. None of it may panic, nor take more memory than its limits allow.
//!
//! A test of the workspace includes this file and gives it every input that once failed.

use std::path::Path;

use onnxquant_calib::{CalibSet, DataOptions, InputSpec};
use onnxquant_ir::{Model, dump, verify};
use onnxquant_passes::check_attributes::check_attributes;
use onnxquant_passes::lift_constants::lift_constants;
use onnxquant_passes::raise_opset::raise_opset;
use onnxquant_passes::sites::find_sites;
use onnxquant_proto::onnx::tensor_shape_proto::{Dimension, dimension};
use onnxquant_proto::onnx::{GraphProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_proto, type_proto};
use onnxquant_proto::{Bytes, decode_model, encode_model};

/// A target: its name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All but `passes`, which lies beside the interpreter it needs.
pub const TARGETS: [Target; 12] = [
    ("decode", decode),
    ("import", import),
    ("raise_opset", raise),
    ("npz", |data| samples("npz", data)),
    ("npy", |data| samples("npy", data)),
    ("pb", |data| samples("pb", data)),
    ("safetensors", |data| samples("safetensors", data)),
    ("picture", picture),
    ("wav", |data| samples("wav", data)),
    ("tar", |data| samples("tar", data)),
    ("tokenizer", tokenizer),
    ("processor", processor),
];

/// Any bytes decode to an error or to a model that is the same after another round.
fn decode(data: &[u8]) {
    let Ok(model) = decode_model(Bytes::copy_from_slice(data)) else { return };
    let once = encode_model(&model).expect("no larger than its input");
    let again = decode_model(once.clone().into()).expect("what was encoded decodes");
    assert_eq!(encode_model(&again).expect("no larger than its input"), once);
}

/// Any message is an error, or a graph that is valid, can be told, and is the same message again.
fn import(data: &[u8]) {
    let Ok(proto) = decode_model(Bytes::copy_from_slice(data)) else { return };
    let _ = check_attributes(&proto);
    let Ok(mut model) = Model::from_proto(proto) else { return };
    assert_eq!(verify(&model), []);
    let _ = dump(&model);
    let once = model.to_proto();
    let again = Model::from_proto(once.clone()).expect("what was written is valid");
    assert_eq!(encode_model(&again.to_proto()).ok(), encode_model(&once).ok());
    lift_constants(&mut model);
    let _ = find_sites(&model);
}

/// A valid graph is valid in the newest opset as well, or stays what it is.
fn raise(data: &[u8]) {
    let Ok(proto) = decode_model(Bytes::copy_from_slice(data)) else { return };
    if !check_attributes(&proto).is_empty() {
        return;
    }
    let Ok(model) = Model::from_proto(proto) else { return };
    if let Ok((raised, _)) = raise_opset(model, 21) {
        assert_eq!(verify(&raised), []);
    }
}

/// A graph whose input `x` is floats of these lengths, of which a negative one is any.
fn inputs(name: &str, element: tensor_proto::DataType, dims: &[i64]) -> Vec<InputSpec> {
    let length = |length: i64| (length >= 0).then_some(dimension::Value::DimValue(length));
    let dim = |&n: &i64| Dimension { value: length(n), denotation: None };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(element as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    let input = ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() };
    let graph = GraphProto { input: vec![input], ..GraphProto::default() };
    InputSpec::from_graph(&graph, 10).expect("the input is one that samples can have")
}

/// Opens the samples in `path` and reads all of them.
fn open(path: &Path, inputs: &[InputSpec], options: &DataOptions) {
    let Ok(set) = CalibSet::open(path, inputs, options) else { return };
    for sample in 0..set.len().min(8) {
        let _ = set.load(sample);
    }
}

/// A file with this extension, and nothing else, in a folder.
fn samples(extension: &str, data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let name = if extension == "pb" { "test_data_set_0/input_0.pb".to_owned() } else { format!("0.{extension}") };
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(folder.path())).expect("a folder can be made");
    std::fs::write(&path, data).expect("it can be written");
    let dims: &[i64] = if extension == "wav" { &[1, -1] } else { &[-1, -1] };
    open(folder.path(), &inputs("x", tensor_proto::DataType::Float, dims), &DataOptions::default());
}

fn picture(data: &[u8]) {
    let extensions = ["png", "jpg", "webp", "bmp", "tiff", "gif"];
    let Some((&first, data)) = data.split_first() else { return };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let extension = extensions[usize::from(first) % extensions.len()];
    std::fs::write(folder.path().join(format!("0.{extension}")), data).expect("it can be written");
    open(folder.path(), &inputs("x", tensor_proto::DataType::Float, &[1, 3, 8, 8]), &DataOptions::default());
}

/// A tokenizer beside a text.
fn tokenizer(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("tokenizer.json"), data).expect("it can be written");
    std::fs::write(at("texts.txt"), "A text, and \u{fc}ber \u{1f600}.\nAnother one.\n").expect("it can be written");
    let options = DataOptions { model_folder: Some(folder.path().to_owned()), ..DataOptions::default() };
    open(&at("texts.txt"), &inputs("input_ids", tensor_proto::DataType::Int64, &[-1, -1]), &options);
}

/// The configuration of a processor beside a picture and a sound.
fn processor(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("preprocessor_config.json"), data).expect("it can be written");
    std::fs::create_dir(at("pictures")).expect("a folder can be made");
    std::fs::write(at("pictures/0.bmp"), bmp()).expect("it can be written");
    let options = DataOptions { model_folder: Some(folder.path().to_owned()), ..DataOptions::default() };
    open(&at("pictures"), &inputs("x", tensor_proto::DataType::Float, &[1, 3, -1, -1]), &options);
}

/// A picture of 4 x 4 grey pixels.
fn bmp() -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    for number in [54 + 48_u32, 0, 54, 40, 4, 4] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    bytes.extend([128; 48]);
    bytes
}
