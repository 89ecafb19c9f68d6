//! BatchNormalization, GroupNormalization and Dropout: what training left behind, and shapes of parameters.

use onnxquant_ir::int_attribute;
use onnxquant_ir::onnx::NodeProto;

use super::context::{Context, input, int, label, node, set_input, take, take_int};
use super::error::Refusal;

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

/// Dropout 10: the mask is boolean; whoever reads it gets the old type.
pub(super) fn boolean_mask(mut found: NodeProto, context: &mut Context<'_>) -> Rewritten {
    let mask = found.output.get(1).filter(|mask| !mask.is_empty()).cloned();
    found.output.truncate(1);
    let Some(mask) = mask else { return Ok(vec![found]) };
    if !context.is_read(&mask) {
        context.drop_value(mask);
        return Ok(vec![found]);
    }
    let dtype = context.float_type(input(&found, 0).unwrap_or_default())?;
    let boolean = context.fresh(&format!("{mask}_boolean"));
    let cast = node("Cast", &[&boolean], &mask, vec![int_attribute("to", i64::from(dtype as i32))]);
    found.output.push(boolean);
    Ok(vec![found, cast])
}

/// Dropout 12: the ratio is an input, and without effect outside training.
pub(super) fn no_dropout_ratio(mut found: NodeProto, _: &mut Context<'_>) -> Rewritten {
    take(&mut found, "ratio")?;
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
        node("Shape", &[data], &shape, Vec::new()),
        node("Gather", &[&shape, &one], &channels, vec![int_attribute("axis", 0)]),
        node("Div", &[&channels, &groups], &each, Vec::new()),
        node("Concat", &[&groups, &each], &repeats, vec![int_attribute("axis", 0)]),
    ];
    for (slot, [column, wide, narrow]) in (1..).zip(parameters) {
        let parameter = input(&found, slot).unwrap_or_default();
        nodes.push(node("Unsqueeze", &[parameter, &one], &column, Vec::new()));
        nodes.push(node("Expand", &[&column, &repeats], &wide, Vec::new()));
        nodes.push(node("Reshape", &[&wide, &flat], &narrow, Vec::new()));
        set_input(&mut found, slot, narrow);
    }
    nodes.push(found);
    Ok(nodes)
}
