//! Chains of layers with weights that look random.

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use onnxquant::calib::{Tensor, write_captures};
use onnxquant_ir::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use onnxquant_ir::{int_attribute, ints_attribute};

use super::models::{MatMulModel, float_tensor, float_value, node, noise};

/// A model in the making: layers one behind the other, each with a bias and a Relu.
pub struct Chain {
    graph: GraphProto,
    shape: Vec<i64>,
    last: String,
}

impl Chain {
    /// Nothing but the input `x`.
    pub fn new(shape: &[i64]) -> Self {
        let graph = GraphProto {
            name: Some("chain".to_owned()),
            input: vec![float_value("x", shape)],
            ..GraphProto::default()
        };
        Self { graph, shape: shape.to_vec(), last: "x".to_owned() }
    }

    /// A MatMul from `inputs` to `outputs`, and the Add of its bias.
    pub fn matmul(mut self, inputs: i64, outputs: i64) -> Self {
        let (weight, bias) = self.constants(&[inputs, outputs], outputs, inputs);
        let product = self.push("MatMul", vec![weight], vec![]);
        self.last = product;
        self.last = self.push("Add", vec![bias], vec![]);
        self.relu()
    }

    /// A Gemm from `inputs` to `outputs`.
    pub fn gemm(mut self, inputs: i64, outputs: i64, transposed: bool) -> Self {
        let dims = if transposed { [outputs, inputs] } else { [inputs, outputs] };
        let (weight, bias) = self.constants(&dims, outputs, inputs);
        self.last = self.push("Gemm", vec![weight, bias], vec![int_attribute("transB", transposed.into())]);
        self.relu()
    }

    /// A Conv with a weight of these dimensions that keeps odd windows centred.
    pub fn conv(mut self, dims: &[i64], group: i64) -> Self {
        let inputs = dims[1..].iter().product();
        let (weight, bias) = self.constants(dims, dims[0], inputs);
        let half: Vec<i64> = dims[2..].iter().map(|size| size / 2).collect();
        let attributes =
            vec![int_attribute("group", group), ints_attribute("pads", &[half.as_slice(), &half].concat())];
        self.last = self.push("Conv", vec![weight, bias], attributes);
        self.relu()
    }

    fn constants(&mut self, dims: &[i64], outputs: i64, inputs: i64) -> (String, String) {
        let number = self.graph.initializer.len();
        let names = (format!("w{number}"), format!("b{number}"));
        let size = (3.0 / inputs as f32).sqrt();
        let weights = noise(number + 300, dims.iter().product::<i64>() as usize, size);
        let biases = noise(number + 600, outputs as usize, 0.2);
        let tensors: [TensorProto; 2] =
            [float_tensor(&names.0, dims, weights), float_tensor(&names.1, &[outputs], biases)];
        self.graph.initializer.extend(tensors);
        names
    }

    fn relu(mut self) -> Self {
        self.last = self.push("Relu", vec![], vec![]);
        self
    }

    /// A node that reads the last value; returns what it makes.
    fn push(&mut self, op_type: &str, constants: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let output = format!("v{}", self.graph.node.len());
        let inputs: Vec<&str> =
            std::iter::once(self.last.as_str()).chain(constants.iter().map(String::as_str)).collect();
        let name = Some(format!("node_{output}"));
        let made = NodeProto { name, attribute, ..node(op_type, &inputs, &[&output]) };
        self.graph.node.push(made);
        output
    }

    /// As a message.
    pub fn proto(&self) -> ModelProto {
        let output = ValueInfoProto { name: Some(self.last.clone()), ..float_value("y", &[]) };
        let output = without_shape(output);
        let graph = GraphProto { output: vec![output], ..self.graph.clone() };
        ModelProto { graph: Some(graph), ..MatMulModel::new(1, 1).proto() }
    }

    /// Writes samples of the input into a new folder.
    pub fn samples(&self, folder: &Path, count: usize) -> Vec<PathBuf> {
        noise_samples(folder, &self.shape, count)
    }
}

fn without_shape(mut info: ValueInfoProto) -> ValueInfoProto {
    use onnxquant_ir::onnx::type_proto::Value::TensorType;
    if let Some(TensorType(tensor)) = info.r#type.as_mut().and_then(|kind| kind.value.as_mut()) {
        tensor.shape = None;
    }
    info
}

/// Writes samples of `x` that look random into a new folder; returns their paths.
pub fn noise_samples(folder: &Path, shape: &[i64], count: usize) -> Vec<PathBuf> {
    std::fs::create_dir(folder).expect("a folder can be made");
    let shape: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
    let sample = |index: usize| {
        let numbers = noise(index + 1000, shape.iter().product(), 1.0).collect();
        let array = ArrayD::from_shape_vec(shape.clone(), numbers).expect("as many numbers as the shape has");
        let path = folder.join(format!("{index:02}.npz"));
        write_captures(&path, &["x".to_owned()], &[Tensor::F32(array)]).expect("a sample can be written");
        path
    };
    (0..count).map(sample).collect()
}
