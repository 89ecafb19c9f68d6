//! BatchNormalization, GroupNormalization and Dropout: what training left behind, and shapes of parameters.

use onnxquant_ir::int_attribute;
use onnxquant_ir::onnx::NodeProto;

use super::context::Context;
use super::error::Refusal;
use super::message::{input, int, label, set_input, take, take_int};

type Rewritten = Result<Vec<NodeProto>, Refusal>;

/// BatchNormalization and Dropout 7: inference is the rule, `is_test` is gone.
pub(super) fn inference_only(mut found: NodeProto, _: &mut Context<'_>) -> Rewritten {
    if take_int(&mut found, "is_test", 0)? == 0 {
        return Err(Refusal::Training);
    }
    Ok(vec![found])
}

/// BatchNormalization 9: parameters are one a channel.
pub(super) fn per_channel_only(mut found: NodeProto, _: &mut Context<'_>) -> Rewritten {
    if take_int(&mut found, "spatial", 1)? == 0 {
        return Err(Refusal::NoCounterpart { form: "`spatial = 0`", opset: 9 });
    }
    Ok(vec![found])
}

/// BatchNormalization 14: more than one output meant training, which now is an attribute.
pub(super) fn one_output(mut found: NodeProto, _: &mut Context<'_>) -> Rewritten {
    if found.output.iter().skip(1).any(|output| !output.is_empty()) {
        return Err(Refusal::Training);
    }
    found.output.truncate(1);
    Ok(vec![found])
}

/// Dropout 10: the mask is boolean.
pub(super) fn boolean_mask(found: NodeProto, context: &mut Context<'_>) -> Rewritten {
    without_mask(found, context, 10)
}

/// Dropout 12: the ratio is an input, and without effect outside training; the mask is all ones then.
pub(super) fn no_ratio(mut found: NodeProto, context: &mut Context<'_>) -> Rewritten {
    take(&mut found, "ratio")?;
    without_mask(found, context, 12)
}

/// Drops a mask that nothing reads; what it held was up to the runtime.
fn without_mask(mut found: NodeProto, context: &mut Context<'_>, opset: i64) -> Rewritten {
    if let Some(mask) = found.output.iter().skip(1).find(|mask| !mask.is_empty()).cloned() {
        if context.is_read(&mask) {
            return Err(Refusal::NoCounterpart { form: "a mask that is read", opset });
        }
        context.drop_value(mask);
    }
    found.output.truncate(1);
    Ok(vec![found])
}

/// GroupNormalization 21: scale and bias are one a channel, no longer one a group.
///
/// The number of channels is taken from the data when the model runs: each parameter goes from `[groups]`
/// to `[groups, channels / groups]` and is laid out flat.
pub(super) fn scale_per_channel(mut found: NodeProto, context: &mut Context<'_>) -> Rewritten {
    let groups = int(&found, "num_groups", 0)?;
    if groups <= 0 {
        return Err(Refusal::Attribute { attribute: "num_groups" });
    }
    let base = label(&found).to_owned();
    let mut name = |part: &str| context.fresh(&format!("{base}_{part}"));
    let (shape, channels, each, repeats) = (name("shape"), name("channels"), name("each"), name("repeats"));
    let parameters =
        ["scale", "bias"].map(|part| ["column", "wide", "flat"].map(|form| name(&format!("{part}_{form}"))));
    let groups = context.integers("num_groups", &[groups]);
    let (one, flat) = (context.integers("channel_axis", &[1]), context.integers("flat", &[-1]));
    let data = input(&found, 0).unwrap_or_default();
    let mut nodes = vec![
        context.node("Shape", &[data], &shape, Vec::new()),
        context.node("Gather", &[&shape, &one], &channels, vec![int_attribute("axis", 0)]),
        context.node("Div", &[&channels, &groups], &each, Vec::new()),
        context.node("Concat", &[&groups, &each], &repeats, vec![int_attribute("axis", 0)]),
    ];
    for (slot, [column, wide, narrow]) in (1..).zip(parameters) {
        let parameter = input(&found, slot).unwrap_or_default();
        nodes.push(context.node("Unsqueeze", &[parameter, &one], &column, Vec::new()));
        nodes.push(context.node("Expand", &[&column, &repeats], &wide, Vec::new()));
        nodes.push(context.node("Reshape", &[&wide, &flat], &narrow, Vec::new()));
        set_input(&mut found, slot, narrow);
    }
    nodes.push(found);
    Ok(nodes)
}
