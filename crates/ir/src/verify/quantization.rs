//! The rules of QuantizeLinear and DequantizeLinear, as far as constants tell.

use onnxquant_proto::onnx::tensor_proto::DataType;
use onnxquant_proto::onnx::{AttributeProto, TensorProto};

use crate::graph::Node;
use crate::ids::ValueId;
use crate::model::Model;
use crate::tensor;

/// Lowest opset whose QuantizeLinear/DequantizeLinear take codes of `dtype`.
fn opset_of_codes(dtype: DataType) -> Option<i64> {
    match dtype {
        DataType::Int8 | DataType::Uint8 | DataType::Int32 => Some(10),
        DataType::Float8e4m3fn | DataType::Float8e4m3fnuz | DataType::Float8e5m2 | DataType::Float8e5m2fnuz => Some(19),
        DataType::Int4 | DataType::Uint4 | DataType::Int16 | DataType::Uint16 => Some(21),
        DataType::Float4e2m1 => Some(23),
        DataType::Int2 | DataType::Uint2 => Some(25),
        _ => None,
    }
}

/// What is wrong with a Q or DQ node.
pub(super) fn problem(model: &Model, node: &Node) -> Option<String> {
    let graph = model.graph();
    let constant = |slot| node.input(slot).and_then(|value: ValueId| graph.value(value).constant());
    let opset = model.opset("").unwrap_or(0);
    let (data, scale, zero_point) = (constant(0), constant(1), constant(2));
    let codes = data.filter(|_| node.is("DequantizeLinear"));
    let blocks = node.attribute("block_size").map(AttributeProto::i).filter(|&size| size != 0);
    let of_scale = || scale_problem(scale?, blocks, opset);
    let of_codes = || codes_problem(codes, zero_point, opset);
    of_scale().or_else(of_codes).or_else(|| axis_problem(node, data?, scale?, blocks))
}

fn scale_problem(scale: &TensorProto, blocks: Option<i64>, opset: i64) -> Option<String> {
    let numbers = tensor::to_f32(scale).ok()?;
    if let Some((index, number)) = numbers.iter().enumerate().find(|(_, x)| !x.is_finite() || **x <= 0.0) {
        return Some(format!("scale {index} is {number}, expected a finite number > 0"));
    }
    let needed = match (blocks, scale.dims.as_slice()) {
        (Some(_), _) => 21,
        (None, [] | [1]) => 10,
        (None, _) => 13,
    };
    let problem = || format!("a scale of shape {:?} needs opset {needed}, the model imports {opset}", scale.dims);
    (opset < needed).then(problem)
}

fn codes_problem(codes: Option<&TensorProto>, zero_point: Option<&TensorProto>, opset: i64) -> Option<String> {
    let dtype = tensor::data_type(codes.or(zero_point)?).ok()?;
    if let Some(needed) = opset_of_codes(dtype).filter(|&needed| opset < needed) {
        return Some(format!("{} codes need opset {needed}, the model imports {opset}", dtype.as_str_name()));
    }
    let problem = || "codes and zero point have different types".to_owned();
    (codes?.data_type() != zero_point?.data_type()).then(problem)
}

fn axis_problem(node: &Node, data: &TensorProto, scale: &TensorProto, blocks: Option<i64>) -> Option<String> {
    let rank = i64::try_from(data.dims.len()).ok()?;
    let axis = node.int("axis", 1);
    let per_axis = scale.dims.len() == 1 && scale.dims != [1];
    if !per_axis && blocks.is_none() {
        return None;
    }
    if !(-rank..rank).contains(&axis) {
        return Some(format!("axis {axis} is outside a tensor of rank {rank}"));
    }
    let axis = usize::try_from(axis.rem_euclid(rank)).ok()?;
    let along = *data.dims.get(axis)?;
    let expected = match blocks {
        // Rounded up without the sum that could overflow.
        Some(size) if size > 0 => {
            let count = along / size + i64::from(along % size != 0);
            data.dims.iter().enumerate().map(|(index, &dim)| if index == axis { count } else { dim }).collect()
        }
        Some(size) => return Some(format!("block_size is {size}, expected a number > 0")),
        None => vec![along],
    };
    (scale.dims != expected).then(|| format!("scale has shape {:?}, expected {expected:?}", scale.dims))
}
