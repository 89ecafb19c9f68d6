//! Attributes that became inputs.

use onnxquant_ir::onnx::NodeProto;
use onnxquant_ir::{int_attribute, tensor};

use super::context::Context;
use super::error::Refusal;
use super::message::{input, set, set_input, take, take_int, take_ints, text};

/// Reshape 5: `shape`.
pub(super) fn reshape(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    let shape = take(&mut node, "shape")?.ok_or(Refusal::Attribute { attribute: "shape" })?.ints;
    take(&mut node, "consumed_inputs")?;
    set_input(&mut node, 1, context.integers("shape", &shape));
    Ok(vec![node])
}

/// Slice 10: `starts`, `ends` and `axes`.
pub(super) fn slice(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    for (slot, attribute) in ["starts", "ends"].into_iter().enumerate() {
        let numbers = take(&mut node, attribute)?.ok_or(Refusal::Attribute { attribute })?.ints;
        set_input(&mut node, slot + 1, context.integers(attribute, &numbers));
    }
    if let Some(axes) = take_ints(&mut node, "axes")? {
        set_input(&mut node, 3, context.integers("axes", &axes));
    }
    Ok(vec![node])
}

/// TopK 10: `k`.
pub(super) fn top_k(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    let count = take(&mut node, "k")?.ok_or(Refusal::Attribute { attribute: "k" })?.i();
    set_input(&mut node, 1, context.integers("k", &[count]));
    Ok(vec![node])
}

/// Clip 11: `min` and `max`, of the type of the data.
pub(super) fn clip(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    let data = input(&node, 0).unwrap_or_default().to_owned();
    for (slot, bound) in ["min", "max"].into_iter().enumerate() {
        if let Some(found) = take(&mut node, bound)? {
            set_input(&mut node, slot + 1, context.scalar_like(bound, found.f(), &data)?);
        }
    }
    Ok(vec![node])
}

/// Pad 11: `pads`, and `value` where it is used and not zero.
pub(super) fn pad(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    let pads = take(&mut node, "pads")?.ok_or(Refusal::Attribute { attribute: "pads" })?.ints;
    let value = take(&mut node, "value")?.map_or(0.0, |value| value.f());
    set_input(&mut node, 1, context.integers("pads", &pads));
    if value != 0.0 && text(&node, "mode", "constant")? == "constant" {
        let data = input(&node, 0).unwrap_or_default().to_owned();
        set_input(&mut node, 2, context.scalar_like("pad_value", value, &data)?);
    }
    Ok(vec![node])
}

/// Squeeze and ReduceSum 13, the other reductions 18: `axes`, none meaning all.
pub(super) fn optional_axes(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    if let Some(axes) = take_ints(&mut node, "axes")? {
        set_input(&mut node, 1, context.integers("axes", &axes));
    }
    Ok(vec![node])
}

/// Unsqueeze 13: `axes`.
pub(super) fn required_axes(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    let axes = take(&mut node, "axes")?.ok_or(Refusal::Attribute { attribute: "axes" })?.ints;
    set_input(&mut node, 1, context.integers("axes", &axes));
    Ok(vec![node])
}

/// Split 13: `split`.
pub(super) fn split_sizes(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    if let Some(sizes) = take_ints(&mut node, "split")? {
        set_input(&mut node, 1, context.integers("split", &sizes));
    }
    Ok(vec![node])
}

/// Split 18: parts of equal length are asked for by their number.
pub(super) fn split_count(mut node: NodeProto, _: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    if input(&node, 1).is_none() {
        let count = i64::try_from(node.output.len()).unwrap_or(i64::MAX);
        node.input.truncate(1);
        set(&mut node, int_attribute("num_outputs", count));
    }
    Ok(vec![node])
}

/// DFT 20: `axis`, whose default changed too.
pub(super) fn dft_axis(mut node: NodeProto, context: &mut Context<'_>) -> Result<Vec<NodeProto>, Refusal> {
    let axis = take_int(&mut node, "axis", 1)?;
    set_input(&mut node, 2, context.constant("axis", tensor::from_i64(&[], &[axis])));
    Ok(vec![node])
}
