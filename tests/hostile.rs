//! Files made to do harm: an error with exit code 2 in little memory, never a panic, never more.

use std::path::Path;
use std::process::Command;

use onnxquant::calib::{Tensor, write_captures};
use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};
use onnxquant_ir::{int_attribute, ints_attribute};

use crate::support::{
    Failures, Fixture, MatMulModel, bounded, external_tensor, files_in, folder, onnxquant, refused, write,
};

/// Inspects and quantizes what must be refused.
fn check(name: &str, model: &Path, texts: &[&str], failures: &mut Failures) {
    let output = model.with_file_name("out.onnx");
    let runs = [
        ("inspect", bounded(onnxquant(&["inspect"]).arg(model))),
        ("quantize", bounded(onnxquant(&[model, &output]).args(["--weights-only", "--threads", "2"]))),
    ];
    for (how, run) in runs {
        let fault = refused(&run, texts);
        failures.check(fault.is_none(), || format!("{name}, {how}: {}", fault.unwrap_or_default()));
    }
    failures.check(!output.exists(), || format!("{name}: refused and written"));
}

#[test]
fn sound_model_is_quantized_in_the_same_memory() {
    let folder = folder();
    let (model, output) = (Fixture::CNN.model(), folder.path().join("out.onnx"));
    bounded(onnxquant(&[model, output]).args(["--weights-only", "--threads", "2"])).succeeded();
}

#[test]
fn truncated_models_are_refused_at_every_length() {
    let folder = folder();
    let cut = folder.path().join("cut.onnx");
    let mut failures = Failures::default();
    for fixture in [Fixture::MLP, Fixture::CNN] {
        let whole = std::fs::read(fixture.model()).expect("the fixture can be read");
        let lengths = (1..40).map(|part| whole.len() * part / 40);
        for length in lengths.chain([0, 1, 2, 3, whole.len() - 1]) {
            std::fs::write(&cut, &whole[..length]).expect("it can be written");
            check(&format!("{} cut to {length} bytes", fixture.name), &cut, &["cut.onnx"], &mut failures);
        }
    }
    failures.finish();
}

#[test]
fn random_bytes_are_refused() {
    let folder = folder();
    let path = folder.path().join("noise.onnx");
    let mut failures = Failures::default();
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for length in [1, 2, 7, 64, 1000, 100_000] {
        for round in 0..8 {
            std::fs::write(&path, std::iter::repeat_with(&mut next).take(length).collect::<Vec<_>>())
                .expect("it can be written");
            check(&format!("noise {round} of {length} bytes"), &path, &["noise.onnx"], &mut failures);
        }
    }
    failures.finish();
}

/// One changed byte may leave a legal model: then there is a result. It is never a defect.
#[test]
fn changed_bytes_never_cause_a_panic() {
    let folder = folder();
    let (path, output) = (folder.path().join("changed.onnx"), folder.path().join("out.onnx"));
    let whole = std::fs::read(Fixture::CNN.model()).expect("the fixture can be read");
    // The first 3,000 bytes and the last hold most of the structure; between them lie weights.
    let places = (0..3000).step_by(31).chain(whole.len() - 1500..whole.len()).step_by(7);
    let mut failures = Failures::default();
    for (place, value) in places.flat_map(|place| [(place, 0xff), (place, whole[place] ^ 0x08)]) {
        let mut changed = whole.clone();
        changed[place] = value;
        std::fs::write(&path, changed).expect("it can be written");
        let run = bounded(onnxquant(&[&path, &output]).args(["--weights-only", "--threads", "2"]));
        let orderly = matches!(run.code, Some(0 | 2)) && !run.stderr.contains("panicked");
        failures.check(orderly, || format!("byte {place} = {value:#x}: {:?} {}", run.code, run.stderr));
    }
    failures.finish();
}

fn tensor(dims: &[i64], dtype: DataType, raw: &'static [u8]) -> TensorProto {
    TensorProto {
        name: Some("w".to_owned()),
        dims: dims.to_vec(),
        data_type: Some(dtype as i32),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

#[test]
fn tensors_that_claim_more_than_they_hold_are_refused() {
    const SHORT: &[u8] = &[0; 16];
    let cases = [
        ("giant dims", tensor(&[1 << 20, 1 << 20], DataType::Float, SHORT)),
        ("dims that overflow", tensor(&[1 << 62, 4], DataType::Float, SHORT)),
        ("dims that overflow to 16 bytes", tensor(&[1 << 32, 1 << 32], DataType::Float, SHORT)),
        ("bytes that overflow", tensor(&[1 << 61, 1], DataType::Double, SHORT)),
        ("negative dims", tensor(&[-2, -2], DataType::Float, SHORT)),
        ("giant 2-bit dims", tensor(&[1 << 40, 1 << 20], DataType::Int2, SHORT)),
    ];
    let folder = folder();
    let path = folder.path().join("claims.onnx");
    let mut failures = Failures::default();
    for (name, weight) in cases {
        write(&MatMulModel { k: 2, n: 2, weight }.proto(), &path);
        check(name, &path, &["`w`"], &mut failures);
    }
    failures.finish();
}

#[test]
fn external_paths_out_of_the_model_s_folder_are_refused() {
    let folder = folder();
    let inner = folder.path().join("inner");
    std::fs::create_dir_all(inner.join("sub")).expect("a folder can be made");
    let secret = folder.path().join("secret.bin");
    std::fs::write(&secret, [0u8; 16]).expect("it can be written");
    std::os::unix::fs::symlink(&secret, inner.join("link.bin")).expect("a link can be made");
    std::os::unix::fs::symlink(folder.path(), inner.join("up")).expect("a link can be made");
    std::os::unix::fs::symlink("loop.bin", inner.join("loop.bin")).expect("a link can be made");
    let absolute = secret.to_str().expect("the path is text");
    let locations = [
        "../secret.bin",
        "sub/../../secret.bin",
        absolute,
        "link.bin",
        "up/secret.bin",
        "loop.bin",
        "/dev/zero",
        "sub",
        ".",
    ];
    let path = inner.join("model.onnx");
    let mut failures = Failures::default();
    for location in locations {
        write(&MatMulModel { k: 2, n: 2, weight: external_tensor("w", &[2, 2], location) }.proto(), &path);
        check(location, &path, &["`w`"], &mut failures);
    }
    failures.finish();
}

#[test]
fn special_files_are_refused_and_not_waited_for() {
    let folder = folder();
    let pipe = folder.path().join("pipe.onnx");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo can be started").success());
    let mut failures = Failures::default();
    check("a named pipe", &pipe, &["pipe.onnx"], &mut failures);
    check("a folder", folder.path(), &[], &mut failures);
    for device in ["/dev/null", "/dev/zero"] {
        let fault = refused(&bounded(onnxquant(&["inspect"]).arg(device)), &[device]);
        failures.check(fault.is_none(), || format!("{device}: {}", fault.unwrap_or_default()));
    }
    failures.finish();
}

#[test]
fn ten_thousand_nested_bodies_are_refused() {
    let folder = folder();
    let path = folder.path().join("nested.onnx");
    let mut failures = Failures::default();
    for depth in [50, 10_000] {
        std::fs::write(&path, nested(depth)).expect("it can be written");
        check(&format!("{depth} bodies"), &path, &["nested.onnx"], &mut failures);
    }
    failures.finish();
}

/// A model of bodies within bodies, put together from bytes: encoding it as messages would nest as deep.
fn nested(depth: usize) -> Vec<u8> {
    let field = |number: u32, content: &[u8]| {
        let mut bytes = varint(u64::from(number << 3 | 2));
        bytes.extend(varint(content.len() as u64));
        bytes.extend(content);
        bytes
    };
    // Outermost last: each round copies, which is quadratic, but in a few megabytes.
    let mut graph = field(2, b"g");
    for _ in 0..depth {
        // AttributeProto { name: 1, g: 6, type: 20 }, NodeProto { op_type: 4, attribute: 5 }, GraphProto { node: 1 }
        let mut attribute = [field(1, b"then_branch"), field(6, &graph)].concat();
        attribute.extend(varint(20 << 3));
        attribute.extend(varint(AttributeType::Graph as u64));
        graph = field(1, &[field(4, b"If"), field(5, &attribute)].concat());
    }
    let opset = field(8, &[varint(2 << 3), varint(17)].concat());
    [varint(1 << 3), varint(8), opset, field(7, &graph)].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[test]
fn names_that_clash_and_cycles_are_refused() {
    let folder = folder();
    let path = folder.path().join("graph.onnx");
    let node = |inputs: [&str; 2], output: &str| NodeProto {
        op_type: Some("MatMul".to_owned()),
        input: inputs.map(str::to_owned).to_vec(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let cases = [
        ("two writers of one value", vec![node(["x", "w"], "y"), node(["x", "w"], "y")], "`y`"),
        ("a node that reads itself", vec![node(["y", "w"], "y")], "`y`"),
        ("a cycle", vec![node(["b", "w"], "a"), node(["a", "w"], "b"), node(["b", "w"], "y")], "`b`"),
        ("a writer of an initializer", vec![node(["x", "w"], "w"), node(["x", "w"], "y")], "`w`"),
        ("a value that nobody writes", vec![node(["x", "nothing"], "y")], "`nothing`"),
    ];
    let mut failures = Failures::default();
    for (name, nodes, text) in cases {
        let mut model = MatMulModel::new(2, 2).proto();
        model.graph.as_mut().expect("it has a graph").node = nodes;
        write(&model, &path);
        check(name, &path, &[text], &mut failures);
    }
    failures.finish();
}

/// The engine must not see these: it would take all memory, or end the process.
#[test]
fn attributes_beyond_what_their_operators_allow_are_refused() {
    let vector = || tensor(&[2], DataType::Float, &[0; 8]);
    let node = |op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>| NodeProto {
        name: Some("wrong".to_owned()),
        op_type: Some(op_type.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec!["z".to_owned()],
        attribute: attributes,
        ..NodeProto::default()
    };
    let giant = i64::from(i32::MAX);
    let cases = [
        (
            "a window of billions",
            node("MaxPool", &["x"], vec![ints_attribute("kernel_shape", &[2, giant])]),
            "kernel_shape",
        ),
        ("an axis of billions", node("LayerNormalization", &["y", "w"], vec![int_attribute("axis", giant)]), "axis"),
        ("a vector without channels", node("BatchNormalization", &["w"; 5], vec![]), "input 1"),
        ("steps of nothing", node("MaxPool", &["x"], vec![ints_attribute("strides", &[0, 0])]), "strides"),
    ];
    let folder = folder();
    let (path, calib) = (folder.path().join("wrong.onnx"), folder.path().join("calib"));
    std::fs::create_dir(&calib).expect("a folder can be made");
    let array = ndarray::ArrayD::from_elem(ndarray::IxDyn(&[1, 2]), 0.5);
    write_captures(&calib.join("0.npz"), &["x".to_owned()], &[Tensor::F32(array)]).expect("a sample can be written");
    let mut failures = Failures::default();
    for (name, node, text) in cases {
        let mut model = MatMulModel::new(2, 2).proto();
        let graph = model.graph.as_mut().expect("it has a graph");
        graph.initializer.push(TensorProto { name: Some("w2".to_owned()), ..graph.initializer[0].clone() });
        graph.initializer[0] = vector();
        graph.node[0].input[1] = "w2".to_owned();
        graph.node.push(node);
        graph.output[0].name = Some("z".to_owned());
        write(&model, &path);
        check(name, &path, &["`wrong`", text], &mut failures);
        let mut command = onnxquant(&[&path, &folder.path().join("out.onnx")]);
        let fault = refused(&bounded(command.arg("--calib").arg(&calib)), &["`wrong`", text]);
        failures.check(fault.is_none(), || format!("{name}, with data: {}", fault.unwrap_or_default()));
    }
    failures.finish();
}

#[test]
fn ten_thousand_nodes_in_a_row_are_read_in_bounded_memory() {
    let folder = folder();
    let (path, output) = (folder.path().join("long.onnx"), folder.path().join("out.onnx"));
    let mut model = MatMulModel::new(2, 2).proto();
    let chain = (0..10_000).map(|index| NodeProto {
        op_type: Some("Relu".to_owned()),
        input: vec![if index == 0 { "h".to_owned() } else { format!("r{index}") }],
        output: vec![if index == 9_999 { "y".to_owned() } else { format!("r{}", index + 1) }],
        ..NodeProto::default()
    });
    let graph: &mut GraphProto = model.graph.as_mut().expect("it has a graph");
    graph.node[0].output = vec!["h".to_owned()];
    graph.node.extend(chain);
    write(&model, &path);
    bounded(onnxquant(&[&path, &output]).args(["--weights-only", "--threads", "2"])).succeeded();
    assert_eq!(files_in(folder.path()), ["long.onnx", "out.onnx"]);
}
