//! Models made by hand.

use std::path::Path;

use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::{DataLocation, DataType};
use onnxquant_ir::onnx::tensor_shape_proto::{Dimension, dimension};
use onnxquant_ir::onnx::type_proto::{self, Tensor};
use onnxquant_ir::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
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

/// `x` goes through layers that all read one weight, with a bias each and a Relu behind each.
pub struct TiedModel {
    op_type: &'static str,
    layers: usize,
    weight: Vec<i64>,
    /// Of `x` and of the result.
    pub shape: Vec<i64>,
}

impl TiedModel {
    /// `layers` MatMuls of `[size, size]`.
    pub fn products(layers: usize, size: i64) -> Self {
        Self { op_type: "MatMul", layers, weight: vec![size, size], shape: vec![4, size] }
    }

    /// `layers` Convs of 3x3 on `channels` pictures of 12x12.
    pub fn convolutions(layers: usize, channels: i64) -> Self {
        let weight = vec![channels, channels, 3, 3];
        Self { op_type: "Conv", layers, weight, shape: vec![1, channels, 12, 12] }
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.weight.iter().product::<i64>() as usize
    }

    /// As a message.
    pub fn proto(&self) -> ModelProto {
        let (mut node, mut bias) = (Vec::new(), Vec::new());
        let mut input = "x".to_owned();
        for layer in 0..self.layers {
            let named = |what: &str| format!("{what}{layer}");
            bias.push(float_tensor(&named("b"), &self.weight[..1], noise(layer, self.weight[0] as usize, 0.2)));
            let output = if layer + 1 == self.layers { "y".to_owned() } else { named("relu") };
            let steps: &[(&str, Vec<String>, String)] = match self.op_type {
                "MatMul" => &[
                    ("MatMul", vec![input, "w".to_owned()], named("product")),
                    ("Add", vec![named("product"), named("b")], named("sum")),
                ],
                _ => &[("Conv", vec![input, "w".to_owned(), named("b")], named("sum"))],
            };
            node.extend(steps.iter().map(|(op_type, input, output)| operator(op_type, input, output)));
            node.push(operator("Relu", &[named("sum")], &output));
            input = output;
        }
        let inputs = self.weight[1..].iter().product::<i64>() as f32;
        let weight = float_tensor("w", &self.weight, noise(100, self.parameters(), (3.0 / inputs).sqrt()));
        let graph = GraphProto {
            name: Some("graph".to_owned()),
            node,
            initializer: std::iter::once(weight).chain(bias).collect(),
            input: vec![float_value("x", &self.shape)],
            output: vec![float_value("y", &self.shape)],
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
        ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
    }
}

fn operator(op_type: &str, input: &[String], output: &str) -> NodeProto {
    let pads = AttributeProto {
        name: Some("pads".to_owned()),
        r#type: Some(AttributeType::Ints as i32),
        ints: vec![1; 4],
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: Some(op_type.to_owned()),
        name: Some(format!("node_{output}")),
        input: input.to_vec(),
        output: vec![output.to_owned()],
        attribute: if op_type == "Conv" { vec![pads] } else { vec![] },
        ..NodeProto::default()
    }
}

/// Numbers between `-size` and `size` that look random.
pub fn noise(seed: usize, count: usize, size: f32) -> impl Iterator<Item = f32> {
    let mut state = seed as u32;
    (0..count).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 * size - size
    })
}

/// A value of f32 numbers.
pub(super) fn float_value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension { value: Some(dimension::Value::DimValue(size)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = Tensor { elem_type: Some(DataType::Float as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

/// A float tensor with these numbers.
pub(super) fn float_tensor(name: &str, dims: &[i64], numbers: impl Iterator<Item = f32>) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        raw_data: Some(numbers.flat_map(f32::to_le_bytes).collect::<Vec<_>>().into()),
        ..TensorProto::default()
    }
}

/// `x -> product -> Relu -> second = h`, then the nodes `middle`, which make `m` of `h`, then `m -> behind -> y`; all
/// values have the shape [4, 32].
pub fn chain_around(middle: Vec<NodeProto>, constants: Vec<TensorProto>) -> ModelProto {
    let weight = |name: &str, step: f32| {
        float_tensor(name, &[32, 32], (0..1024).map(|i| ((i * i % 1009) as f32 * step).sin() / 6.0))
    };
    let layer = |name: &str, inputs: [&str; 2], output: &str| NodeProto {
        name: Some(name.to_owned()),
        ..node("MatMul", &inputs, &[output])
    };
    let before = [layer("product", ["x", "w1"], "a"), node("Relu", &["a"], &["b"]), layer("second", ["b", "w2"], "h")];
    let nodes = before.into_iter().chain(middle).chain([layer("behind", ["m", "w3"], "y")]);
    let weights = [weight("w1", 0.7), weight("w2", 1.3), weight("w3", 2.1)];
    let graph = GraphProto {
        name: Some("graph".to_owned()),
        node: nodes.collect(),
        initializer: weights.into_iter().chain(constants).collect(),
        input: vec![float_value("x", &[4, 32])],
        output: vec![float_value("y", &[4, 32])],
        ..GraphProto::default()
    };
    ModelProto { graph: Some(graph), ..MatMulModel::new(1, 1).proto() }
}

/// A node of the default domain, without a name.
pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto { op_type: Some(op_type.to_owned()), input: own(inputs), output: own(outputs), ..NodeProto::default() }
}

/// A Loop that doubles the positive part of `h` three times; its body names the factor as the outer graph names a weight.
pub fn shadowing_loop() -> (Vec<NodeProto>, Vec<TensorProto>) {
    let kind = |name: &str, elem_type: DataType, dims: &[i64]| {
        let mut info = float_value(name, dims);
        if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|kind| kind.value.as_mut()) {
            tensor.elem_type = Some(elem_type as i32);
        }
        info
    };
    let body = GraphProto {
        name: Some("body".to_owned()),
        node: vec![
            node("Mul", &["state", "w1"], &["doubled"]),
            node("Relu", &["doubled"], &["next"]),
            node("Identity", &["go"], &["go_on"]),
        ],
        initializer: vec![float_tensor("w1", &[], std::iter::once(2.0))],
        input: vec![
            kind("step", DataType::Int64, &[]),
            kind("go", DataType::Bool, &[]),
            kind("state", DataType::Float, &[4, 32]),
        ],
        output: vec![kind("go_on", DataType::Bool, &[]), kind("next", DataType::Float, &[4, 32])],
        ..GraphProto::default()
    };
    let attribute = AttributeProto {
        name: Some("body".to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(body)),
        ..AttributeProto::default()
    };
    let repeat = NodeProto {
        name: Some("repeat".to_owned()),
        attribute: vec![attribute],
        ..node("Loop", &["times", "", "h"], &["m"])
    };
    let times = TensorProto {
        name: Some("times".to_owned()),
        data_type: Some(DataType::Int64 as i32),
        raw_data: Some(3i64.to_le_bytes().to_vec().into()),
        ..TensorProto::default()
    };
    (vec![repeat], vec![times])
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
