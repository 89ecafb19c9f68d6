//! Softmax, LogSoftmax and Hardmax: from a matrix made of the tensor to one axis of it.
//!
//! Up to opset 12 the tensor is folded into a matrix, axes before `axis` (default 1) down, the others
//! across, and each row is normalized. From 13 on `axis` (default -1) alone is normalized. The two agree when
//! every axis behind `axis` has length one; otherwise the folding is written out:
//!
//! ```text
//! Flatten(axis) -> Softmax(-1) -> Reshape(shape of the data)
//! ```

use onnxquant_ir::int_attribute;
use onnxquant_ir::onnx::NodeProto;

use super::context::Context;
use super::error::Refusal;
use super::message::{input, label, set, set_input, take_int};

/// Softmax, LogSoftmax and Hardmax 13.
pub(super) fn one_axis(mut found: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    let axis = take_int(&mut found, "axis", 1)?;
    let data = input(&found, 0).unwrap_or_default().to_owned();
    if let Some(axis) = plain_axis(axis, context.dims(&data)) {
        set(&mut found, int_attribute("axis", axis));
        return Ok(vec![found]);
    }
    let base = label(&found).to_owned();
    let mut name = |part: &str| context.fresh(&format!("{base}_{part}"));
    let (matrix, rows, shape) = (name("matrix"), name("rows"), name("shape"));
    let output = found.output.first().cloned().unwrap_or_default();
    let flatten = context.node("Flatten", &[&data], &matrix, vec![int_attribute("axis", axis)]);
    let shape_of = context.node("Shape", &[&data], &shape, Vec::new());
    let reshape = context.node("Reshape", &[&rows, &shape], &output, Vec::new());
    set(&mut found, int_attribute("axis", -1));
    set_input(&mut found, 0, matrix);
    found.output = vec![rows];
    Ok(vec![flatten, found, shape_of, reshape])
}

/// The axis with the meaning of opset 13 that gives the same, if the shape proves one.
fn plain_axis(axis: i64, dims: Option<&[Option<i64>]>) -> Option<i64> {
    if axis == -1 {
        return Some(axis);
    }
    let dims = dims?;
    let rank = i64::try_from(dims.len()).ok()?;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    let behind = dims.get(axis + 1..).filter(|_| axis < dims.len())?;
    match behind {
        [] => Some(-1),
        _ if behind.iter().all(|&dim| dim == Some(1)) => i64::try_from(axis).ok(),
        _ => None,
    }
}
