//! Decodes quantized weights back to float constants, so that an engine without quantized types can run them.
//!
//! Decoded are the forms of [`crate::weight_form`], and whatever else has the same shape: a
//! `DequantizeLinear` of constants, `Cast -> [Sub ->] Mul` of constants with codes (and a `Cast` of what they make), and
//! `MatMulNBits` of the runtime's domain; codes may be put together from planes, or be FP8 numbers. The arithmetic is the
//! runtime's, `scale * (code - zero_point)` in f32.
//!
//! Not decoded: graph outputs, products whose shape is not that of the codes, results of another type than the
//! scale's. Q/DQ around activations stay.

use std::collections::HashSet;

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, GraphError, Model, Node, NodeId, TensorError, ValueId, tensor};

use onnxquant_quant::Alphabet;

use crate::decode::decode_nbits::decode_nbits;
use crate::decode::fold_planes::{fold_planes, is_made_of_planes};

/// Codes, scales and zero points found in the graph, with the shape rules of `DequantizeLinear`.
struct Encoded<'a> {
    codes: &'a TensorProto,
    scale: &'a TensorProto,
    zero_point: Option<&'a TensorProto>,
    layout: Layout,
}

enum Layout {
    /// Scale of `DequantizeLinear`: scalar, per axis, or per block of an axis.
    Axis { axis: i64, block_size: i64 },
    /// Scale that broadcasts against the codes.
    Broadcast,
}

/// Replaces every decoding of constants by the float constant it makes; returns how many.
pub fn decode_weights(model: &mut Model) -> Result<usize, DecodeError> {
    let graph = model.graph_mut();
    fold_planes(graph);
    let in_operators = decode_nbits(graph)?;
    // What a replacement removes stands before it, so that every id is still there when its turn comes.
    let nodes = graph.nodes().map(|(id, _)| id).collect::<Vec<_>>();
    let mut decoded = HashSet::new();
    for id in nodes {
        let node = graph.node(id);
        let Some(value) = node.output(0).filter(|&value| !graph.is_output(value)) else { continue };
        if let Some(found) = encoded(graph, node) {
            let tensor = decode(&found)?;
            replace(graph, id, tensor)?;
            decoded.insert(value);
        } else if let Some((weight, dtype)) = rounds(graph, node, &decoded) {
            let tensor = tensor::from_f32_as(dtype, &tensor::shape(weight)?, &tensor::to_f32(weight)?);
            replace(graph, id, tensor)?;
        }
    }
    Ok(decoded.len() + in_operators)
}

/// Whether `node` decodes a constant, or rounds what a node makes that does.
pub fn decodes_constant(graph: &Graph, node: &Node) -> bool {
    let of_planes = |node: &Node| node.is("Mul") && node.input(0).is_some_and(|steps| decodes_planes(graph, steps));
    let decodes = |node: &Node| encoded(graph, node).is_some() || of_planes(node);
    let before = node.input(0).filter(|_| node.is("Cast")).and_then(|value| graph.producer(value));
    decodes(node) || before.is_some_and(|(_, before)| decodes(before))
}

/// What the codes of a type stand for.
pub fn alphabet(codes: DataType) -> Alphabet {
    match codes {
        DataType::Float8e4m3fn => Alphabet::E4m3,
        _ => Alphabet::Integers,
    }
}

/// `Cast -> [Sub]` of codes that are put together from planes.
fn decodes_planes(graph: &Graph, steps: ValueId) -> bool {
    let Some((_, node)) = graph.producer(steps).filter(|(_, node)| node.is("Sub") || node.is("Cast")) else {
        return false;
    };
    let codes = node.input(0);
    codes.is_some_and(
        |codes| if node.is("Cast") { is_made_of_planes(graph, codes) } else { decodes_planes(graph, codes) },
    )
}

/// A quantized weight that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode a quantized weight")]
pub enum DecodeError {
    /// The tensors do not fit together.
    Tensor(#[from] TensorError),
    /// The graph refused the edit.
    Graph(#[from] GraphError),
}

/// Codes of a constant that `node` decodes, and the scale of each; `None` where it decodes none.
pub(crate) fn codes_and_scales<'a>(
    graph: &'a Graph,
    node: &Node,
) -> Result<Option<(&'a TensorProto, Vec<f32>)>, TensorError> {
    let Some(found) = encoded(graph, node) else { return Ok(None) };
    let shape = tensor::shape(found.codes)?;
    let count = tensor::element_count(found.codes)?;
    if count == 0 {
        return Ok(None);
    }
    let scales = Spread::new(&found, &shape, found.scale, tensor::to_f32(found.scale)?.into_owned())?;
    Ok(Some((found.codes, (0..count).map(|position| scales.of(position)).collect())))
}

fn constant<'a>(graph: &'a Graph, node: &Node, slot: usize) -> Option<&'a TensorProto> {
    graph.value(node.input(slot)?).constant()
}

fn encoded<'a>(graph: &'a Graph, node: &Node) -> Option<Encoded<'a>> {
    match node.op_type() {
        _ if !node.domain().is_empty() => None,
        "DequantizeLinear" => {
            let scale = constant(graph, node, 1).filter(|scale| makes(node, "output_dtype", scale))?;
            let codes = constant(graph, node, 0).filter(|codes| tensor::holds_codes(codes))?;
            let zero_point = match node.input(2) {
                Some(zero_point) => Some(graph.value(zero_point).constant()?),
                None => None,
            };
            let layout = Layout::Axis { axis: node.int("axis", 1), block_size: node.int("block_size", 0) };
            Some(Encoded { codes, scale, zero_point, layout })
        }
        "Mul" => product(graph, node),
        _ => None,
    }
}

/// Whether the result that `attribute` of `node` names, if it does, is of the type of `scale`, a float one.
fn makes(node: &Node, attribute: &str, scale: &TensorProto) -> bool {
    let wanted = node.int(attribute, 0);
    tensor::is_float(scale) && (wanted == 0 || wanted == i64::from(scale.data_type()))
}

/// `Cast -> [Sub ->] Mul` of constants, where the product has the shape of the codes.
fn product<'a>(graph: &'a Graph, node: &Node) -> Option<Encoded<'a>> {
    let scale = constant(graph, node, 1)?;
    let (_, inner) = graph.producer(node.input(0)?)?;
    let (cast, zero_point) = match inner.is("Sub") {
        true => (graph.producer(inner.input(0)?)?.1, Some(constant(graph, inner, 1)?)),
        false => (inner, None),
    };
    let is_cast = cast.is("Cast") && cast.attribute("to").is_some() && makes(cast, "to", scale);
    let codes = constant(graph, cast, 0).filter(|codes| is_cast && tensor::holds_codes(codes))?;
    let shape = tensor::shape(codes).ok()?;
    let fits = |tensor: &TensorProto| {
        let index = tensor::shape(tensor).ok().and_then(|dims| ScaleIndex::new(&shape, &dims, &Layout::Broadcast));
        index.is_some() && tensor.data_type() == scale.data_type()
    };
    let all_fit = fits(scale) && zero_point.is_none_or(fits);
    all_fit.then_some(Encoded { codes, scale, zero_point, layout: Layout::Broadcast })
}

/// Which of the weights in `decoded` is rounded by `node`, and to which type.
fn rounds<'a>(graph: &'a Graph, node: &Node, decoded: &HashSet<ValueId>) -> Option<(&'a TensorProto, DataType)> {
    let value = node.input(0).filter(|value| node.is("Cast") && decoded.contains(value))?;
    let dtype = DataType::try_from(i32::try_from(node.int("to", 0)).ok()?).ok()?;
    let is_float = matches!(dtype, DataType::Float16 | DataType::Bfloat16 | DataType::Double);
    graph.value(value).constant().filter(|_| is_float).map(|weight| (weight, dtype))
}

fn decode(found: &Encoded<'_>) -> Result<TensorProto, TensorError> {
    let shape = tensor::shape(found.codes)?;
    let dtype = tensor::data_type(found.scale)?;
    let codes = tensor::to_codes(found.codes)?;
    if codes.is_empty() {
        return Ok(tensor::from_f32_as(dtype, &shape, &[]));
    }
    let scales = Spread::new(found, &shape, found.scale, tensor::to_f32(found.scale)?.into_owned())?;
    let zero_points = match found.zero_point {
        Some(zero_point) => Some(Spread::new(found, &shape, zero_point, zero_points(zero_point)?)?),
        None => None,
    };
    let alphabet = alphabet(tensor::data_type(found.codes)?);
    let real = |(position, &code): (usize, &i16)| {
        let zero_point = zero_points.as_ref().map_or(0.0, |zero_points| zero_points.of(position));
        scales.of(position) * (alphabet.value(code) - zero_point)
    };
    let numbers = codes.iter().enumerate().map(real).collect::<Vec<f32>>();
    Ok(tensor::from_f32_as(dtype, &shape, &numbers))
}

fn zero_points(tensor: &TensorProto) -> Result<Vec<f32>, TensorError> {
    match tensor::is_float(tensor) {
        true => Ok(tensor::to_f32(tensor)?.into_owned()),
        false => {
            let alphabet = alphabet(tensor::data_type(tensor)?);
            Ok(tensor::to_codes(tensor)?.into_iter().map(|code| alphabet.value(code)).collect())
        }
    }
}

/// Scales or zero points, read by the position of a code.
struct Spread {
    numbers: Vec<f32>,
    index: ScaleIndex,
}

impl Spread {
    fn new(found: &Encoded<'_>, shape: &[usize], of: &TensorProto, numbers: Vec<f32>) -> Result<Self, TensorError> {
        let own_shape = tensor::shape(of)?;
        let index = ScaleIndex::new(shape, &own_shape, &found.layout).filter(|index| index.len == numbers.len());
        let index = index.ok_or_else(|| TensorError {
            tensor: found.codes.name().to_owned(),
            problem: format!("scale or zero point of shape {own_shape:?} does not fit codes of shape {shape:?}"),
        })?;
        Ok(Self { numbers, index })
    }

    fn of(&self, position: usize) -> f32 {
        self.numbers[self.index.of(position)]
    }
}

/// Maps the position of a code to that of its scale: per dimension a divisor and a stride.
struct ScaleIndex {
    /// Size, block size and stride among the scales; innermost dimension first.
    dims: Vec<(usize, usize, usize)>,
    len: usize,
}

impl ScaleIndex {
    /// `None` where the shapes do not fit, and for codes without elements.
    fn new(shape: &[usize], scale_shape: &[usize], layout: &Layout) -> Option<Self> {
        let blocks = match layout {
            Layout::Axis { .. } if matches!(scale_shape, [] | [1]) => vec![usize::MAX; shape.len()],
            Layout::Axis { axis, block_size } => axis_blocks(shape, *axis, *block_size)?,
            Layout::Broadcast => broadcast_blocks(shape, scale_shape)?,
        };
        let mut len = 1usize;
        let mut dims = Vec::new();
        for (&size, &block) in shape.iter().zip(&blocks).rev() {
            dims.push((size, block, len));
            len = len.checked_mul(size.div_ceil(block)).filter(|&len| len > 0)?;
        }
        Some(Self { dims, len })
    }

    fn of(&self, mut position: usize) -> usize {
        let mut index = 0;
        for &(size, block, stride) in &self.dims {
            index += position % size / block * stride;
            position /= size;
        }
        index
    }
}

/// How many codes share a scale along each dimension.
fn axis_blocks(shape: &[usize], axis: i64, block_size: i64) -> Option<Vec<usize>> {
    let rank = i64::try_from(shape.len()).ok()?;
    let axis = (-rank..rank).contains(&axis).then(|| usize::try_from(axis.rem_euclid(rank)).ok())??;
    let (along, others) = match usize::try_from(block_size).ok()? {
        0 => (1, usize::MAX),
        size => (size, 1),
    };
    Some((0..shape.len()).map(|index| if index == axis { along } else { others }).collect())
}

fn broadcast_blocks(shape: &[usize], scale_shape: &[usize]) -> Option<Vec<usize>> {
    let missing = shape.len().checked_sub(scale_shape.len())?;
    let of = |(&dim, of_scale): (&usize, usize)| match of_scale {
        1 => Some(usize::MAX),
        _ => (of_scale == dim).then_some(1),
    };
    shape.iter().zip(std::iter::repeat_n(1, missing).chain(scale_shape.iter().copied())).map(of).collect()
}

fn replace(graph: &mut Graph, node: NodeId, decoded: TensorProto) -> Result<(), GraphError> {
    let inputs = graph.node(node).inputs().iter().copied().flatten().collect::<Vec<ValueId>>();
    graph.node_to_constant(node, decoded)?;
    inputs.into_iter().for_each(|value| graph.remove_if_unused(value));
    Ok(())
}

#[cfg(test)]
#[path = "decode_weights_tests.rs"]
mod tests;
