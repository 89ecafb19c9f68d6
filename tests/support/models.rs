//! Models made by hand.

use std::path::Path;

use onnxquant_ir::onnx::tensor_proto::{DataLocation, DataType};
use onnxquant_ir::onnx::tensor_shape_proto::{Dimension, dimension};
use onnxquant_ir::onnx::type_proto::{self, Tensor};
use onnxquant_ir::onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

/// `y = x w` with `x` of shape [1, k].
pub struct MatMulModel {
    pub k: i64,
    pub n: i64,
    pub weight: TensorProto,
}

impl MatMulModel {
    /// With weights that differ from each other and lie in -1..1.
    pub fn new(k: i64, n: i64) -> Self {
        let weight = float_tensor("w", &[k, n], (0..k * n).map(|i| (i as f32 * 0.7).sin()));
        Self { k, n, weight }
    }

    /// As a message.
    pub fn proto(&self) -> ModelProto {
        let text = |text: &str| Some(text.to_owned());
        let node = NodeProto {
            op_type: text("MatMul"),
            name: text("product"),
            input: vec!["x".to_owned(), "w".to_owned()],
            output: vec!["y".to_owned()],
            ..NodeProto::default()
        };
        let graph = GraphProto {
            name: text("graph"),
            node: vec![node],
            initializer: vec![self.weight.clone()],
            input: vec![float_value("x", &[1, self.k])],
            output: vec![float_value("y", &[1, self.n])],
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { domain: text(""), version: Some(17) }],
            graph: Some(graph),
            ..ModelProto::default()
        }
    }
}

fn float_value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension { value: Some(dimension::Value::DimValue(size)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = Tensor { elem_type: Some(DataType::Float as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

/// A float tensor with these numbers.
fn float_tensor(name: &str, dims: &[i64], numbers: impl Iterator<Item = f32>) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        raw_data: Some(numbers.flat_map(f32::to_le_bytes).collect::<Vec<_>>().into()),
        ..TensorProto::default()
    }
}

/// A float tensor whose bytes lie in another file.
pub fn external_tensor(name: &str, dims: &[i64], location: &str) -> TensorProto {
    let entry = StringStringEntryProto { key: Some("location".to_owned()), value: Some(location.to_owned()) };
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        data_location: Some(DataLocation::External as i32),
        external_data: vec![entry],
        ..TensorProto::default()
    }
}

/// Writes a message, whatever it is worth.
pub fn write(model: &ModelProto, path: &Path) {
    let mut file = std::fs::File::create(path).expect("the file can be made");
    onnxquant_proto::encode_to_writer(model, &mut file).expect("the message can be encoded");
}
