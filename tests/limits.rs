//! Files that ask for more than any real one: refused before they get it, as `docs/src/limits.md` says.

use std::path::Path;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{FunctionProto, ModelProto, NodeProto, OperatorSetIdProto, type_proto};

use crate::support::{
    Chain, Failures, Run, bounded, files_in, folder, node, onnxquant, refused, root, with_int, write,
};

/// Runs the model on the sample of this name, in bounded memory.
fn run(folder: &Path, model: &ModelProto, name: &str, sample: &[u8]) -> Run {
    let (input, calib) = (folder.join("model.onnx"), folder.join("calib"));
    write(model, &input);
    std::fs::create_dir(&calib).expect("a folder can be made");
    std::fs::write(calib.join(name), sample).expect("it can be written");
    let mut command = onnxquant(&[&input, &folder.join("out.onnx")]);
    // Texts are named themselves.
    let samples = if name.ends_with(".txt") { calib.join(name) } else { calib };
    bounded(command.args(["--threads", "2", "--ort-lib", "off", "--calib"]).arg(&samples))
}

fn matrix_model() -> ModelProto {
    Chain::new(&[1, 16]).matmul(16, 32).matmul(32, 8).proto()
}

fn picture_model() -> ModelProto {
    Chain::new(&[1, 3, 16, 16]).conv(&[8, 3, 3, 3], 1).conv(&[8, 8, 3, 3], 1).proto()
}

/// A model of tokens.
fn ids_model() -> ModelProto {
    let mut model = Chain::new(&[1, 16]).matmul(16, 32).matmul(32, 8).proto();
    let graph = model.graph.as_mut().expect("it has a graph");
    let cast = with_int(node("Cast", &["input_ids"], &["x"]), "to", i64::from(DataType::Float as i32));
    graph.node.insert(0, cast);
    graph.input[0].name = Some("input_ids".to_owned());
    let kind = graph.input[0].r#type.as_mut().and_then(|kind| kind.value.as_mut());
    if let Some(type_proto::Value::TensorType(tensor)) = kind {
        tensor.elem_type = Some(DataType::Int64 as i32);
    }
    model
}

/// The header of an `.npy` file of f32 with so many rows of 16.
fn npy(rows: u64) -> Vec<u8> {
    let text = format!("{:117}\n", format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, 16), }}"));
    [b"\x93NUMPY\x01\x00v\x00", text.as_bytes()].concat()
}

/// A zip archive of one deflated entry that claims to become `claimed` bytes.
fn zip(packed: &[u8], claimed: u32) -> Vec<u8> {
    let mut fields = Vec::new();
    fields.extend(20_u16.to_le_bytes());
    fields.extend([0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    fields.extend((packed.len() as u32).to_le_bytes());
    fields.extend(claimed.to_le_bytes());
    fields.extend([5, 0, 0, 0]);
    let local = [b"PK\x03\x04", &fields[..], b"x.npy", packed].concat();
    let central = [b"PK\x01\x02\x14\x00", &fields[..], &[0; 14], b"x.npy"].concat();
    let mut end = b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00".to_vec();
    end.extend((central.len() as u32).to_le_bytes());
    end.extend((local.len() as u32).to_le_bytes());
    end.extend([0, 0]);
    [local, central, end].concat()
}

/// Bytes as one deflated block that is stored.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    [&[1], &length.to_le_bytes()[..], &(!length).to_le_bytes(), bytes].concat()
}

fn wav(promised: u32) -> Vec<u8> {
    let mut bytes = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00".to_vec();
    bytes.extend(16_000_u32.to_le_bytes());
    bytes.extend(32_000_u32.to_le_bytes());
    bytes.extend(b"\x02\x00\x10\x00data");
    bytes.extend(promised.to_le_bytes());
    bytes.extend([0; 64]);
    bytes
}

/// A picture of so many pixels a side, of which there are none.
fn bmp(side: u32) -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    [54_u32, 0, 54, 40, side, side].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    bytes
}

/// A tar archive whose member claims so many bytes, in octal digits.
fn tar(name: &str, claimed: &str) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..124 + claimed.len()].copy_from_slice(claimed.as_bytes());
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    [&header[..], &[0; 1024]].concat()
}

#[test]
fn samples_that_promise_too_much_are_refused() {
    let safetensors = [&(1_u64 << 62).to_le_bytes()[..], b"{}"].concat();
    let sounds = Chain::new(&[1, 64]).matmul(64, 32).matmul(32, 8).proto();
    let cases: [(&str, ModelProto, &str, Vec<u8>, &str); 9] = [
        ("an array of 256 GiB", matrix_model(), "0.npy", npy(1 << 32), "0.npy"),
        ("an array of more than memory", matrix_model(), "0.npy", npy(1 << 60), "0.npy"),
        ("a bomb that lies", matrix_model(), "0.npz", zip(&stored(&npy(1 << 25)), 1 << 31), "0.npz"),
        ("a bomb of its size", matrix_model(), "0.npz", zip(&stored(&npy(1 << 25)), (1 << 31) + 128), "0.npz"),
        ("a header of 2^62 bytes", matrix_model(), "0.safetensors", safetensors, "claims"),
        ("a picture of 100,000 a side", picture_model(), "0.bmp", bmp(100_000), "0.bmp"),
        ("a picture of 60,000 a side", picture_model(), "0.bmp", bmp(60_000), "0.bmp"),
        ("a sound of 4 GB", sounds, "0.wav", wav(0xffff_fff0), "0.wav"),
        ("a member of 8 GiB", matrix_model(), "0.tar", tar("0.npz", "77777777777"), "0.tar"),
    ];
    let mut failures = Failures::default();
    for (name, model, file, sample, text) in cases {
        let folder = folder();
        let fault = refused(&run(folder.path(), &model, file, &sample), &[text]);
        failures.check(fault.is_none(), || format!("{name}: {}", fault.unwrap_or_default()));
        failures.check(files_in(folder.path()) == ["calib", "model.onnx"], || format!("{name}: something was left"));
    }
    failures.finish();
}

#[test]
fn configurations_that_nest_without_end_are_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut failures = Failures::default();
    let mut check = |name: &str, run: &Run, text: &str| {
        let fault = refused(run, &[text]);
        failures.check(fault.is_none(), || format!("{name}: {}", fault.unwrap_or_default()));
    };
    std::fs::write(at("deep.toml"), format!("include = {deep}\n")).expect("it can be written");
    std::fs::write(at("long.toml"), "#".repeat(2 << 20)).expect("it can be written");
    let command =
        |config: &str| bounded(onnxquant(&["a.onnx", "b.onnx", "--weights-only", "--config"]).arg(at(config)));
    check("a deep configuration", &command("deep.toml"), "deep.toml");
    check("a long configuration", &command("long.toml"), "long.toml");
    let endless = bounded(&onnxquant(&["a.onnx", "b.onnx", "--weights-only", "--config", "/dev/zero"]));
    check("an endless configuration", &endless, "/dev/zero");

    std::fs::write(at("preprocessor_config.json"), format!("{{\"size\": {deep}}}")).expect("it can be written");
    let run_with = run(folder.path(), &picture_model(), "0.bmp", &bmp(4));
    check("a deep processor", &run_with, "preprocessor_config.json");
    std::fs::remove_file(at("preprocessor_config.json")).expect("it is there");
    let decoder = format!("{{\"decoder\": {deep}}}");
    for (name, text) in [("a deep tokenizer", &deep), ("a deep part of one", &decoder)] {
        let place = tempfile::tempdir_in(folder.path()).expect("a folder can be made");
        std::fs::write(place.path().join("tokenizer.json"), text).expect("it can be written");
        let run = run(place.path(), &ids_model(), "texts.txt", b"a text\n");
        check(name, &run, "tokenizer.json");
    }
    failures.finish();
}

/// Functions that call the next one twice each.
fn doubling(levels: usize) -> ModelProto {
    let named = |index: usize| format!("f{index}");
    let call = |index: usize, input: &str, output: &str| NodeProto {
        domain: Some("local".to_owned()),
        ..node(&named(index), &[input], &[output])
    };
    let opset = |domain: &str, version| OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) };
    let function = |index: usize| FunctionProto {
        name: Some(named(index)),
        domain: Some("local".to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["c".to_owned()],
        node: match index + 1 == levels {
            true => vec![node("Relu", &["a"], &["c"])],
            false => vec![call(index + 1, "a", "b"), call(index + 1, "b", "c")],
        },
        opset_import: vec![opset("", 17), opset("local", 1)],
        ..FunctionProto::default()
    };
    let mut model = matrix_model();
    model.opset_import = vec![opset("", 17), opset("local", 1)];
    model.functions = (0..levels).map(function).collect();
    let graph = model.graph.as_mut().expect("it has a graph");
    let output = graph.output[0].name().to_owned();
    let last = graph.node.iter_mut().find(|node| node.output[0] == output).expect("it is computed");
    last.output[0] = "before".to_owned();
    graph.node.push(call(0, "before", &output));
    model
}

#[test]
fn functions_that_double_without_end_are_refused() {
    let mut failures = Failures::default();
    for (levels, text) in [(25, "expand to more than"), (60, "")] {
        let folder = folder();
        let sample = [npy(1), vec![0; 64]].concat();
        let run = run(folder.path(), &doubling(levels), "0.npy", &sample);
        let fault = refused(&run, &[text]);
        failures.check(fault.is_none(), || format!("{levels} levels: {}", fault.unwrap_or_default()));
    }
    failures.finish();
}

/// The limits that are documented are those of the code.
#[test]
fn every_documented_limit_names_a_file() {
    let text = std::fs::read_to_string(root().join("docs/src/limits.md")).expect("it can be read");
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`"));
    let mut failures = Failures::default();
    for place in rows.filter_map(|row| row.rsplit('|').nth(1)).flat_map(|cell| cell.split(',')) {
        let place = place.trim().trim_matches('`');
        let (krate, path) = place.split_once('/').unwrap_or((place, ""));
        let file = root().join("crates").join(krate).join("src").join(path);
        failures.check(file.exists(), || format!("`{place}` is not there"));
    }
    failures.finish();
}
