//! Files that are read, and files that are refused and why.

use std::fs;
use std::path::Path;

use onnxquant_proto::{ReadProblem, encode_model, read_model};

use crate::errors::{chain, refusal};
use crate::sample::{sample_model, smallest_model};

fn encoded() -> Vec<u8> {
    encode_model(&sample_model()).expect("sample is small")
}

#[test]
fn mapped_file_is_read_and_outlives_its_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.onnx");
    fs::write(&path, encoded()).expect("folder is writable");
    let model = read_model(&path).expect("sample is valid");
    fs::remove_file(&path).expect("file exists");
    assert_eq!(model, sample_model());
}

#[test]
fn files_without_a_model_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let empty = folder.path().join("empty.onnx");
    fs::write(&empty, []).expect("folder is writable");
    let missing = folder.path().join("missing.onnx");
    for (path, expected) in [(&empty, "it is empty"), (&missing, "No such file")] {
        let error = read_model(path).expect_err("no model there");
        let text = chain(&error);
        assert!(text.starts_with(&format!("cannot read model `{}`: {expected}", path.display())), "{text}");
        assert_eq!(error.path(), Some(path.as_path()));
    }
    let error = read_model(folder.path()).expect_err("a folder is no model");
    assert!(matches!(error.problem(), ReadProblem::Io(_)));
}

#[cfg(unix)]
#[test]
fn device_is_refused_and_not_read() {
    let error = read_model(Path::new("/dev/zero")).expect_err("a device is no model");
    assert!(matches!(error.problem(), ReadProblem::Io(_)));
}

#[test]
fn newer_ir_version_is_refused_even_with_unknown_fields() {
    let newer = [0x08, 99, 0xfa, 0x3e, 1, 0];
    let text = refusal(&newer);
    assert!(text.contains("it has IR version 99, this build reads up to 14"), "{text}");
}

#[test]
fn last_of_two_ir_versions_counts() {
    let mut bytes = encoded();
    bytes.extend([0x08, 99]);
    assert!(refusal(&bytes).contains("IR version 99"));
}

#[test]
fn model_without_version_or_graph_is_refused() {
    let mut model = smallest_model();
    model.ir_version = Some(0);
    assert!(refusal(&encode_model(&model).expect("small")).contains("no IR version"));
    model.ir_version = Some(-3);
    assert!(refusal(&encode_model(&model).expect("small")).contains("no IR version"));
    let mut model = smallest_model();
    model.graph = None;
    assert!(refusal(&encode_model(&model).expect("small")).contains("it has no graph"));
    model.graph = Some(Default::default());
    assert!(refusal(&encode_model(&model).expect("small")).contains("it has no graph"));
}

#[test]
fn unknown_field_is_named_with_message_and_number() {
    // ModelProto.graph.node with field 77
    let text = refusal(&[0x08, 8, 0x3a, 5, 0x0a, 3, 0xe8, 0x04, 1]);
    assert!(text.contains("in `NodeProto` at byte 6: field number 77 is not in the ONNX schema"), "{text}");
}

#[test]
fn other_formats_are_told_by_their_look() {
    let rows: [(&[u8], &str); 12] = [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        (b"PK\x03\x04\x14\0\0\0", "zip"),
        (b"\x1f\x8b\x08\0\0\0", "gzip"),
        (b"\x93NUMPY\x01\0v\0{'descr'", "NumPy"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x20\0\0\0ORTM\0\0", "ONNX Runtime"),
        (b"\x1c\0\0\0TFL3\0\0", "TensorFlow Lite"),
        (b"\x40\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"F32\"", "safetensors"),
        (b"  <!DOCTYPE html><html>", "web page"),
        (b"<\n  ir_version: 8,\n  opset_import: [\"\" : 17]\n>", "ONNX text"),
        (b"just some words\n", "text"),
        (&[0; 100], "zeros"),
    ];
    for (bytes, expected) in rows {
        let text = refusal(bytes);
        let (_, look) = text.split_once("it looks like ").unwrap_or_else(|| panic!("no look for {expected}: {text}"));
        assert!(look.contains(expected), "{text}");
    }
}

#[test]
fn single_tensor_is_told_from_a_model() {
    let text = refusal(&[0x08, 3, 0x10, 1, 0x4a, 4, 0, 0, 0x80, 0x3f]);
    assert!(text.contains("a single ONNX tensor"), "{text}");
}

#[test]
fn trailing_bytes_are_refused() {
    for garbage in [&[0][..], &[0; 4096], b"garbage behind the model", &[0xff; 16]] {
        let mut bytes = encoded();
        bytes.extend(garbage);
        let text = refusal(&bytes);
        assert!(text.contains("in `ModelProto` at byte"), "{text}");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let text = refusal(&[0x08, 8, 0x12, 1, 0xff, 0x3a, 3, 0x12, 1, b'g']);
    assert!(text.contains("producer_name") && text.contains("UTF-8"), "{text}");
}
