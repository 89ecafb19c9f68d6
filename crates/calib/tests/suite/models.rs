//! Small models and data sets.

use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use onnxquant_calib::{CalibSet, DataOptions, InputSpec, Tensor, write_captures};
use onnxquant_proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};

/// A node named after its first output.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("node_{}", outputs[0])),
        input: inputs.iter().map(|s| (*s).into()).collect(),
        output: outputs.iter().map(|s| (*s).into()).collect(),
        ..NodeProto::default()
    }
}

/// A float input; a negative length stands for the symbol `n`.
pub fn input(name: &str, dims: &[i64]) -> ValueInfoProto {
    typed_input(name, dims, 1)
}

/// An input of any type of `TensorProto.DataType`; negative lengths are symbolic, equal ones the same symbol.
pub fn typed_input(name: &str, dims: &[i64], elem_type: i32) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |&n: &i64| Dimension {
        value: Some(if n < 0 { Value::DimParam(format!("n{}", n.abs())) } else { Value::DimValue(n) }),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(elem_type),
        shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

/// A float initializer with raw data.
pub fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        raw_data: Some(values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()),
        ..TensorProto::default()
    }
}

/// A graph-valued attribute.
pub fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        g: Some(Box::new(graph)),
        r#type: Some(AttributeType::Graph.into()),
        ..AttributeProto::default()
    }
}

/// A model of opset 13.
pub fn model(input: Vec<ValueInfoProto>, node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { version: Some(13), ..OperatorSetIdProto::default() }],
        graph: Some(GraphProto { name: Some("g".into()), input, node, initializer, ..GraphProto::default() }),
        ..ModelProto::default()
    }
}

/// Numbers that look random, the same every time.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        f32::from(i16::from_le_bytes([(state >> 40) as u8, (state >> 48) as u8])) / 32768.0
    };
    (0..n).map(|_| next()).collect()
}

/// Noise of a shape.
pub fn array(seed: u64, shape: &[usize]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(shape), noise(seed, shape.iter().product())).expect("the count is the shape's")
}

/// Writes one `.npz` file per sample and opens them for `model`.
pub fn data(folder: &Path, model: &ModelProto, samples: &[Vec<(&str, ArrayD<f32>)>]) -> CalibSet {
    for (index, sample) in samples.iter().enumerate() {
        let names: Vec<String> = sample.iter().map(|(name, _)| (*name).into()).collect();
        let values: Vec<Tensor> = sample.iter().map(|(_, array)| Tensor::F32(array.clone())).collect();
        write_captures(&folder.join(format!("{index:04}.npz")), &names, &values)
            .expect("a temporary folder is writable");
    }
    open(folder, model)
}

/// Opens a folder for `model`.
pub fn open(folder: &Path, model: &ModelProto) -> CalibSet {
    let graph = model.graph.as_ref().expect("the test's model has a graph");
    let inputs = InputSpec::from_graph(graph, model.ir_version.unwrap_or_default()).expect("inputs are tensors");
    CalibSet::open(folder, &inputs, &DataOptions::default()).expect("the test's data fits its model")
}
