//! Operators that give elements another shape, or make a list of integers.

use onnxquant_ir::Node;
use onnxquant_ir::onnx::tensor_proto::DataType;

use super::arguments::{Arguments, Operator};
use super::constant::Constant;
use super::scalar::Scalar;
use crate::graph::constant_chain::{flattened, reshaped, squeezed, unsqueezed};

pub(super) fn operator(node: &Node) -> Option<Operator> {
    Some(match node.op_type() {
        "Flatten" => |arguments| with_dims(arguments, |dims| flattened(dims, arguments.node.int("axis", 1))),
        "Identity" => |arguments| arguments.at(0),
        "Range" => range,
        "Reshape" => |arguments| {
            let allow_zero = arguments.node.int("allowzero", 0) != 0;
            with_dims(arguments, |dims| reshaped(dims, &arguments.list(1)?, allow_zero))
        },
        "Shape" => shape,
        "Squeeze" => |arguments| {
            let axes = arguments.option("axes", 1)?;
            with_dims(arguments, |dims| squeezed(dims, axes.as_deref()))
        },
        "Unsqueeze" => |arguments| {
            let axes = arguments.option("axes", 1)??;
            with_dims(arguments, |dims| unsqueezed(dims, &axes))
        },
        _ => return None,
    })
}

/// Input 0 with other dimensions.
fn with_dims(arguments: &Arguments<'_>, dims: impl FnOnce(&[i64]) -> Option<Vec<i64>>) -> Option<Constant> {
    let data = arguments.at(0)?;
    let old = data.shape().iter().map(|&dim| i64::try_from(dim).ok()).collect::<Option<Vec<_>>>()?;
    let new = dims(&old)?.into_iter().map(|dim| usize::try_from(dim).ok()).collect::<Option<Vec<_>>>()?;
    data.reshaped(&new)
}

/// `start` and `end`, which opset 15 brought, count dimensions and are clamped.
fn shape(arguments: &Arguments<'_>) -> Option<Constant> {
    let shape = arguments.values.shape(arguments.node.input(0)?)?;
    let dims = shape.iter().map(|&dim| i64::try_from(dim).ok()).collect::<Option<Vec<_>>>()?;
    let rank = i64::try_from(dims.len()).ok()?;
    let place = |name, default| {
        let index = arguments.node.int(name, default);
        usize::try_from(if index < 0 { index.saturating_add(rank) } else { index }.clamp(0, rank)).ok()
    };
    let (start, end) = (place("start", 0)?, place("end", rank)?);
    Constant::list(dims.get(start..end).unwrap_or_default())
}

/// Of int32 or int64.
fn range(arguments: &Arguments<'_>) -> Option<Constant> {
    let dtype = arguments.at(0)?.dtype();
    let of_one_type = (1..3).all(|slot| arguments.at(slot).is_some_and(|bound| bound.dtype() == dtype));
    if !of_one_type || !matches!(dtype, DataType::Int32 | DataType::Int64) {
        return None;
    }
    let bound = |slot| arguments.integer(slot).map(i128::from);
    let (first, limit, step) = (bound(0)?, bound(1)?, bound(2)?);
    let (span, stride) = if step < 0 { (first - limit, -step) } else { (limit - first, step) };
    let count = (span.max(0) + stride - 1).checked_div(stride)?;
    let count = arguments.allowed(&[usize::try_from(count).ok()?])?;
    let numbers = std::iter::successors(Some(first), |last| Some(last + step)).take(count);
    Constant::collect(dtype, &[count], numbers.map(|x| i64::try_from(x).ok().map(Scalar::Integer)))
}
