//! Makes a model compute what integer kernels of processors without VNNI do, whose sums of two products saturate.
//!
//! # Problem
//!
//! An engine that multiplies floats knows the exact result of a layer on codes. What a file loses where sums of 16 bits
//! saturate ([`crate::cpu`]) is to be measured with it.
//!
//! # Method
//!
//! Behind every layer that runs on integer kernels goes an operator of the engine, which adds what saturation changes. It
//! gets the pairs of codes that break the pair rule ([`PairRule`]): all others never saturate. Layers are found
//!
//! | in | by their input | and weight |
//! |---|---|---|
//! | a written model | `DequantizeLinear` of 8-bit codes on one scale, or the codes of a `MatMulInteger` | constant int8 codes |
//! | the same with float arithmetic ([`crate::fake_quantize`]) | `Div -> Round -> Max -> Min -> Mul` | the same |
//!
//! # Failure
//!
//! Left as they are: layers that run in float, such as those whose weights alone are codes or a Conv whose result is not
//! stored as codes; unsigned weights, whose kernels do not saturate; weights of a MatMul of other than two dimensions; a
//! Gemm with `transA`, `alpha` or `beta`. Subgraphs are not entered.
//!
//! # References
//!
//! ONNX Runtime, `qlinearconv.cc` and `core/mlas/lib/qgemm.h`: pairs and shifts, and that kernels for true depthwise
//! convolutions widen first.

use ndarray::{Array3, ArrayViewD};
use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, NodeId, TensorError, ValueId, int_attribute, ints_attribute, tensor, text_attribute};
use onnxquant_quant::{ConvGeometry, MatrixView, Padding, PairRule};

use crate::decode::decode_weights::codes_and_scales;
use crate::decode::fold_planes::fold_planes;
use crate::graph::insert::append;
use crate::layers;
use crate::runtime::ort_version::OrtVersion;
use crate::write::runs_as::{Kernel, runs_as};

/// The most steps between the codes of 8 bits.
const STEPS: f32 = 255.0;

/// Puts `operator`, whose inputs and attributes are those of the engine's `SATURATE_PAIRS`, behind every layer that can
/// saturate; returns how many. `rule` names the pairs of a layer ([`crate::cpu::pair_rule`]), those of
/// a model that is to be written as they will be.
pub fn saturate_pairs(
    graph: &mut Graph,
    operator: &'static str,
    rule: &dyn Fn(NodeId, &MatrixView) -> Option<PairRule>,
) -> Result<usize, TensorError> {
    fold_planes(graph);
    let mut changed = 0;
    for node in graph.order().to_vec() {
        let Some((layer, pairs)) = saturating(graph, node, rule)? else { continue };
        layer.insert(graph, operator, &pairs);
        changed += 1;
    }
    Ok(changed)
}

/// Whether a layer is left that can saturate, see [`saturate_pairs`]; codes in planes are put together for that.
pub fn can_saturate(
    graph: &mut Graph,
    rule: &dyn Fn(NodeId, &MatrixView) -> Option<PairRule>,
) -> Result<bool, TensorError> {
    fold_planes(graph);
    for &node in graph.order() {
        if saturating(graph, node, rule)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The layer of a node with the pairs that break its rule, if there are some.
fn saturating(
    graph: &Graph,
    node: NodeId,
    rule: &dyn Fn(NodeId, &MatrixView) -> Option<PairRule>,
) -> Result<Option<(Layer, Vec<i64>)>, TensorError> {
    let Some(layer) = Layer::find(graph, node)? else { return Ok(None) };
    let pairs = rule(layer.node, &layer.view).map_or(Vec::new(), |rule| layer.pairs(&rule));
    Ok((!pairs.is_empty()).then_some((layer, pairs)))
}

/// A layer on integer kernels.
struct Layer {
    node: NodeId,
    view: MatrixView,
    /// `[groups, K, M]`.
    codes: Array3<i16>,
    /// Of every output.
    scales: Vec<f32>,
    input: Input,
}

/// What a layer multiplies, in steps of `scale` from `low` on.
struct Input {
    value: ValueId,
    scale: Scalar,
    low: Scalar,
}

enum Scalar {
    Value(ValueId),
    Number(f32),
}

impl Layer {
    fn find(graph: &Graph, id: NodeId) -> Result<Option<Self>, TensorError> {
        let node = graph.node(id);
        let known = layers::layer(node).or_else(|| layers::of_integer_op(node));
        let Some(layer) = known.filter(|layer| layer.on_codes().is_some()) else { return Ok(None) };
        let Some(input) = input(graph, id, node) else { return Ok(None) };
        let Some((codes, scales)) = weight(graph, node)? else { return Ok(None) };
        let shape = tensor::shape(codes)?;
        let Ok(view) = layer.view(node, &shape) else { return Ok(None) };
        let numbers = tensor::to_codes(codes)?;
        let (Some(codes), Some(scales)) = (matrix(&view, &shape, &numbers), matrix(&view, &shape, &scales)) else {
            return Ok(None);
        };
        let scales = scales.outer_iter().flat_map(|group| group.row(0).to_vec()).collect();
        Ok(Some(Self { node: id, view, codes, scales, input }))
    }

    /// The output, the two inputs and the two codes of every pair that breaks the rule.
    fn pairs(&self, rule: &PairRule) -> Vec<i64> {
        let mut pairs = Vec::new();
        let (_, inputs, outputs) = self.codes.dim();
        for first in 0..inputs {
            let Some(second) = rule.partner(first).filter(|&second| second > first && second < inputs) else {
                continue;
            };
            for (group, codes) in self.codes.outer_iter().enumerate() {
                for (output, (&code, &other)) in codes.row(first).iter().zip(codes.row(second)).enumerate() {
                    if !PairRule::allows(code, other) {
                        let places = [group * outputs + output, first, second].map(position);
                        pairs.extend(places.into_iter().chain([i64::from(code), i64::from(other)]));
                    }
                }
            }
        }
        pairs
    }

    fn insert(&self, graph: &mut Graph, operator: &'static str, pairs: &[i64]) {
        let name = graph.label(self.node).to_owned();
        let behind = append(graph, self.node, operator, format!("{name}_unsaturated"));
        let scalar = |graph: &mut Graph, what: &str, scalar: &Scalar| match scalar {
            Scalar::Value(value) => *value,
            Scalar::Number(number) => graph.add_constant(&format!("{name}_{what}"), tensor::from_f32(&[], &[*number])),
        };
        let scale = scalar(graph, "input_scale", &self.input.scale);
        let low = scalar(graph, "input_low", &self.input.low);
        let weight_scales = tensor::from_f32(&[self.scales.len()], &self.scales);
        let weight_scales = graph.add_constant(&format!("{name}_weight_scales"), weight_scales);
        let inputs = [self.input.value, scale, low, weight_scales];
        inputs.into_iter().enumerate().for_each(|(slot, value)| graph.set_input(behind, slot + 1, Some(value)));
        let shape: Vec<i64> = self.view.untransposed().weight_shape().into_iter().map(position).collect();
        graph.set_attribute(behind, ints_attribute("weight_shape", &shape));
        graph.set_attribute(behind, ints_attribute("pairs", pairs));
        if let Some(conv) = self.view.plain_conv() {
            set_geometry(graph, behind, conv);
        }
    }
}

fn position(number: usize) -> i64 {
    i64::try_from(number).expect("a dimension of data in memory fits 63 bits")
}

fn matrix<T: Copy>(view: &MatrixView, shape: &[usize], numbers: &[T]) -> Option<Array3<T>> {
    view.to_matrix(ArrayViewD::from_shape(shape, numbers).ok()?).ok()
}

/// The signed codes of a layer's constant weight, and the scale of each.
fn weight<'a>(graph: &'a Graph, node: &Node) -> Result<Option<(&'a TensorProto, Vec<f32>)>, TensorError> {
    let Some(weight) = node.input(1) else { return Ok(None) };
    let found = match graph.value(weight).constant().filter(|_| is_integer_op(node)) {
        Some(codes) => Some((codes, vec![1.0; tensor::element_count(codes)?])),
        None => match graph.producer(weight) {
            Some((_, decoding)) => codes_and_scales(graph, decoding)?,
            None => None,
        },
    };
    Ok(found.filter(|(codes, _)| codes.data_type() == DataType::Int8 as i32))
}

/// Whether the node reads codes themselves.
fn is_integer_op(node: &Node) -> bool {
    layers::of_integer_op(node).is_some()
}

fn input(graph: &Graph, id: NodeId, node: &Node) -> Option<Input> {
    let value = node.input(0)?;
    if is_integer_op(node) {
        let low = lowest(graph, value, node.input(2))?;
        return Some(Input { value, scale: Scalar::Number(1.0), low: Scalar::Number(low) });
    }
    let (_, made_by) = graph.producer(value)?;
    match made_by.op_type() {
        "DequantizeLinear" => decoded(graph, id, value, made_by),
        "Mul" => rounded(graph, value, made_by),
        _ => None,
    }
}

/// The input of a layer that the runtime fuses with what decodes it.
fn decoded(graph: &Graph, layer: NodeId, value: ValueId, decoding: &Node) -> Option<Input> {
    let is_integer =
        !matches!(runs_as(graph, layer, OrtVersion::default()).kernel, Kernel::Float | Kernel::MatMulNBits);
    let (codes, scale) = (decoding.input(0)?, decoding.input(1)?);
    let scales = tensor::element_count(graph.value(scale).constant()?).ok()?;
    let zero_point = match decoding.input(2) {
        Some(zero_point) => *numbers(graph, zero_point)?.first()?,
        None => 0.0,
    };
    let low = lowest(graph, codes, decoding.input(2))? - zero_point;
    (is_integer && scales == 1).then_some(Input { value, scale: Scalar::Value(scale), low: Scalar::Number(low) })
}

/// The lowest code of `codes`, whose zero point, where there is one, tells the type; `None` for others than 8 bits.
fn lowest(graph: &Graph, codes: ValueId, zero_point: Option<ValueId>) -> Option<f32> {
    let made_by = graph.producer(codes).map(|(_, node)| node);
    let constant = |value: ValueId| graph.value(value).constant().map(TensorProto::data_type);
    let of_encoding = || match made_by {
        Some(node) if node.is("DynamicQuantizeLinear") => Some(DataType::Uint8 as i32),
        Some(node) if node.is("QuantizeLinear") => node.input(2).map_or(Some(DataType::Uint8 as i32), constant),
        _ => constant(codes),
    };
    let dtype = zero_point.and_then(constant).or_else(of_encoding)?;
    match DataType::try_from(dtype).ok()? {
        DataType::Uint8 => Some(0.0),
        DataType::Int8 => Some(-128.0),
        _ => None,
    }
}

/// An input that is rounded with float arithmetic.
fn rounded(graph: &Graph, value: ValueId, mul: &Node) -> Option<Input> {
    let before = |node: &Node, op_type: &str| {
        graph.producer(node.input(0)?).map(|(_, node)| node.clone()).filter(|node| node.is(op_type))
    };
    let min = before(mul, "Min")?;
    let max = before(&min, "Max")?;
    let div = before(&before(&max, "Round")?, "Div")?;
    let (scale, low) = (mul.input(1)?, max.input(1)?);
    let number = |value: Option<ValueId>| numbers(graph, value?)?.first().copied();
    // Ends that are not constant are those of `DynamicQuantizeLinear`, of 8 bits.
    let has_8_bits = match (number(Some(low)), number(min.input(1))) {
        (Some(low), Some(high)) => high - low <= STEPS,
        (low, high) => low.is_none() && high.is_none(),
    };
    let fits = div.input(1) == Some(scale) && has_8_bits;
    fits.then_some(Input { value, scale: Scalar::Value(scale), low: Scalar::Value(low) })
}

/// Small constants: scales, zero points.
fn numbers(graph: &Graph, value: ValueId) -> Option<Vec<f32>> {
    let constant = graph.value(value).constant()?;
    match tensor::is_float(constant) {
        true => Some(tensor::to_f32(constant).ok()?.into_owned()),
        false => Some(tensor::to_codes(constant).ok()?.into_iter().map(f32::from).collect()),
    }
}

/// Writes out the attributes of a Conv.
fn set_geometry(graph: &mut Graph, node: NodeId, conv: &ConvGeometry) {
    let list = |sizes: &[usize]| sizes.iter().map(|&size| position(size)).collect::<Vec<i64>>();
    let (auto_pad, pads) = match &conv.padding {
        Padding::Explicit { begin, end } => ("NOTSET", list(&[begin.as_slice(), end].concat())),
        Padding::SameUpper => ("SAME_UPPER", vec![]),
        Padding::SameLower => ("SAME_LOWER", vec![]),
        Padding::Valid => ("VALID", vec![]),
    };
    let attributes = [
        int_attribute("group", position(conv.groups)),
        ints_attribute("strides", &list(&conv.strides)),
        ints_attribute("dilations", &list(&conv.dilations)),
        ints_attribute("pads", &pads),
        text_attribute("auto_pad", auto_pad),
    ];
    attributes.into_iter().for_each(|attribute| graph.set_attribute(node, attribute));
}

#[cfg(test)]
#[path = "saturate_pairs_tests.rs"]
mod tests;
