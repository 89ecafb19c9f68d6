//! Opset 7 brought broadcasting as NumPy does it; before, an attribute asked for it and could shift the axes.
//!
//! Without `axis` the old rule compared the last axes, as the new one does. With `axis = a` the second
//! operand, of rank `q`, is laid over axes `a .. a + q` of the first, of rank `r`; under the new rule that is
//! an operand with `r - a - q` more axes of length one at its end.

use onnxquant_ir::ints_attribute;
use onnxquant_ir::onnx::NodeProto;

use super::context::Context;
use super::error::Refusal;
use super::message::{input, label, set_input, take, take_int};

/// Add, And, Div, Equal, Greater, Less, Mul, Or, Pow, Sub, Xor 7.
pub(super) fn numpy_rules(mut found: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    let broadcast = take_int(&mut found, "broadcast", 0)? != 0;
    let axis = take(&mut found, "axis")?.map(|axis| axis.i());
    let (Some(axis), true) = (axis, broadcast) else {
        return Ok(vec![found]);
    };
    let operand = |slot| input(&found, slot).unwrap_or_default();
    let (rank, small) = (context.known_rank(operand(0))?, context.known_rank(operand(1))?);
    let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if !(0..rank).contains(&axis) {
        return Err(Refusal::Attribute { attribute: "axis" });
    }
    let missing = rank - axis - small;
    let one_number = context.dims(operand(1)).is_some_and(|dims| dims.iter().all(|&dim| dim == Some(1)));
    if one_number || missing <= 0 {
        return Ok(vec![found]);
    }
    let axes = (small..small + missing).collect::<Vec<_>>();
    Ok(with_more_axes(found, &axes, context))
}

/// Gemm 7: the bias broadcasts without being asked.
pub(super) fn gemm(mut found: NodeProto, _: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    take(&mut found, "broadcast")?;
    Ok(vec![found])
}

/// PRelu 7: slopes of the channels, axis 1, follow the common rule and need axes of length one behind them.
pub(super) fn prelu(found: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    let operand = |slot| input(&found, slot).unwrap_or_default();
    let slopes = context.dims(operand(1)).ok_or_else(|| Refusal::UnknownRank { value: operand(1).to_owned() })?;
    if slopes.len() != 1 || slopes == [Some(1)] {
        return Ok(vec![found]);
    }
    let axes = (1..context.known_rank(operand(0))? - 1).collect::<Vec<_>>();
    Ok(if axes.is_empty() { vec![found] } else { with_more_axes(found, &axes, context) })
}

/// Gives the second operand `axes` of length one.
fn with_more_axes(mut found: NodeProto, axes: &[i64], context: &mut Context<'_>) -> Vec<NodeProto> {
    let wide = context.fresh(&format!("{}_operand", label(&found)));
    let operand = input(&found, 1).unwrap_or_default();
    let unsqueeze = context.node("Unsqueeze", &[operand], &wide, vec![ints_attribute("axes", axes)]);
    set_input(&mut found, 1, wide);
    vec![unsqueeze, found]
}
