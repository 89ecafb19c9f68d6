//! Reading, writing and printing whole models, fixtures among them.

#[cfg(unix)]
mod atomic;
mod dump;
#[cfg(unix)]
mod external;
mod round_trip;

use std::path::{Path, PathBuf};

use onnxquant_ir::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use onnxquant_ir::{Model, tensor};

fn traps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/traps")
}

fn trap(name: &str) -> Model {
    let path = traps().join(name);
    Model::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A sum of `x` and every constant.
fn message(constants: Vec<TensorProto>) -> ModelProto {
    let info = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
    let names = constants.iter().map(|tensor| tensor.name().to_owned());
    let sum = NodeProto {
        op_type: Some("Sum".to_owned()),
        input: std::iter::once("x".to_owned()).chain(names).collect(),
        output: vec!["y".to_owned()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: Some("g".to_owned()),
        node: vec![sum],
        initializer: constants,
        input: vec![info("x")],
        output: vec![info("y")],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { version: Some(21), ..OperatorSetIdProto::default() }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn floats(name: &str, count: usize) -> TensorProto {
    let numbers = (0..count).map(|index| index as f32 / 8.0).collect::<Vec<_>>();
    TensorProto { name: Some(name.to_owned()), ..tensor::from_f32(&[count], &numbers) }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
    names.sort();
    names
}
