//! Attributes and operators that were renamed, dropped, or got another default.

use onnxquant_ir::onnx::NodeProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{float_attribute, int_attribute, ints_attribute, tensor, text_attribute};

use super::context::Context;
use super::error::Refusal;
use super::message::{attribute, input, set, take, take_int, text};

type Rewritten = Result<Vec<NodeProto>, Refusal>;

/// LpPool and GlobalLpPool 2: `p` is an integer.
pub(super) fn integer_p(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    if let Some(p) = take(&mut node, "p")? {
        let (float, rounded) = (p.f(), p.f().round());
        if float != rounded || !(0.0..=f32::from(u16::MAX)).contains(&rounded) {
            return Err(Refusal::NoCounterpart { form: "a fractional `p`", opset: 2 });
        }
        set(&mut node, int_attribute("p", rounded as i64));
    }
    Ok(vec![node])
}

/// Pad 2: `paddings` is called `pads`.
pub(super) fn pads_renamed(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    let pads = take(&mut node, "paddings")?.ok_or(Refusal::Attribute { attribute: "paddings" })?;
    set(&mut node, ints_attribute("pads", &pads.ints));
    Ok(vec![node])
}

/// Split 2: the lengths are an attribute only.
pub(super) fn split_sizes_to_attribute(mut node: NodeProto, context: &mut Context<'_>) -> Rewritten {
    if let Some(sizes) = input(&node, 1).map(str::to_owned) {
        let numbers = context.tensor(&sizes).and_then(|tensor| tensor::to_i64(tensor).ok());
        let numbers = numbers.ok_or(Refusal::NotConstant { value: sizes })?;
        set(&mut node, ints_attribute("split", &numbers));
    }
    node.input.truncate(1);
    Ok(vec![node])
}

/// Concat 4: `axis` has no default any more.
pub(super) fn concat_axis_explicit(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    let axis = take_int(&mut node, "axis", 1)?;
    set(&mut node, int_attribute("axis", axis));
    Ok(vec![node])
}

/// Cast 6: `to` is a number, not a name.
pub(super) fn cast_type_as_number(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    let dtype = DataType::from_str_name(&text(&node, "to", "")?.to_uppercase());
    let dtype = dtype.ok_or(Refusal::Attribute { attribute: "to" })?;
    set(&mut node, int_attribute("to", i64::from(dtype as i32)));
    Ok(vec![node])
}

/// Selu 6: the defaults became more exact.
pub(super) fn selu_defaults_explicit(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    take(&mut node, "consumed_inputs")?;
    for (name, default) in [("alpha", 1.6732), ("gamma", 1.0507)] {
        if attribute(&node, name)?.is_none() {
            set(&mut node, float_attribute(name, default));
        }
    }
    Ok(vec![node])
}

/// Tile 6: one number an axis instead of a number and an axis.
pub(super) fn tile_of_one_axis(_: NodeProto, _: &mut Context<'_>) -> Rewritten {
    Err(Refusal::NoCounterpart { form: "Tile with `tiles` and `axis`", opset: 6 })
}

/// Many operators, 6: `consumed_inputs`, a hint, is gone.
pub(super) fn no_consumed_inputs(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    take(&mut node, "consumed_inputs")?;
    Ok(vec![node])
}

/// RNN, GRU and LSTM 7: naming the output is enough to get the sequence.
pub(super) fn no_output_sequence(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    take(&mut node, "output_sequence")?;
    Ok(vec![node])
}

/// Scan 9 has no batch axis and no lengths.
pub(super) fn scan_with_batch(_: NodeProto, _: &mut Context<'_>) -> Rewritten {
    Err(Refusal::NoCounterpart { form: "Scan over a batch", opset: 9 })
}

/// Scatter is called ScatterElements from opset 11 on.
pub(super) fn scatter_renamed(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    node.op_type = Some("ScatterElements".to_owned());
    Ok(vec![node])
}

/// RoiAlign 16: the mode that was the only one is not the default.
pub(super) fn roi_align_mode_explicit(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    set(&mut node, text_attribute("coordinate_transformation_mode", "output_half_pixel"));
    Ok(vec![node])
}

/// GridSample 20: `bilinear` is called `linear`, `bicubic` `cubic`.
pub(super) fn grid_sample_modes_renamed(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    let renamed = match text(&node, "mode", "bilinear")? {
        "bilinear" => "linear",
        "bicubic" => "cubic",
        _ => return Ok(vec![node]),
    };
    set(&mut node, text_attribute("mode", renamed));
    Ok(vec![node])
}

/// Erf 13, ReduceLogSum and ReduceLogSumExp 28: no integers any more.
pub(super) fn floats_only(node: NodeProto, context: &mut Context<'_>) -> Rewritten {
    use DataType::{Bfloat16, Double, Float, Float16};
    match input(&node, 0).and_then(|data| context.element(data)) {
        None | Some(Float | Float16 | Bfloat16 | Double) => Ok(vec![node]),
        Some(_) => Err(Refusal::NoCounterpart {
            form: "an input of integers",
            opset: if node.op_type() == "Erf" { 13 } else { 28 },
        }),
    }
}
