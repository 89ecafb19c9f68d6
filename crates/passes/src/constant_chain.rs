//! Finds the constant behind a value, through the nodes that exporters put in between.
//!
//! Followed are `Identity`, `Cast` between float types, `Transpose`, and the pure changes of shape
//! `Reshape`, `Flatten`, `Squeeze` and `Unsqueeze` with constant arguments. The result is computed when it
//! is asked for; the graph is not changed.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, Origin, ValueId, tensor};
use onnxquant_proto::data_type_bits;

/// Longest chain followed.
const MAX_LINKS: usize = 16;

/// A constant tensor and where its numbers come from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The tensor as the last node of the chain would make it.
    pub tensor: TensorProto,
    /// The initializer at the start of the chain.
    pub source: ValueId,
}

/// The initializer at the start of the chain that ends in `value`, without computing anything.
pub fn source(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let mut value = value;
    for _ in 0..MAX_LINKS {
        match graph.value(value).origin() {
            Origin::Constant | Origin::Overridable => return Some(value),
            Origin::Input => return None,
            Origin::Output(node, _) => value = Some(graph.node(node)).filter(|node| is_link(node))?.input(0)?,
        }
    }
    None
}

/// The constant behind `value`; `None` when it is no constant or the chain holds another operator.
pub fn resolve(graph: &Graph, value: ValueId) -> Option<Resolved> {
    resolve_within(graph, value, MAX_LINKS)
}

fn is_link(node: &Node) -> bool {
    const LINKS: [&str; 7] = ["Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"];
    LINKS.iter().any(|op_type| node.is(op_type))
}

fn resolve_within(graph: &Graph, value: ValueId, links: usize) -> Option<Resolved> {
    if let Some(tensor) = graph.value(value).constant() {
        return Some(Resolved { tensor: tensor.clone(), source: value });
    }
    let (_, node) = graph.producer(value).filter(|(_, node)| is_link(node))?;
    let Resolved { tensor, source } = resolve_within(graph, node.input(0)?, links.checked_sub(1)?)?;
    let rank = tensor.dims.len();
    let argument = |slot| graph.value(node.input(slot)?).constant().and_then(|tensor| tensor::to_i64(tensor).ok());
    let axes = || node.ints("axes").map(<[i64]>::to_vec).or_else(|| argument(1));
    let has_axes = node.attribute("axes").is_some() || node.input(1).is_some();
    let tensor = match node.op_type() {
        "Identity" => tensor,
        "Cast" => cast(&tensor, DataType::try_from(i32::try_from(node.int("to", 0)).ok()?).ok()?)?,
        "Transpose" => transpose(&tensor, &permutation(node.ints("perm"), rank)?)?,
        "Reshape" => with_dims(reshaped(&tensor.dims, &argument(1)?, node.int("allowzero", 0) != 0)?, tensor)?,
        "Flatten" => with_dims(flattened(&tensor.dims, node.int("axis", 1))?, tensor)?,
        "Squeeze" if has_axes => with_dims(squeezed(&tensor.dims, Some(&axes()?))?, tensor)?,
        "Squeeze" => with_dims(squeezed(&tensor.dims, None)?, tensor)?,
        "Unsqueeze" => with_dims(unsqueezed(&tensor.dims, &axes()?)?, tensor)?,
        _ => return None,
    };
    Some(Resolved { tensor, source })
}

fn cast(from: &TensorProto, to: DataType) -> Option<TensorProto> {
    if from.data_type() == to as i32 {
        return Some(from.clone());
    }
    let is_float = matches!(to, DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double);
    let numbers = tensor::to_f32(from).ok().filter(|_| is_float)?;
    Some(tensor::from_f32_as(to, &tensor::shape(from).ok()?, &numbers))
}

fn with_dims(dims: Vec<i64>, mut tensor: TensorProto) -> Option<TensorProto> {
    let count = tensor::element_count(&tensor).ok()?;
    tensor.dims = dims;
    (tensor::element_count(&tensor).ok()? == count).then_some(tensor)
}

/// The shape that `Reshape` makes of `dims`; whether the counts agree is for the caller to check.
pub(crate) fn reshaped(dims: &[i64], wanted: &[i64], allow_zero: bool) -> Option<Vec<i64>> {
    let mut result = Vec::new();
    for (index, &dim) in wanted.iter().enumerate() {
        result.push(if dim == 0 && !allow_zero { *dims.get(index)? } else { dim });
    }
    let count = product(dims)?;
    let known = result.iter().filter(|&&dim| dim != -1).try_fold(1i64, |product, &dim| product.checked_mul(dim))?;
    if let Some(open) = result.iter().position(|&dim| dim == -1) {
        result[open] = count.checked_div(known)?;
    }
    Some(result)
}

fn flattened(dims: &[i64], axis: i64) -> Option<Vec<i64>> {
    let rank = i64::try_from(dims.len()).ok()?;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    let (rows, columns) = dims.split_at_checked(axis)?;
    Some(vec![product(rows)?, product(columns)?])
}

fn product(dims: &[i64]) -> Option<i64> {
    dims.iter().try_fold(1i64, |product, &dim| product.checked_mul(dim))
}

/// Without axes, all dimensions of 1 go; a dimension that is named must be 1.
pub(crate) fn squeezed(dims: &[i64], axes: Option<&[i64]>) -> Option<Vec<i64>> {
    let dropped = match axes {
        Some(axes) => positions(axes, dims.len())?,
        None => (0..dims.len()).filter(|&index| dims[index] == 1).collect(),
    };
    let is_one = |&index: &usize| dims.get(index) == Some(&1);
    let rest = dims.iter().enumerate().filter(|(index, _)| !dropped.contains(index)).map(|(_, &dim)| dim);
    dropped.iter().all(is_one).then(|| rest.collect())
}

/// New dimensions of 1 stand at `axes` of the result.
pub(crate) fn unsqueezed(dims: &[i64], axes: &[i64]) -> Option<Vec<i64>> {
    let rank = dims.len() + axes.len();
    let new = positions(axes, rank)?;
    let mut rest = dims.iter();
    (0..rank).map(|index| if new.contains(&index) { Some(1) } else { rest.next().copied() }).collect()
}

/// Axes counted from the front; `None` where one lies outside `rank` dimensions.
pub(crate) fn positions(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let rank = i64::try_from(rank).ok()?;
    let inside = |&axis: &i64| (-rank..rank).contains(&axis).then(|| usize::try_from(axis.rem_euclid(rank)).ok())?;
    axes.iter().map(inside).collect()
}

/// The permutation of `Transpose`: reversed axes where the attribute is absent.
pub(crate) fn permutation(perm: Option<&[i64]>, rank: usize) -> Option<Vec<usize>> {
    let Some(perm) = perm else { return Some((0..rank).rev().collect()) };
    let perm = perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<Vec<_>>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    (sorted == (0..rank).collect::<Vec<_>>()).then_some(perm)
}

/// Transposes any tensor whose elements are whole bytes.
fn transpose(from: &TensorProto, perm: &[usize]) -> Option<TensorProto> {
    let dtype = tensor::data_type(from).ok()?;
    let width = usize::try_from(data_type_bits(dtype).filter(|bits| bits % 8 == 0)? / 8).ok()?;
    let (shape, raw) = (tensor::shape(from).ok()?, tensor::to_raw(from).ok()?);
    let dims = perm.iter().map(|&axis| shape.get(axis).copied()).collect::<Option<Vec<_>>>()?;
    let starts = (0..raw.len()).step_by(width).collect::<Vec<_>>();
    let index = ndarray::ArrayD::from_shape_vec(ndarray::IxDyn(&shape), starts).ok()?;
    let index = index.permuted_axes(ndarray::IxDyn(perm));
    let element = |&start: &usize| raw.get(start..start + width).unwrap_or_default();
    let bytes = index.iter().flat_map(element).copied().collect::<Vec<u8>>();
    Some(tensor::from_raw(dtype, &dims, bytes))
}

#[cfg(test)]
#[path = "constant_chain_tests.rs"]
mod tests;
