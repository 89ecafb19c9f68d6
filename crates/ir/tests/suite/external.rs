//! Weights in a file beside the model.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use onnxquant_ir::onnx::tensor_proto::{DataLocation, DataType};
use onnxquant_ir::onnx::{ModelProto, StringStringEntryProto, TensorProto};
use onnxquant_ir::{ExternalData, Model, ReadModelError, WriteModelError, external_path, tensor, write_model};
use onnxquant_proto::Message as _;

use super::{floats, message, names_in};

/// Keys and values of a tensor's `external_data`.
type Entries<'a> = &'a [(&'a str, &'a str)];

fn outside(location: &str, entries: Entries<'_>) -> TensorProto {
    let entry =
        |(key, value): (&str, &str)| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    TensorProto {
        name: Some("w".into()),
        dims: vec![4],
        data_type: Some(DataType::Float as i32),
        data_location: Some(DataLocation::External as i32),
        external_data: std::iter::once(("location", location)).chain(entries.iter().copied()).map(entry).collect(),
        ..TensorProto::default()
    }
}

fn save(proto: &ModelProto, folder: &Path) -> std::path::PathBuf {
    let path = folder.join("m.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    path
}

/// Entries of the tensor's place, as the file says it.
fn place(proto: &ModelProto, name: &str) -> Option<(String, u64, u64)> {
    let tensor = proto.graph.as_ref().unwrap().initializer.iter().find(|tensor| tensor.name() == name).unwrap();
    let entry =
        |key: &str| tensor.external_data.iter().find(|entry| entry.key() == key).map(|entry| entry.value().to_owned());
    Some((entry("location")?, entry("offset")?.parse().ok()?, entry("length")?.parse().ok()?))
}

#[test]
fn large_tensors_go_out_and_come_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let typed = TensorProto {
        name: Some("typed".into()),
        dims: vec![300],
        data_type: Some(DataType::Float as i32),
        float_data: vec![1.5; 300],
        ..TensorProto::default()
    };
    let text = TensorProto {
        name: Some("text".into()),
        dims: vec![1],
        data_type: Some(DataType::String as i32),
        string_data: vec![vec![65; 5000]],
        ..TensorProto::default()
    };
    let noted = TensorProto { doc_string: Some("note".into()), ..floats("large", 2000) };
    let proto = message(vec![floats("small", 255), floats("odd", 257), noted, typed, text, floats("last", 1024)]);
    let model = Model::from_proto(proto).unwrap();
    let bytes = write_model(&model, &path, ExternalData::Always).unwrap();

    assert_eq!(names_in(folder.path()), ["m.onnx", "m.onnx.data"]);
    let lengths = [&path, &external_path(&path)].map(|path| std::fs::metadata(path).unwrap().len());
    assert_eq!(bytes, lengths.iter().sum::<u64>());
    let written = onnxquant_proto::read_model(&path).unwrap();
    let at = |name: &str| place(&written, name);
    let data = || "m.onnx.data".to_owned();
    assert_eq!((at("small"), at("text")), (None, None));
    assert_eq!(at("odd"), Some((data(), 0, 1028)));
    assert_eq!(at("large"), Some((data(), 4096, 8000)), "large tensors start at a page");
    assert_eq!(at("typed"), Some((data(), 12096, 1200)), "small ones follow at once");
    assert_eq!(at("last"), Some((data(), 16384, 4096)));

    let again = Model::read(&path).unwrap();
    assert_eq!(again.external_files(), [external_path(&path).canonicalize().unwrap()]);
    let raw = |model: &Model, name: &str| {
        let graph = model.graph();
        tensor::to_raw(graph.value(graph.find(name).unwrap()).constant().unwrap()).unwrap()
    };
    for name in ["small", "odd", "large", "typed", "last"] {
        assert_eq!(raw(&again, name), raw(&model, name), "{name}");
    }
    let large = again.graph().find("large").unwrap();
    assert_eq!(again.graph().value(large).constant().unwrap().doc_string(), "note");
}

#[test]
fn model_read_from_external_data_is_written_so_again_over_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let model = Model::from_proto(message(vec![floats("w", 2000)])).unwrap();
    write_model(&model, &path, ExternalData::Always).unwrap();
    let again = Model::read(&path).unwrap();
    write_model(&again, &path, ExternalData::Auto).unwrap();
    assert_eq!(names_in(folder.path()), ["m.onnx", "m.onnx.data"]);
    assert_eq!(Model::read(&path).unwrap().to_proto(), model.to_proto());
    assert_eq!(again.to_proto(), model.to_proto(), "the mapping of the replaced file still holds");
}

#[test]
fn without_large_tensors_there_is_no_second_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::from_proto(message(vec![floats("w", 3)])).unwrap();
    write_model(&model, &folder.path().join("m.onnx"), ExternalData::Always).unwrap();
    assert_eq!(names_in(folder.path()), ["m.onnx"]);
}

#[test]
fn external_tensor_is_read_at_its_offset() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let content = (0u8..64).collect::<Vec<_>>();
    std::fs::write(folder.path().join("sub/data"), &content).unwrap();
    symlink("sub/data", folder.path().join("link")).unwrap();
    let table: [(&str, Entries<'_>, usize); 6] = [
        ("sub/data", &[], 0),
        ("./sub/data", &[("offset", "16")], 16),
        ("sub/data", &[("length", "16")], 0),
        ("sub/data", &[("offset", "48"), ("length", "16"), ("checksum", "any")], 48),
        ("link", &[("offset", "3")], 3),
        ("sub//data", &[("offset", "0")], 0),
    ];
    for (location, entries, start) in table {
        let path = save(&message(vec![outside(location, entries)]), folder.path());
        let model = Model::read(&path).unwrap_or_else(|error| panic!("{location}: {error}"));
        let w = model.graph().value(model.graph().find("w").unwrap()).constant().unwrap();
        assert_eq!(w.raw_data.as_deref(), Some(&content[start..start + 16]), "{location} {entries:?}");
        assert!(w.external_data.is_empty() && w.data_location.is_none());
    }
}

#[test]
fn external_tensor_out_of_bounds_or_out_of_the_folder_is_refused() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("model");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    for file in ["model/data", "secret"] {
        std::fs::write(above.path().join(file), [1; 32]).unwrap();
    }
    symlink("../secret", folder.join("link")).unwrap();
    symlink("..", folder.join("up")).unwrap();
    symlink("nowhere", folder.join("dangling")).unwrap();
    let secret = above.path().join("secret");
    let plain = "the location must be a plain path inside the model's folder";
    let out = "the location leads out of the model's folder";
    let missing = "No such file or directory";
    let table: Vec<(&str, Entries<'_>, &str)> = vec![
        ("../secret", &[], plain),
        ("sub/../../secret", &[], plain),
        ("sub/../data", &[], plain),
        (secret.to_str().unwrap(), &[], plain),
        ("/etc/passwd", &[], plain),
        ("link", &[], out),
        ("up/secret", &[], out),
        ("dangling", &[], missing),
        ("missing", &[], missing),
        ("", &[], "no location is given"),
        ("sub", &[], "the location is not a file"),
        (".", &[], "the location is not a file"),
        ("data", &[("offset", "17")], "bytes 17 to 17 + 16 are wanted, but the file has 32 bytes"),
        ("data", &[("offset", "33")], "but the file has 32 bytes"),
        ("data", &[("offset", "18446744073709551615")], "but the file has 32 bytes"),
        ("data", &[("offset", "18446744073709551616")], "expected a number >= 0"),
        ("data", &[("offset", "-1")], "offset is `-1`, expected a number >= 0"),
        ("data", &[("offset", "ten")], "offset is `ten`, expected a number >= 0"),
        ("data", &[("length", "")], "length is ``, expected a number >= 0"),
        ("data", &[("length", "15")], "length is 15, but shape [4] needs 16 bytes"),
        ("data", &[("length", "17")], "length is 17, but shape [4] needs 16 bytes"),
        ("data", &[("length", "0")], "length is 0, but shape [4] needs 16 bytes"),
    ];
    for (location, entries, expected) in table {
        let path = save(&message(vec![outside(location, entries)]), &folder);
        let what = format!("{location} {entries:?}");
        match Model::read(&path).expect_err(&what) {
            ReadModelError::External { problem, tensor, .. } => {
                assert!(problem.contains(expected), "{what}: {problem}");
                assert_eq!(tensor, "w");
            }
            other => panic!("{what}: {other}"),
        }
    }
}

#[test]
fn external_tensor_of_a_hostile_declaration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), [1; 32]).unwrap();
    let table = [
        (TensorProto { dims: vec![-4], ..outside("data", &[]) }, "negative dimension -4"),
        (TensorProto { dims: vec![1 << 40, 1 << 40], ..outside("data", &[]) }, "overflows"),
        (TensorProto { dims: vec![1 << 62], ..outside("data", &[]) }, "overflows"),
        (TensorProto { data_type: Some(99), ..outside("data", &[]) }, "unknown data type 99"),
        (TensorProto { data_type: Some(8), ..outside("data", &[]) }, "strings cannot be external"),
    ];
    for (tensor, expected) in table {
        let error = Model::read(&save(&message(vec![tensor]), folder.path())).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn folder_in_the_way_is_found_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::create_dir(&path).unwrap();
    let model = Model::from_proto(message(vec![floats("w", 2000)])).unwrap();
    let error = write_model(&model, &path, ExternalData::Always).unwrap_err();
    assert!(matches!(&error, WriteModelError::Io { path: at, .. } if *at == path), "{error}");
    assert_eq!(names_in(folder.path()), ["m.onnx"]);
}

#[test]
fn file_name_that_the_model_cannot_hold_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.onnx"));
    let model = Model::from_proto(message(vec![floats("w", 2000)])).unwrap();
    assert!(matches!(write_model(&model, &path, ExternalData::Always), Err(WriteModelError::Io { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    write_model(&model, &path, ExternalData::Auto).unwrap();
}
