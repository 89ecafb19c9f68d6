//! Graphs from bytes, and what passes make of them, held against the slow interpreter.
//!
//! Every byte string is a graph: a chain of layers, normalizations, constants and activations over two pictures, with
//! values that have several readers and weights that are computed. Each pass of those that prepare a model runs on it in
//! turn; behind each the graph must be valid and compute what it did.

use ndarray::ArrayD;
use onnxquant_ir::onnx::tensor_shape_proto::{Dimension, dimension};
use onnxquant_ir::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, type_proto};
use onnxquant_ir::{GraphError, Model, float_attribute, int_attribute, ints_attribute, tensor, verify};

use super::{floats, image, message, named, node, numbers, run};
use crate::prepare::{
    fold_affine::fold_affine, fold_batchnorm::fold_batchnorm, fold_integers::fold_integers, fold_pad::fold_pads,
    fold_weights::fold_weights, hard_sigmoid::fuse_hard_sigmoids, inline_layers::inline_layers,
    lift_constants::lift_constants, plain_forms::write_plain_forms,
};

/// Steps of a chain, at most.
const MOST_STEPS: usize = 12;
/// How far outputs may be apart, beside the largest number of them.
const TOLERANCE: f32 = 2e-3;

type Pass = (&'static str, fn(&mut Model) -> Result<usize, GraphError>);

/// As they run before a model is quantized; `lift_constants`, which comes before them, is no change to the interpreter.
const PASSES: [Pass; 7] = [
    ("fold_integers", |model| Ok(fold_integers(model))),
    ("fold_weights", |model| Ok(fold_weights(model))),
    ("write_plain_forms", |model| Ok(write_plain_forms(model))),
    ("fold_batchnorm", fold_batchnorm),
    ("fold_pads", fold_pads),
    ("fuse_hard_sigmoids", fuse_hard_sigmoids),
    ("fold_affine", fold_affine),
];

/// Checks every pass on the graph that `bytes` describe.
///
/// # Panics
/// A pass leaves an invalid graph, or one that computes something else.
pub fn check(bytes: &[u8]) {
    let proto = Builder::new(bytes).build();
    let mut model = Model::from_proto(proto).expect("what is built is valid");
    inline_layers(&mut model);
    lift_constants(&mut model);
    let input = image();
    let expected = run(&model, &input);
    for (name, pass) in PASSES {
        pass(&mut model).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(verify(&model), [], "{name}");
        let found = run(&model, &input);
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(&expected) {
            assert_same(found, expected, name);
        }
    }
}

fn assert_same(found: &ArrayD<f32>, expected: &ArrayD<f32>, pass: &str) {
    assert_eq!(found.shape(), expected.shape(), "{pass}");
    let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    // Beyond that rounding is all there is.
    if !largest.is_finite() || largest > 1e6 {
        return;
    }
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= TOLERANCE * (1.0 + largest), "{pass}: {worst} beside {largest}");
}

/// A value that is there.
#[derive(Clone)]
struct Known {
    name: String,
    shape: Vec<usize>,
}

/// Builds a graph out of bytes; where they end, zeros follow.
struct Builder<'a> {
    bytes: &'a [u8],
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    known: Vec<Known>,
}

impl<'a> Builder<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let x = Known { name: "x".to_owned(), shape: image().shape().to_vec() };
        Self { bytes, nodes: Vec::new(), constants: Vec::new(), known: vec![x] }
    }

    /// The next byte, less than `below`.
    fn next(&mut self, below: usize) -> usize {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(first) % below
    }

    fn build(mut self) -> ModelProto {
        let steps = 1 + self.next(MOST_STEPS);
        for _ in 0..steps {
            let on_pictures = self.last().shape.len() == 4;
            let picture: [fn(&mut Self); 9] = [
                Self::conv,
                Self::normalize,
                Self::constant,
                Self::activate,
                Self::pad,
                Self::spelled_out,
                Self::join,
                Self::flatten,
                Self::turned,
            ];
            let matrix: [fn(&mut Self); 5] =
                [Self::product, Self::constant, Self::activate, Self::join, Self::spelled_out];
            let step = if on_pictures { picture[self.next(picture.len())] } else { matrix[self.next(matrix.len())] };
            step(&mut self);
        }
        let also = self.next(4) == 0;
        let inner = self.next(self.known.len());
        let outputs: Vec<&str> = match &self.known[inner].name {
            name if also && *name != self.last().name && name != "x" => vec![name.as_str(), self.last().name.as_str()],
            _ => vec![self.last().name.as_str()],
        };
        let mut proto = message("x", vec![], self.nodes.clone(), &outputs.join(" "));
        if let Some(graph) = &mut proto.graph {
            graph.initializer.clone_from(&self.constants);
            let kind = graph.input[0].r#type.as_mut().and_then(|kind| kind.value.as_mut());
            if let Some(type_proto::Value::TensorType(kind)) = kind {
                let dim =
                    |&n: &usize| Dimension { value: Some(dimension::Value::DimValue(n as i64)), denotation: None };
                kind.shape = Some(TensorShapeProto { dim: self.known[0].shape.iter().map(dim).collect() });
            }
        }
        proto
    }

    fn last(&self) -> &Known {
        self.known.last().expect("there is the input")
    }

    /// What a step reads: mostly the last value.
    fn input(&mut self) -> Known {
        match self.next(5) {
            0 => {
                let (at, rank) = (self.next(self.known.len()), self.last().shape.len());
                let of_rank = self.known[at].shape.len() == rank;
                if of_rank { self.known[at].clone() } else { self.last().clone() }
            }
            _ => self.last().clone(),
        }
    }

    fn add(&mut self, op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>, shape: Vec<usize>) -> String {
        let name = format!("v{}", self.known.len());
        self.nodes.push(node(op_type, inputs, &[&name], attributes));
        self.known.push(Known { name: name.clone(), shape });
        name
    }

    /// A constant, as an initializer, behind an Identity, or as a product.
    fn weight(&mut self, tensor: TensorProto) -> String {
        let name = format!("c{}", self.constants.len());
        self.constants.push(named(&name, tensor));
        let made = format!("{name}_made");
        match self.next(6) {
            0 => self.nodes.push(node("Identity", &[&name], &[&made], vec![])),
            1 => {
                let two = format!("{name}_two");
                self.constants.push(named(&two, tensor::from_f32(&[], &[2.0])));
                self.nodes.push(node("Mul", &[&name, &two], &[&made], vec![]));
            }
            _ => return name,
        }
        made
    }

    /// Numbers that look random, other ones for every byte.
    fn random(&mut self, shape: &[usize]) -> TensorProto {
        let seed = self.next(256);
        floats(shape, seed)
    }

    fn conv(&mut self) {
        let input = self.input();
        let (channels, rows, columns) = (input.shape[1], input.shape[2], input.shape[3]);
        let (kernel, pad) = (1 + self.next(3), self.next(2));
        if rows + 2 * pad < kernel || columns + 2 * pad < kernel {
            return;
        }
        let by_channel = self.next(4) == 0;
        let out = if by_channel { channels } else { 1 + self.next(4) };
        let weight = self.random(&[out, if by_channel { 1 } else { channels }, kernel, kernel]);
        let weight = self.weight(weight);
        let bias = (self.next(2) == 0).then(|| self.random(&[out])).map(|bias| self.weight(bias));
        let mut attributes = vec![ints_attribute("pads", &[pad as i64; 4])];
        if by_channel {
            attributes.push(int_attribute("group", channels as i64));
        }
        let inputs: Vec<&str> = [input.name.as_str(), &weight].into_iter().chain(bias.as_deref()).collect();
        let size = |length: usize| length + 2 * pad + 1 - kernel;
        self.add("Conv", &inputs, attributes, vec![input.shape[0], out, size(rows), size(columns)]);
    }

    fn turned(&mut self) {
        let input = self.input();
        if input.shape[2] * input.shape[3] > 200 {
            return;
        }
        let out = 1 + self.next(3);
        let weight = self.random(&[input.shape[1], out, 2, 2]);
        let weight = self.weight(weight);
        let shape = vec![input.shape[0], out, input.shape[2] + 1, input.shape[3] + 1];
        self.add("ConvTranspose", &[&input.name, &weight], vec![], shape);
    }

    fn normalize(&mut self) {
        let input = self.input();
        let channels = input.shape[1];
        let mut vector = || {
            let tensor = self.random(&[channels]);
            self.weight(tensor)
        };
        let vectors = [vector(), vector(), vector()];
        let seed = self.next(256);
        let variance: Vec<f32> = numbers(channels, seed).iter().map(|x| x.abs() + 0.25).collect();
        let variance = self.weight(tensor::from_f32(&[channels], &variance));
        let inputs = [input.name.as_str(), &vectors[0], &vectors[1], &vectors[2], &variance];
        self.add("BatchNormalization", &inputs, vec![], input.shape.clone());
    }

    /// An operator with a constant: one number, one a channel, or one an element.
    fn constant(&mut self) {
        let input = self.input();
        let rank = input.shape.len();
        let shape = match self.next(4) {
            0 => vec![],
            1 => (0..rank).map(|axis| if axis == 1 { input.shape[1] } else { 1 }).collect(),
            2 => vec![1],
            _ => input.shape[1..].to_vec(),
        };
        let op_type = ["Add", "Mul", "Sub", "Div"][self.next(4)];
        let seed = self.next(256);
        let count = shape.iter().product();
        let given: Vec<f32> = numbers(count, seed).iter().map(|&x| if x == 0.0 { 1.0 } else { x }).collect();
        let constant = self.weight(tensor::from_f32(&shape, &given));
        let inputs = [input.name.as_str(), constant.as_str()];
        let turns = self.next(3) == 0;
        // What is divided by may come near zero.
        let inputs = if turns && op_type != "Div" { [inputs[1], inputs[0]] } else { inputs };
        self.add(op_type, &inputs, vec![], input.shape);
    }

    fn activate(&mut self) {
        let input = self.input();
        let op_type = ["Relu", "Sigmoid", "LeakyRelu", "HardSwish", "HardSigmoid", "Identity"][self.next(6)];
        let attributes = if op_type == "LeakyRelu" { vec![float_attribute("alpha", 0.125)] } else { vec![] };
        self.add(op_type, &[&input.name], attributes, input.shape);
    }

    /// A hard sigmoid, or what looks like one.
    fn spelled_out(&mut self) {
        let input = self.input();
        let number = |builder: &mut Self, x: f32| builder.weight(tensor::from_f32(&[], &[x]));
        let three = [3.0, 2.0][self.next(2)];
        let three = number(self, three);
        let sum = self.add("Add", &[&input.name, &three], vec![], input.shape.clone());
        let (low, high) = (number(self, 0.0), number(self, 6.0));
        let clipped = self.add("Clip", &[&sum, &low, &high], vec![], input.shape.clone());
        let six = number(self, 6.0);
        let gate = self.add("Div", &[&clipped, &six], vec![], input.shape.clone());
        if self.next(2) == 0 {
            self.add("Mul", &[&input.name, &gate], vec![], input.shape);
        }
    }

    fn pad(&mut self) {
        let input = self.input();
        let (before, after) = (self.next(3), self.next(3));
        let pads = [0, 0, before as i64, 0, 0, 0, after as i64, 1];
        let name = format!("c{}", self.constants.len());
        self.constants.push(named(&name, tensor::from_i64(&[8], &pads)));
        let shape = vec![input.shape[0], input.shape[1], input.shape[2] + before + after, input.shape[3] + 1];
        self.add("Pad", &[&input.name, &name], vec![], shape);
    }

    /// The sum of two values of one shape.
    fn join(&mut self) {
        let last = self.last().clone();
        let at = self.next(self.known.len());
        if let Some(other) = self.known[at..].iter().find(|known| known.shape == last.shape).cloned() {
            self.add("Add", &[&last.name, &other.name], vec![], last.shape);
        }
    }

    fn flatten(&mut self) {
        let input = self.last().clone();
        let columns = input.shape[1..].iter().product();
        self.add("Flatten", &[&input.name], vec![int_attribute("axis", 1)], vec![input.shape[0], columns]);
    }

    fn product(&mut self) {
        let input = self.input();
        let (k, m) = (input.shape[1], 1 + self.next(6));
        let shape = vec![input.shape[0], m];
        if self.next(2) == 0 {
            let weight = self.random(&[k, m]);
            let weight = self.weight(weight);
            self.add("MatMul", &[&input.name, &weight], vec![], shape);
            return;
        }
        let turned = self.next(2) == 1;
        let weight = if turned { self.random(&[m, k]) } else { self.random(&[k, m]) };
        let weight = self.weight(weight);
        let bias = (self.next(2) == 0).then(|| self.random(&[m])).map(|bias| self.weight(bias));
        let inputs: Vec<&str> = [input.name.as_str(), &weight].into_iter().chain(bias.as_deref()).collect();
        let factor = [1.0, 0.5, -2.0][self.next(3)];
        let attributes = vec![
            int_attribute("transB", i64::from(turned)),
            float_attribute("alpha", factor),
            float_attribute("beta", if bias.is_some() { factor * 3.0 } else { 1.0 }),
        ];
        self.add("Gemm", &inputs, attributes, shape);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    /// What the fuzz target once failed on.
    #[test]
    fn no_graph_that_once_failed_fails_again() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/regressions/passes");
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            super::check(&std::fs::read(entry.unwrap().path()).unwrap());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn passes_leave_what_random_graphs_compute(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            super::check(&bytes);
        }
    }
}
