//! Upsample and Resize: where the scales stand, and how samples are placed.
//!
//! Up to opset 10 both sample at `x_original = x_resized / scale` (called `asymmetric` since opset 11), and
//! nearest neighbours are rounded down when an axis grows and up when it shrinks.

use onnxquant_ir::onnx::NodeProto;
use onnxquant_ir::{tensor, text_attribute};

use super::context::Context;
use super::error::Refusal;
use super::message::{attribute, input, set, set_input, take, text};

type Rewritten = Result<Vec<NodeProto>, Refusal>;

/// Upsample 7: the scales of height and width become one a axis, `bilinear` is called `linear`.
pub(super) fn upsample_scales_of_every_axis(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    let mut scale = |name| {
        let found = take(&mut node, name)?;
        found.map(|found| found.f()).ok_or(Refusal::Attribute { attribute: name })
    };
    let scales = vec![1.0, 1.0, scale("height_scale")?, scale("width_scale")?];
    if text(&node, "mode", "nearest")? == "bilinear" {
        set(&mut node, text_attribute("mode", "linear"));
    }
    set(&mut node, floats_attribute("scales", scales));
    Ok(vec![node])
}

/// Upsample 9: `scales` is an input.
pub(super) fn upsample_scales_to_input(mut node: NodeProto, context: &mut Context<'_>) -> Rewritten {
    let scales = take(&mut node, "scales")?.ok_or(Refusal::Attribute { attribute: "scales" })?.floats;
    set_input(&mut node, 1, context.constant("scales", tensor::from_f32(&[scales.len()], &scales)));
    Ok(vec![node])
}

/// Upsample is Resize from opset 10 on; it only ever grows, so nearest neighbours are rounded down.
pub(super) fn upsample_to_resize(mut node: NodeProto, _: &mut Context<'_>) -> Rewritten {
    node.op_type = Some("Resize".to_owned());
    // An attribute of opset 11 already: the step to it finds the rounding settled.
    set(&mut node, text_attribute("nearest_mode", "floor"));
    Ok(vec![node])
}

/// Resize 11: how samples are placed and rounded is said by attributes; an input `roi` stands in between.
///
/// `roi` is left out, which is allowed from opset 13 on, the lowest opset a model is raised to.
pub(super) fn explicit_sampling(mut node: NodeProto, context: &mut Context<'_>) -> Rewritten {
    let scales = input(&node, 1).unwrap_or_default().to_owned();
    if text(&node, "mode", "nearest")? == "nearest" {
        if attribute(&node, "nearest_mode")?.is_none() {
            let rounding = rounding(&scales, context)?;
            set(&mut node, text_attribute("nearest_mode", rounding));
        }
    } else {
        take(&mut node, "nearest_mode")?;
    }
    set(&mut node, text_attribute("coordinate_transformation_mode", "asymmetric"));
    set_input(&mut node, 1, String::new());
    set_input(&mut node, 2, scales);
    Ok(vec![node])
}

/// The rounding that all axes agree on.
fn rounding(scales: &str, context: &Context<'_>) -> Result<&'static str, Refusal> {
    let not_constant = || Refusal::NotConstant { value: scales.to_owned() };
    let numbers = context.tensor(scales).and_then(|tensor| tensor::to_f32(tensor).ok()).ok_or_else(not_constant)?;
    match (numbers.iter().any(|&scale| scale > 1.0), numbers.iter().any(|&scale| scale < 1.0)) {
        (true, true) => {
            Err(Refusal::NoCounterpart { form: "nearest neighbours with axes that grow and shrink", opset: 11 })
        }
        (_, true) => Ok("ceil"),
        (_, false) => Ok("floor"),
    }
}

/// Resize 13: `roi` and the one of `scales` and `sizes` that does not count are left out, not empty; and the
/// placement `tf_half_pixel_for_nn` is gone.
///
/// That one is `half_pixel` without the final `- 0.5`, which another rounding undoes: with `h = x - 0.5`,
/// `floor(x)` is `h` rounded with halves going up, and `x` rounded with halves going down is `ceil(h)`.
pub(super) fn clean_inputs(mut node: NodeProto, context: &mut Context<'_>) -> Rewritten {
    const PLACEMENT: &str = "coordinate_transformation_mode";
    let placement = text(&node, PLACEMENT, "half_pixel")?.to_owned();
    for slot in 1..node.input.len() {
        let empty =
            input(&node, slot).and_then(|value| context.dims(value)).is_some_and(|dims| dims.contains(&Some(0)));
        if empty || (slot == 1 && placement != "tf_crop_and_resize") {
            set_input(&mut node, slot, String::new());
        }
    }
    if placement == "tf_half_pixel_for_nn" {
        let rounding = match (text(&node, "mode", "nearest")?, text(&node, "nearest_mode", "round_prefer_floor")?) {
            ("nearest", "floor") => "round_prefer_ceil",
            ("nearest", "round_prefer_floor") => "ceil",
            _ => return Err(Refusal::NoCounterpart { form: "this use of `tf_half_pixel_for_nn`", opset: 13 }),
        };
        set(&mut node, text_attribute(PLACEMENT, "half_pixel"));
        set(&mut node, text_attribute("nearest_mode", rounding));
    }
    Ok(vec![node])
}

fn floats_attribute(name: &str, numbers: Vec<f32>) -> onnxquant_ir::onnx::AttributeProto {
    use onnxquant_ir::onnx::{AttributeProto, attribute_proto::AttributeType};
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Floats as i32),
        floats: numbers,
        ..AttributeProto::default()
    }
}
