//! Turns operators that compute on codes into float ones between `DequantizeLinear` and `QuantizeLinear`.
//!
//! Other tools write quantized models in two further ways. Static ones ("QOperator") have an operator for codes in place of
//! each float one: `QLinearConv`, `QLinearMatMul` and those of com.microsoft, with scales and zero points as inputs. Dynamic
//! ones have `DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul` (or `ConvInteger`, or the operators that ONNX Runtime
//! makes of them), which stand for the product of the floats before the first and of what the codes of the weight stand for.
//! Source: the ONNX operator specification, and ONNX Runtime's list of contributed operators.
//!
//! Between operators of the first kind others move codes as they are (`MaxPool`, `Reshape`, ...). They are given floats, too,
//! so that every `QuantizeLinear` stands in front of its `DequantizeLinear`.
//!
//! Left alone: operators that are missing here, int32 biases whose scales are no constants, and sums of integer products
//! that something else reads.

use std::collections::HashMap;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, GraphError, Model, NewNode, Node, NodeId, TensorError, ValueId, int_attribute, tensor};

use crate::decode::decode_weights::DecodeError;
use crate::graph::insert::{append, insert};
use crate::graph::readers::only_reader;
use crate::runtime::nbits::MICROSOFT;

/// An operator for codes, and the float one that it stands for.
struct Form {
    domain: &'static str,
    op_type: &'static str,
    float: &'static str,
    operands: Operands,
    /// Where the int32 bias is, whose scale is the product of those of the operands.
    bias: Option<usize>,
    /// Where the scale of the result is; its zero point follows.
    result: usize,
    /// Attributes that the float operator does not have.
    dropped: &'static [&'static str],
}

/// Slots of codes, each with a scale and a zero point behind it.
enum Operands {
    One,
    /// With the axis of several scales of the second one.
    Two(fn(&Node) -> i64),
    /// All from this slot on.
    From(usize),
}

const fn unary(op_type: &'static str, float: &'static str) -> Form {
    let dropped = &["channels_last", "opset"];
    Form { domain: MICROSOFT, op_type, float, operands: Operands::One, bias: None, result: 3, dropped }
}

const fn binary(domain: &'static str, op_type: &'static str, float: &'static str, axis: fn(&Node) -> i64) -> Form {
    Form { domain, op_type, float, operands: Operands::Two(axis), bias: None, result: 6, dropped: &[] }
}

/// One row an operator.
const FORMS: [Form; 11] = [
    Form { bias: Some(8), ..binary("", "QLinearConv", "Conv", |_| 0) },
    binary("", "QLinearMatMul", "MatMul", |_| -1),
    Form { bias: Some(6), result: 7, ..binary(MICROSOFT, "QGemm", "Gemm", |gemm| 1 - gemm.int("transB", 0)) },
    binary(MICROSOFT, "QLinearAdd", "Add", |_| 0),
    binary(MICROSOFT, "QLinearMul", "Mul", |_| 0),
    unary("QLinearLeakyRelu", "LeakyRelu"),
    unary("QLinearSigmoid", "Sigmoid"),
    unary("QLinearSoftmax", "Softmax"),
    unary("QLinearGlobalAveragePool", "GlobalAveragePool"),
    unary("QLinearAveragePool", "AveragePool"),
    Form { operands: Operands::From(2), result: 0, ..unary("QLinearConcat", "Concat") },
];

/// Operators that move elements and compute nothing with them, but for the largest of some; their first input is the data.
pub(crate) const MOVERS: [&str; 12] = [
    "MaxPool",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Gather",
    "Identity",
    "Expand",
    "DepthToSpace",
    "SpaceToDepth",
];

/// Makes float operators of those of the main graph; returns how many.
pub fn expand_integer_operators(model: &mut Model) -> Result<usize, DecodeError> {
    let graph = model.graph_mut();
    let mut expanded = 0;
    let mut decoded = HashMap::new();
    // None of them goes with another one.
    let on_codes: Vec<NodeId> = graph.nodes().filter(|(_, node)| is_on_codes(node)).map(|(id, _)| id).collect();
    for id in on_codes {
        let done = match (Form::of(graph.node(id)), Dynamic::find(graph, id)) {
            (Some(form), _) => form.expand(graph, id, &mut decoded)?,
            (None, Some(dynamic)) => {
                dynamic.replace(graph, id);
                true
            }
            (None, None) => false,
        };
        expanded += usize::from(done);
    }
    if expanded > 0 {
        move_floats(graph)?;
    }
    Ok(expanded)
}

/// Whether `node` is an operator that this file may know how to turn into a float one.
fn is_on_codes(node: &Node) -> bool {
    const PRODUCTS: [(&str, &str); 4] = [
        ("", "MatMulInteger"),
        ("", "ConvInteger"),
        (MICROSOFT, "DynamicQuantizeMatMul"),
        (MICROSOFT, "MatMulIntegerToFloat"),
    ];
    PRODUCTS.contains(&(node.domain(), node.op_type())) || Form::of(node).is_some()
}

/// What a `DequantizeLinear` makes, by what it reads.
type Decoded = HashMap<[Option<ValueId>; 3], ValueId>;

impl Form {
    fn of(node: &Node) -> Option<&'static Self> {
        FORMS.iter().find(|form| (form.domain, form.op_type) == (node.domain(), node.op_type()))
    }

    /// Whether the node could be turned into its float operator.
    fn expand(&self, graph: &mut Graph, id: NodeId, decoded: &mut Decoded) -> Result<bool, TensorError> {
        let node = graph.node(id);
        if node.int("channels_last", 0) != 0 {
            return Ok(false);
        }
        let inputs = node.inputs().to_vec();
        let given = |slot: usize| inputs.get(slot).copied().flatten();
        let operand = |slot: usize, axis: i64| Some(([given(slot), given(slot + 1), given(slot + 2)], axis));
        let operands: Option<Vec<_>> = match self.operands {
            Operands::One => [operand(0, 0)].into_iter().collect(),
            Operands::Two(axis) => [operand(0, 0), operand(3, axis(node))].into_iter().collect(),
            Operands::From(first) => (first..inputs.len()).step_by(3).map(|slot| operand(slot, 0)).collect(),
        };
        let Some(operands) = operands.filter(|all| all.iter().all(|(triple, _)| triple[1].is_some())) else {
            return Ok(false);
        };
        let bias = match self.bias.and_then(given) {
            Some(codes) => match float_bias(graph, codes, &operands, node.float("alpha", 1.0))? {
                Some(bias) => Some(bias),
                None => return Ok(false),
            },
            None => None,
        };
        let label = graph.label(id).to_owned();
        let floats: Vec<ValueId> =
            operands.into_iter().map(|(triple, axis)| decode(graph, id, triple, axis, decoded)).collect();
        graph.set_operator(id, "", self.float);
        self.dropped.iter().for_each(|name| drop(graph.remove_attribute(id, name)));
        graph.truncate_inputs(id, 0);
        floats.into_iter().enumerate().for_each(|(slot, value)| graph.set_input(id, slot, Some(value)));
        if let Some(bias) = bias {
            let bias = graph.add_constant(&format!("{label}_bias"), bias);
            graph.set_input(id, 2, Some(bias));
        }
        // QGemm without a scale for its result makes floats.
        if let Some(scale) = given(self.result) {
            let encoder = append(graph, id, "QuantizeLinear", format!("{label}_float"));
            graph.set_input(encoder, 1, Some(scale));
            given(self.result + 1).into_iter().for_each(|zero| graph.set_input(encoder, 2, Some(zero)));
        }
        inputs.into_iter().flatten().for_each(|value| graph.remove_if_unused(value));
        Ok(true)
    }
}

/// The floats that codes stand for: `triple` has these, scale and zero point.
fn decode(
    graph: &mut Graph,
    before: NodeId,
    triple: [Option<ValueId>; 3],
    axis: i64,
    decoded: &mut Decoded,
) -> ValueId {
    if let Some(&found) = decoded.get(&triple) {
        return found;
    }
    let is_single = triple[1].and_then(|scale| graph.value(scale).constant()).is_none_or(|scale| scale.dims.is_empty());
    let attributes = if is_single { vec![] } else { vec![int_attribute("axis", axis)] };
    let name = triple[0].map_or(String::new(), |codes| graph.value(codes).name().to_owned());
    let inputs: Vec<ValueId> = triple.into_iter().flatten().collect();
    let made = insert(graph, before, "DequantizeLinear", &inputs, format!("{name}_dequantized"), attributes);
    decoded.insert(triple, made);
    made
}

/// A bias of int32 codes as floats; none where its scales are not known.
fn float_bias(
    graph: &Graph,
    codes: ValueId,
    operands: &[([Option<ValueId>; 3], i64)],
    alpha: f32,
) -> Result<Option<onnxquant_ir::onnx::TensorProto>, TensorError> {
    let Some(codes) = graph.value(codes).constant().filter(|codes| codes.data_type() == i32::from(DataType::Int32))
    else {
        return Ok(None);
    };
    let dims = tensor::shape(codes)?;
    let raw = tensor::to_raw(codes)?;
    let mut bias: Vec<f32> =
        raw.as_chunks::<4>().0.iter().map(|bytes| alpha * i32::from_le_bytes(*bytes) as f32).collect();
    for (triple, _) in operands {
        let Some(scale) = triple[1].and_then(|scale| graph.value(scale).constant()) else { return Ok(None) };
        let scales = tensor::to_f32(scale)?;
        if scales.len() != 1 && scales.len() != bias.len() {
            return Ok(None);
        }
        bias.iter_mut().zip(scales.iter().cycle()).for_each(|(number, scale)| *number *= scale);
    }
    Ok(Some(tensor::from_f32(&dims, &bias)))
}

/// A product of codes that were made at run time.
struct Dynamic {
    float: &'static str,
    /// The floats before they were quantized.
    input: ValueId,
    weight: [Option<ValueId>; 3],
    bias: Option<ValueId>,
    /// The node that makes the floats of the product.
    last: NodeId,
}

impl Dynamic {
    fn find(graph: &Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id);
        match (node.domain(), node.op_type()) {
            ("", "MatMulInteger") => Self::of_integers(graph, node, "MatMul"),
            ("", "ConvInteger") => Self::of_integers(graph, node, "Conv"),
            (MICROSOFT, "DynamicQuantizeMatMul") => {
                let weight = [1, 2, 3].map(|slot| node.input(slot));
                Some(Self { float: "MatMul", input: node.input(0)?, weight, bias: node.input(4), last: id })
            }
            (MICROSOFT, "MatMulIntegerToFloat") => {
                let input = quantized(graph, node.input(0)?, node.input(2)?, node.input(4))?;
                let weight = [1, 3, 5].map(|slot| node.input(slot));
                Some(Self { float: "MatMul", input, weight, bias: node.input(6), last: id })
            }
            _ => None,
        }
    }

    /// `Cast` and `Mul` with the product of both scales behind integers.
    fn of_integers(graph: &Graph, node: &Node, float: &'static str) -> Option<Self> {
        let behind = |value: ValueId, op_type: &str| {
            let (id, _) = only_reader(graph, value)?;
            Some((id, graph.node(id))).filter(|(_, node)| node.is(op_type))
        };
        let sums = behind(node.output(0)?, "Cast")?.1.output(0)?;
        let (last, product) = behind(sums, "Mul")?;
        let other = |node: &Node, value: ValueId| node.inputs().iter().flatten().copied().find(|&it| it != value);
        let (_, scales) = graph.producer(other(product, sums)?).filter(|(_, node)| node.is("Mul"))?;
        let (_, encoder) = graph.producer(node.input(0)?).filter(|(_, node)| node.is("DynamicQuantizeLinear"))?;
        let of_input = encoder.output(1)?;
        let scale = other(scales, of_input).filter(|_| scales.inputs().contains(&Some(of_input)))?;
        let constant = graph.value(scale).constant()?;
        // A convolution has its channels elsewhere than a product.
        let fits = matches!(constant.dims[..], [] | [1]) || (float == "MatMul" && constant.dims.len() == 1);
        let input = quantized(graph, node.input(0)?, of_input, node.input(2)).filter(|_| fits)?;
        let weight = [node.input(1), Some(scale), node.input(3)];
        Some(Self { float, input, weight, bias: None, last })
    }

    fn replace(self, graph: &mut Graph, id: NodeId) {
        let Self { float, input, weight, bias, last } = self;
        let (label, attributes) = (graph.label(id).to_owned(), graph.node(id).attributes().to_vec());
        let weight = decode(graph, last, weight, -1, &mut HashMap::new());
        let inputs = vec![Some(input), Some(weight)];
        let outputs = vec![format!("{label}_float")];
        let product = NewNode { op_type: float, name: label.clone(), inputs, outputs, attributes };
        let product = graph.insert_before(last, product);
        let mut made = product;
        if let Some(bias) = bias {
            made = append(graph, product, "Add", format!("{label}_before_bias"));
            graph.set_input(made, 1, Some(bias));
        }
        graph.swap_outputs(made, 0, last);
        let gone = graph.node(last).output(0);
        gone.into_iter().for_each(|value| graph.remove_if_unused(value));
    }
}

/// The floats of which a `DynamicQuantizeLinear` makes `codes`, where scale and zero point are its own.
fn quantized(graph: &Graph, codes: ValueId, scale: ValueId, zero_point: Option<ValueId>) -> Option<ValueId> {
    let (_, encoder) = graph.producer(codes).filter(|(_, node)| node.is("DynamicQuantizeLinear"))?;
    let is_own = encoder.outputs() == [Some(codes), Some(scale), zero_point];
    encoder.input(0).filter(|_| is_own)
}

/// Lets operators that move codes in front of a `DequantizeLinear` move floats.
fn move_floats(graph: &mut Graph) -> Result<(), GraphError> {
    let is_decoder = |(_, node): &(NodeId, &Node)| node.is("DequantizeLinear");
    let mut decoders: Vec<NodeId> = graph.nodes().filter(is_decoder).map(|(id, _)| id).collect();
    while let Some(decoder) = decoders.pop() {
        let node = graph.node(decoder);
        let (Some(codes), Some(real)) = (node.input(0), node.output(0)) else { continue };
        let parameters: Vec<ValueId> = node.inputs().iter().skip(1).flatten().copied().collect();
        let scale = parameters.first().and_then(|&scale| graph.value(scale).constant());
        let is_single = scale.is_some_and(|scale| matches!(scale.dims[..], [] | [1]));
        let is_moved = |(_, node): &(NodeId, &Node)| {
            node.domain().is_empty() && MOVERS.contains(&node.op_type()) && node.outputs().len() == 1
        };
        let Some((mover, data)) = graph.producer(codes).filter(is_moved).map(|(id, node)| (id, node.input(0))) else {
            continue;
        };
        let (true, Some(data), Some(_)) = (is_single, data, only_reader(graph, codes)) else { continue };
        let name = format!("{}_dequantized", graph.value(data).name());
        let inputs: Vec<ValueId> = std::iter::once(data).chain(parameters).collect();
        let floats = insert(graph, mover, "DequantizeLinear", &inputs, name, vec![]);
        graph.set_input(mover, 0, Some(floats));
        graph.set_input(decoder, 0, Some(data));
        graph.take_over_output(mover, 0, real)?;
        graph.remove_node(decoder)?;
        decoders.extend(graph.producer(floats).map(|(id, _)| id));
    }
    Ok(())
}

#[cfg(test)]
#[path = "integer_operators_tests.rs"]
mod tests;
