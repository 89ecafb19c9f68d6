//! Computes codes that a model puts together from planes of bits (see [`crate::byte_planes`]).
//!
//! Computed: `BitShift`, `BitwiseAnd`, `BitwiseOr`, `Reshape`, `Slice`, `Cast` and `Sub` of constant uint8,
//! int8 and int32 tensors, which become initializers of the same names. Exact.
//!
//! Not folded: graph outputs, other types, results much larger than what they are made of, and what the operators
//! leave open (shifts beyond 8 bits, numbers that do not fit). Subgraphs are not entered.

use ndarray::{ArrayD, Axis, IxDyn, Slice, Zip};
use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, ValueId, tensor};

use crate::graph::constant_chain::reshaped;

const OPERATORS: [&str; 7] = ["BitShift", "BitwiseAnd", "BitwiseOr", "Reshape", "Slice", "Cast", "Sub"];

/// A result has at most so many elements for each that it is made of: 8 planes of one bit.
const MAX_GROWTH: usize = 8;

/// Folds every such node of the main graph; returns how many.
pub fn fold_planes(graph: &mut Graph) -> usize {
    let mut folded = 0;
    for id in graph.order().to_vec() {
        let node = graph.node(id);
        let Some(result) = evaluate(graph, node) else { continue };
        let inputs = node.inputs().to_vec();
        if graph.node_to_constant(id, result).is_ok() {
            inputs.into_iter().flatten().for_each(|value| graph.remove_if_unused(value));
            folded += 1;
        }
    }
    folded
}

/// Whether `value` is made from constants by the operators above, bitwise ones among them.
pub(crate) fn is_made_of_planes(graph: &Graph, value: ValueId) -> bool {
    let Some((_, node)) = graph.producer(value).filter(|(_, node)| is_known(node)) else { return false };
    let from_constants = |&value: &ValueId| graph.value(value).constant().is_some() || is_made_of_planes(graph, value);
    let mut inputs = node.inputs().iter().flatten();
    let is_bitwise = node.op_type().starts_with("Bit");
    inputs.clone().all(from_constants) && (is_bitwise || inputs.any(|&input| is_made_of_planes(graph, input)))
}

fn is_known(node: &Node) -> bool {
    node.outputs().len() == 1 && OPERATORS.iter().any(|op_type| node.is(op_type))
}

/// A tensor of bytes or 32-bit integers.
struct Integers {
    dtype: DataType,
    array: ArrayD<i32>,
}

impl Integers {
    fn read(tensor: &TensorProto) -> Option<Self> {
        let dtype = tensor::data_type(tensor).ok()?;
        let numbers: Vec<i32> = match dtype {
            DataType::Uint8 | DataType::Int8 => tensor::to_codes(tensor).ok()?.into_iter().map(i32::from).collect(),
            DataType::Int32 => {
                tensor::to_i64(tensor).ok()?.into_iter().map(i32::try_from).collect::<Result<_, _>>().ok()?
            }
            _ => return None,
        };
        let array = ArrayD::from_shape_vec(tensor::shape(tensor).ok()?, numbers).ok()?;
        Some(Self { dtype, array })
    }

    fn to_tensor(&self) -> TensorProto {
        let dims = self.array.shape();
        match self.dtype {
            DataType::Int32 => tensor::from_i32(dims, &self.array.iter().copied().collect::<Vec<_>>()),
            dtype => tensor::from_codes(dtype, dims, self.array.iter().map(|&code| code as i16)),
        }
    }
}

fn evaluate(graph: &Graph, node: &Node) -> Option<TensorProto> {
    if !is_known(node) {
        return None;
    }
    let constant = |slot: usize| graph.value(node.input(slot)?).constant();
    let list = |slot: usize| tensor::to_i64(constant(slot)?).ok();
    let data = Integers::read(constant(0)?)?;
    let joined = |operator: fn(i32, i32) -> Option<i32>| {
        let other = Integers::read(constant(1)?)?;
        join(&data.array, &other.array, operator).filter(|_| other.dtype == data.dtype)
    };
    let is_bytes = data.dtype == DataType::Uint8;
    let array = match node.op_type() {
        "BitShift" if is_bytes && node.text("direction", "") == "RIGHT" => joined(|x, by| (by < 8).then(|| x >> by)),
        "BitShift" if is_bytes && node.text("direction", "") == "LEFT" => {
            joined(|x, by| (by < 8).then(|| x << by & 255))
        }
        "BitwiseAnd" if is_bytes => joined(|a, b| Some(a & b)),
        "BitwiseOr" if is_bytes => joined(|a, b| Some(a | b)),
        "Sub" if data.dtype == DataType::Int32 => joined(i32::checked_sub),
        "Reshape" => {
            let dims: Vec<i64> = data.array.shape().iter().map(|&dim| dim as i64).collect();
            let dims = sizes(&reshaped(&dims, &list(1)?, node.int("allowzero", 0) != 0)?)?;
            ArrayD::from_shape_vec(dims, data.array.iter().copied().collect()).ok()
        }
        "Slice" if node.inputs().len() == 3 && data.array.ndim() == 1 => head(&data.array, &list(1)?, &list(2)?),
        "Cast" => return cast(data, node.int("to", 0)),
        _ => None,
    };
    Some(Integers { dtype: data.dtype, array: array? }.to_tensor())
}

fn sizes(dims: &[i64]) -> Option<Vec<usize>> {
    dims.iter().map(|&dim| usize::try_from(dim).ok()).collect()
}

fn join(a: &ArrayD<i32>, b: &ArrayD<i32>, operator: fn(i32, i32) -> Option<i32>) -> Option<ArrayD<i32>> {
    let rank = a.ndim().max(b.ndim());
    let dim =
        |array: &ArrayD<i32>, axis: usize| (axis + array.ndim()).checked_sub(rank).map_or(1, |i| array.shape()[i]);
    let dims: Vec<usize> = (0..rank).map(|axis| dim(a, axis).max(dim(b, axis))).collect();
    let count = dims.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))?;
    if count > MAX_GROWTH * (a.len() + b.len()) {
        return None;
    }
    let (a, b) = (a.broadcast(dims.clone())?, b.broadcast(dims)?);
    let mut fits = true;
    let result = Zip::from(&a).and(&b).map_collect(|&a, &b| {
        operator(a, b).unwrap_or_else(|| {
            fits = false;
            0
        })
    });
    fits.then_some(result)
}

/// The elements of a vector from its start on.
fn head(data: &ArrayD<i32>, starts: &[i64], ends: &[i64]) -> Option<ArrayD<i32>> {
    let ([0], [end]) = (starts, ends) else { return None };
    let end = isize::try_from(*end).ok().filter(|&end| end >= 0 && end as usize <= data.len())?;
    Some(data.slice_axis(Axis(0), Slice::new(0, Some(end), 1)).into_dimensionality::<IxDyn>().ok()?.to_owned())
}

fn cast(data: Integers, to: i64) -> Option<TensorProto> {
    let (dtype, low, high) = match to {
        to if to == DataType::Int32 as i64 => (DataType::Int32, i32::MIN, i32::MAX),
        to if to == DataType::Int8 as i64 => (DataType::Int8, -128, 127),
        to if to == DataType::Uint8 as i64 => (DataType::Uint8, 0, 255),
        _ => return None,
    };
    let fits = data.array.iter().all(|number| (low..=high).contains(number));
    fits.then(|| Integers { dtype, array: data.array }.to_tensor())
}

#[cfg(test)]
#[path = "fold_planes_tests.rs"]
mod tests;
