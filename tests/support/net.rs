//! Small networks, node by node.

use std::path::Path;

use onnxquant_ir::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use onnxquant_ir::tensor;

use super::models::{float_value, forget_lengths, node, noise, write};

/// A network that is put together node by node.
#[derive(Default)]
pub struct Net {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Net {
    /// Adds a node of one result, which has the node's name; attributes are those of `attributes`.
    pub fn node(&mut self, op_type: &str, inputs: &[&str], output: &str, attributes: &[AttributeProto]) -> &mut Self {
        self.nodes.push(NodeProto {
            name: Some(output.to_owned()),
            attribute: attributes.to_vec(),
            ..node(op_type, inputs, &[output])
        });
        self
    }

    /// Adds a node as it is.
    pub fn push(&mut self, node: NodeProto) -> &mut Self {
        self.nodes.push(node);
        self
    }

    /// Adds a constant of numbers that look random, between `-size` and `size`.
    pub fn random(&mut self, name: &str, dims: &[usize], size: f32) -> &mut Self {
        let numbers: Vec<f32> = noise(self.constants.len() + 1, dims.iter().product(), size).collect();
        self.constant(name, tensor::from_f32(dims, &numbers))
    }

    /// Adds a constant of integers.
    pub fn integers(&mut self, name: &str, numbers: &[i64]) -> &mut Self {
        self.constant(name, tensor::from_i64(&[numbers.len()], numbers))
    }

    /// Adds a constant.
    pub fn constant(&mut self, name: &str, tensor: TensorProto) -> &mut Self {
        self.constants.push(TensorProto { name: Some(name.to_owned()), ..tensor });
        self
    }

    /// The network from `x` of these dimensions to `y` of so many axes.
    pub fn model(self, opset: i64, dims: &[i64], rank: usize) -> ModelProto {
        let mut output = float_value("y", &vec![1; rank]);
        forget_lengths(&mut output);
        let graph = GraphProto {
            name: Some("graph".to_owned()),
            node: self.nodes,
            initializer: self.constants,
            input: vec![float_value("x", dims)],
            output: vec![output],
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) };
        ModelProto { ir_version: Some(9), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
    }
}

/// The shape of the input of [`embedding`].
pub const EMBEDDING_INPUT: [i64; 2] = [4, 32];

/// Rows of a table are added to `x`, and a MatMul of two layers follows.
pub fn embedding(path: &Path) {
    let mut net = Net::default();
    net.random("table", &[256, 32], 0.4).integers("places", &[3, 250, 17, 99]);
    net.random("w0", &[32, 48], 0.3).random("b0", &[48], 0.2).random("w1", &[48, 8], 0.3);
    net.node("Gather", &["table", "places"], "rows", &[]).node("Add", &["x", "rows"], "sum", &[]);
    net.node("MatMul", &["sum", "w0"], "a", &[]).node("Add", &["a", "b0"], "b", &[]).node("Relu", &["b"], "c", &[]);
    net.node("MatMul", &["c", "w1"], "y", &[]);
    write(&net.model(17, &EMBEDDING_INPUT, 2), path);
}
