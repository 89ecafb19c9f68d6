//! Which operators ONNX Runtime computes on 8-bit codes, and in which shape it must find them.
//!
//! The runtime fuses a node with the `DequantizeLinear` before each of its inputs and the `QuantizeLinear` after its
//! output. What it has a kernel for, and what else must hold, stands in its selectors and kernels, and was found by running
//! each form in ONNX Runtime 1.32:
//!
//! | kind | operators | the runtime's node |
//! |---|---|---|
//! | [`Kernel::Linear`] | Conv, Gemm, MatMul with a constant weight | `QLinearConv`, `QGemm`, `QLinearMatMul`, `MatMulIntegerToFloat` |
//! | [`Kernel::Product`] | MatMul of two activations | `QLinearMatMul`, `MatMulIntegerToFloat` |
//! | [`Kernel::Elementwise`] | Add, Mul, Concat: each input on its own scale | `QLinearAdd`, `QLinearMul`, `QLinearConcat` |
//! | [`Kernel::Unary`] | Sigmoid, LeakyRelu, AveragePool, GlobalAveragePool | `QLinearSigmoid`, ... |
//! | [`Kernel::Movement`] | MaxPool, Reshape, Transpose, ...: same scale on both sides | the operator itself, on codes |
//! | [`Kernel::Rescale`] | Mul or Div by a positive number | nothing: the same codes on another scale |
//!
//! Everything else is computed in float: LayerNormalization, Softmax, Gelu, Erf, Sub, Div, ...
//!
//! | operator | what its kernel on codes asks for | where that stands in ONNX Runtime |
//! |---|---|---|
//! | AveragePool | no dilations: it takes no such attribute; not both `ceil_mode` and `count_include_pad`: it divides by all of the window, ONNX by what lies in the padded input; 1 to 3 spatial axes | `qlinear_pool.cc` |
//! | GlobalAveragePool | a ratio of scales within bounds, or it throws ([`Unit::takes_scales`]) | `qlgavgpool.cpp` |
//! | MaxPool | no indices | `qdq_selector_action_transformer.cc`, `pool.cc` |
//! | Resize | `nearest`: other modes cut the fractions of codes | `upsample.cc` |
//! | Conv, Gemm, MatMul | a weight on codes; a bias of one number an output | `qdq_selectors.cc`, `qlinearconv.cc`, `quant_gemm.cc` |
//! | Movement | nothing but one scale on both sides | `qdq_selectors.cc` |
//!
//! The runtime does the same to nodes that are meant to stay in float: see [`crate::integer::keep_float`].
//!
//! A Relu, or a Clip from zero up, that is the only reader of a node vanishes into the codes' range: it belongs to
//! the node before it ([`Unit::tail`]).

use std::collections::HashMap;

use onnxquant_ir::{Graph, Node, NodeId, Origin, Use, ValueId, tensor};

use crate::find::sites::Site;
use crate::layers::{self, Bias, Layer};
use crate::write::add_to_bias::has_bias;

/// How the runtime computes a node on codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kernel {
    /// Conv, Gemm or MatMul with a constant weight.
    Linear,
    /// MatMul of two activations.
    Product,
    /// Each input and the result on a scale of its own.
    Elementwise,
    /// One input; the result on a scale of its own.
    Unary,
    /// One input; the result on the input's scale.
    Movement,
    /// One input times a positive number: the result has the input's codes.
    Rescale(f32),
}

/// A node that can run on codes, with the activation after it that costs nothing there.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The node.
    pub node: NodeId,
    /// Relu or Clip that vanishes into the range of the result.
    pub tail: Option<NodeId>,
    /// The upper end of a Clip in the tail: the runtime drops the Clip only if no code stands for more.
    pub ceiling: Option<f32>,
    /// How it is computed.
    pub kernel: Kernel,
    /// Slots and values that are read as codes.
    pub inputs: Vec<(usize, ValueId)>,
    /// The results (behind the tail).
    pub outputs: Vec<ValueId>,
    /// It runs on codes whatever that costs, unless it is named among those that must stay in float.
    pub is_wanted: bool,
}

impl Unit {
    /// Whether the runtime has a kernel that reads codes and writes floats.
    pub fn may_write_floats(&self, graph: &Graph) -> bool {
        let kernels = layers::layer(graph.node(self.node)).and_then(Layer::on_codes);
        let may = matches!(self.kernel, Kernel::Product | Kernel::Linear);
        may && kernels.is_some_and(|kernels| kernels.to_floats.is_some()) && self.tail.is_none()
    }

    /// Whether the kernel takes codes on the scale `input` to codes on the scale `output`.
    ///
    /// That of GlobalAveragePool takes `input / (output * size)` from 2^-32 to 256, for pictures of `size` from 1 to
    /// 2^24 elements.
    pub fn takes_scales(&self, graph: &Graph, input: f32, output: f32) -> bool {
        const LEAST_RATIO: f32 = 1.0 / 256.0;
        const MOST_RATIO: f32 = 256.0;
        let ratio = input / output;
        !graph.node(self.node).is("GlobalAveragePool") || (LEAST_RATIO..MOST_RATIO).contains(&ratio)
    }
}

/// All nodes that could run on codes, in execution order. `is_float` tells whether an activation holds 32-bit floats.
pub fn find_units(graph: &Graph, sites: &HashMap<NodeId, Site>, is_float: impl Fn(ValueId) -> bool) -> Vec<Unit> {
    graph.nodes().filter_map(|(id, node)| unit(graph, id, node, sites, &is_float)).collect()
}

fn unit(
    graph: &Graph,
    id: NodeId,
    node: &Node,
    sites: &HashMap<NodeId, Site>,
    is_float: &dyn Fn(ValueId) -> bool,
) -> Option<Unit> {
    let kernel = kernel(graph, id, node, sites)?;
    let read = match kernel {
        Kernel::Rescale(_) if node.input(0).is_some_and(|value| graph.value(value).constant().is_some()) => 1..2,
        Kernel::Linear | Kernel::Unary | Kernel::Movement | Kernel::Rescale(_) => 0..1,
        Kernel::Product => 0..2,
        Kernel::Elementwise => 0..node.inputs().len(),
    };
    let inputs = read.map(|slot| Some((slot, node.input(slot)?))).collect::<Option<Vec<_>>>()?;
    let computed = |value: ValueId| matches!(graph.value(value).origin(), Origin::Input | Origin::Output(..));
    let is_activation = |value: &ValueId| computed(*value) && is_float(*value);
    let usable = |&(_, value): &(usize, ValueId)| is_activation(&value) || is_float_constant(graph, value);
    let moves = matches!(kernel, Kernel::Movement | Kernel::Rescale(_));
    let tail = tail(graph, node).filter(|_| !moves);
    let outputs = match tail {
        Some(tail) => vec![graph.node(tail).output(0)?],
        None => node.outputs().iter().copied().flatten().collect(),
    };
    let captured = |value: &ValueId| graph.value(*value).uses().iter().any(|user| matches!(user, Use::Capture(_)));
    // The name of an output is moved with the first result of a node only.
    let renamed = if matches!(kernel, Kernel::Rescale(_)) { 0 } else { 1 };
    let named = outputs.iter().skip(renamed).any(|value| graph.is_output(*value));
    let fits = inputs.iter().all(usable)
        && inputs.iter().any(|(_, value)| is_activation(value))
        && outputs.iter().all(|value| is_activation(value) && !captured(value))
        && !named
        && !inputs.iter().any(|(_, value)| is_decoded(graph, *value))
        && !outputs.iter().any(|value| is_encoded(graph, *value));
    let ceiling = tail.and_then(|tail| end(graph, graph.node(tail), 2, "max"));
    fits.then_some(Unit { node: id, tail, ceiling, kernel, inputs, outputs, is_wanted: false })
}

fn kernel(graph: &Graph, id: NodeId, node: &Node, sites: &HashMap<NodeId, Site>) -> Option<Kernel> {
    if !node.domain().is_empty() {
        return None;
    }
    let constant = |slot| node.input(slot).is_none_or(|value| graph.value(value).constant().is_some());
    if let Some(site) = sites.get(&id) {
        // The integer bias is one number an output.
        let fits = site.layer.bias() == Bias::AddBehind || has_bias(graph, site);
        return site.layer.on_codes().filter(|_| fits).map(|_| Kernel::Linear);
    }
    match node.op_type() {
        "MatMul" => (!constant(0) && !constant(1)).then_some(Kernel::Product),
        "Mul" | "Div" if factor(graph, node).is_some() => factor(graph, node).map(Kernel::Rescale),
        "Add" | "Mul" | "Concat" => Some(Kernel::Elementwise),
        "Sigmoid" | "LeakyRelu" | "GlobalAveragePool" => Some(Kernel::Unary),
        "AveragePool" => averages_on_codes(node).then_some(Kernel::Unary),
        "MaxPool" => (node.outputs().len() == 1).then_some(Kernel::Movement),
        "Resize" => (node.text("mode", "nearest") == "nearest").then_some(Kernel::Movement),
        "Transpose" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Slice" | "Gather" | "Expand"
        | "DepthToSpace" | "Tile" | "Split" | "Identity" => Some(Kernel::Movement),
        _ => None,
    }
}

/// Whether the kernel on codes computes this AveragePool as ONNX says.
fn averages_on_codes(node: &Node) -> bool {
    let is_dilated = node.ints("dilations").is_some_and(|dilations| dilations.iter().any(|&by| by != 1));
    let counts_pads = node.int("ceil_mode", 0) != 0 && node.int("count_include_pad", 0) != 0;
    let spatial = node.ints("kernel_shape").map_or(0, <[i64]>::len);
    !is_dilated && !counts_pads && spatial <= 3
}

/// Whether the model itself has codes behind the value.
fn is_decoded(graph: &Graph, value: ValueId) -> bool {
    graph.producer(value).is_some_and(|(_, node)| node.is("DequantizeLinear"))
}

/// Whether the model itself makes codes of the value.
fn is_encoded(graph: &Graph, value: ValueId) -> bool {
    let encodes = |user: &Use| matches!(user, Use::Input(node, _) if graph.node(*node).is("QuantizeLinear"));
    graph.value(value).uses().iter().any(encodes)
}

/// The positive number by which a Mul or Div multiplies its other operand, whose shape it leaves.
fn factor(graph: &Graph, node: &Node) -> Option<f32> {
    let number = |slot| {
        let tensor = graph.value(node.input(slot)?).constant()?;
        let numbers = tensor::to_f32(tensor).ok().filter(|numbers| numbers.len() == 1 && tensor.dims.len() <= 1)?;
        Some(numbers[0])
    };
    let factor = match node.is("Div") {
        true => 1.0 / number(1)?,
        false => number(1).or_else(|| number(0))?,
    };
    (factor.is_normal() && factor > 0.0).then_some(factor)
}

fn is_float_constant(graph: &Graph, value: ValueId) -> bool {
    let found = graph.value(value);
    let is_f32 = |tensor| tensor::data_type(tensor) == Ok(onnxquant_ir::onnx::tensor_proto::DataType::Float);
    found.origin() == Origin::Constant && found.constant().is_some_and(is_f32)
}

/// The Relu or Clip that alone reads the node's result and does not cut below any code.
fn tail(graph: &Graph, node: &Node) -> Option<NodeId> {
    let [Use::Input(reader, 0)] = graph.value(node.output(0)?).uses() else { return None };
    let found = graph.node(*reader);
    let constant = |slot| found.input(slot).is_none_or(|value| graph.value(value).constant().is_some());
    let from_zero = constant(1) && constant(2) && end(graph, found, 1, "min") == Some(0.0);
    (found.is("Relu") || found.is("Clip") && from_zero).then_some(*reader)
}

/// One end of a Clip: the constant in `slot`, or the attribute `name` of old opsets.
fn end(graph: &Graph, clip: &Node, slot: usize, name: &str) -> Option<f32> {
    match clip.input(slot) {
        Some(value) => tensor::to_f32(graph.value(value).constant()?).ok()?.first().copied(),
        None => clip.attribute(name).map(onnxquant_ir::onnx::AttributeProto::f),
    }
}

#[cfg(test)]
#[path = "kernels_tests.rs"]
mod tests;
