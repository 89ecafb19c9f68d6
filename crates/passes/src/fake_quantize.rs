//! Rounds an activation to 8 bits, with codes or with the same arithmetic in floats.
//!
//! # Problem
//!
//! What a quantized activation does to a model is to be measured with an engine that knows no integer types, and then
//! written for a runtime that has integer kernels. Both must compute the same numbers.
//!
//! # Method
//!
//! | function | written as |
//! |---|---|
//! | [`quantize_dequantize`] | `QuantizeLinear -> DequantizeLinear`; a constant is stored as codes, `DequantizeLinear` alone |
//! | [`fake_quantize`] | `scale * clip(round(x / scale), lowest - zero_point, highest - zero_point)` |
//! | [`fake_quantize_dynamically`] | the same, with the scale and zero point that `DynamicQuantizeLinear` would find |
//!
//! The float forms need `Div`, `Round`, `Max`, `Min` and `Mul`, the dynamic one also `ReduceMin`, `ReduceMax`, `Sub` and
//! `Add`, all with scalars. `DynamicQuantizeLinear` extends the range to 0 and takes 255 steps for it:
//!
//! ```text
//! low = min(0, min(x)), high = max(0, max(x)), scale = (high - low) / 255, zero_point = round(-low / scale)
//! ```
//!
//! `low / scale` lies between -255 and 0, so that the zero point needs no saturation, and `round(low / scale)` is its
//! negative. Codes then run from `-zero_point` to `255 - zero_point` in steps of the scale.
//!
//! # Guarantee
//!
//! An engine that divides and rounds half to even as ONNX says gets the same numbers from the float forms as from codes;
//! a zero may have the other sign. An engine that multiplies with the reciprocal instead differs by a step where a
//! quotient lies within its own rounding of a tie.
//!
//! # Numerics
//!
//! The dynamic scale is kept at or above the least normal number: an input of zeros stays zero. (With codes a range of
//! zero gets the scale 1, which gives zero as well.) NaN has no code; the float forms may pass it on.
//!
//! # Failure
//!
//! Values must be f32, which is not checked here. Without readers nothing is written. Graph outputs and subgraphs go on
//! reading the value as it was: only the given node inputs change.
//!
//! # References
//!
//! ONNX operator specification, `QuantizeLinear`, `DequantizeLinear`, `DynamicQuantizeLinear`.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, TensorProto};
use onnxquant_ir::{Graph, NodeId, ValueId, int_attribute, tensor};
use onnxquant_quant::{Affine, Grid};

use crate::insert::insert;

/// Lowest opset for [`fake_quantize`] and [`fake_quantize_dynamically`]: that of `Round`. `Max` and `Min` broadcast
/// from 8 on.
pub const FAKE_QUANTIZE_OPSET: i64 = 11;

/// Lowest opset for [`quantize_dequantize`].
pub const QUANTIZE_OPSET: i64 = 10;

/// What the codes of an activation mean: `real = scale * (code - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationParams {
    /// Real units per code, a positive normal number.
    pub scale: f32,
    /// The code that means 0, one of the codes.
    pub zero_point: i32,
    /// Codes from -128 to 127, else from 0 to 255.
    pub signed: bool,
}

impl ActivationParams {
    fn storage(self) -> DataType {
        if self.signed { DataType::Int8 } else { DataType::Uint8 }
    }

    fn grid(self) -> Grid {
        let grid = if self.signed { Grid::full_range(8) } else { Grid::asymmetric(8) };
        grid.expect("there are grids of 8 bits")
    }

    fn zero_point(self) -> i16 {
        let code = i16::try_from(self.zero_point).ok().filter(|&code| self.grid().contains(code));
        code.expect("a zero point is one of the codes")
    }
}

/// Makes `readers`, node inputs, read `value` rounded to the codes of `params`, computed in floats; returns what they
/// read now.
///
/// # Panics
/// When the zero point is none of the codes.
pub fn fake_quantize(
    graph: &mut Graph,
    value: ValueId,
    params: ActivationParams,
    readers: &[(NodeId, usize)],
) -> ValueId {
    let Some(mut place) = Place::before(graph, value, readers) else { return value };
    let (grid, zero_point) = (params.grid(), params.zero_point());
    let scale = place.scalar("scale", params.scale);
    let low = place.scalar("lowest_step", f32::from(grid.min_code() - zero_point));
    let high = place.scalar("highest_step", f32::from(grid.max_code() - zero_point));
    let rounded = place.rounded(value, scale, low, high);
    redirect(graph, readers, rounded)
}

/// Makes `readers`, node inputs, read `value` rounded as `DynamicQuantizeLinear` would round it, computed in floats;
/// returns what they read now.
pub fn fake_quantize_dynamically(graph: &mut Graph, value: ValueId, readers: &[(NodeId, usize)]) -> ValueId {
    let Some(mut place) = Place::before(graph, value, readers) else { return value };
    let zero = place.scalar("zero", 0.0);
    let steps = place.scalar("steps", 255.0);
    let least_scale = place.scalar("least_scale", f32::MIN_POSITIVE);
    let least = place.reduced("ReduceMin", value, "least");
    let least = place.made("Min", &[least, zero], "range_low");
    let greatest = place.reduced("ReduceMax", value, "greatest");
    let greatest = place.made("Max", &[greatest, zero], "range_high");
    let range = place.made("Sub", &[greatest, least], "range");
    let scale = place.made("Div", &[range, steps], "range_scale");
    let scale = place.made("Max", &[scale, least_scale], "scale");
    let low = place.made("Div", &[least, scale], "range_low_steps");
    let low = place.made("Round", &[low], "lowest_step");
    let high = place.made("Add", &[low, steps], "highest_step");
    let rounded = place.rounded(value, scale, low, high);
    redirect(graph, readers, rounded)
}

/// Makes `readers`, node inputs, read `value` through codes: `QuantizeLinear -> DequantizeLinear`; returns what they
/// read now.
///
/// A constant is quantized here and goes when nothing else reads it.
///
/// # Panics
/// When the zero point is none of the codes.
pub fn quantize_dequantize(
    graph: &mut Graph,
    value: ValueId,
    params: ActivationParams,
    readers: &[(NodeId, usize)],
) -> ValueId {
    let stored = quantized(graph, value, params);
    let Some(mut place) = Place::before(graph, value, readers) else { return value };
    let zero_point = tensor::from_codes(params.storage(), &[], [params.zero_point()]);
    let scale = place.scalar("scale", params.scale);
    let zero_point = place.constant("zero_point", zero_point);
    let codes = match stored {
        Some(codes) => place.constant("quantized", codes),
        None => place.made("QuantizeLinear", &[value, scale, zero_point], "quantized"),
    };
    let decoded = place.made("DequantizeLinear", &[codes, scale, zero_point], "dequantized");
    redirect(graph, readers, decoded);
    graph.remove_if_unused(value);
    decoded
}

/// The codes of a constant; `None` where the value is none, or no f32 numbers.
fn quantized(graph: &Graph, value: ValueId, params: ActivationParams) -> Option<TensorProto> {
    let constant = graph.value(value).constant().filter(|tensor| tensor.data_type() == DataType::Float as i32)?;
    let numbers = tensor::to_f32(constant).ok().filter(|numbers| numbers.iter().all(|number| !number.is_nan()))?;
    let affine = Affine::new(params.scale, params.zero_point()).ok()?;
    let (grid, shape) = (params.grid(), tensor::shape(constant).ok()?);
    Some(tensor::from_codes(params.storage(), &shape, numbers.iter().map(|&x| affine.quantize(x, &grid))))
}

fn redirect(graph: &mut Graph, readers: &[(NodeId, usize)], value: ValueId) -> ValueId {
    readers.iter().for_each(|&(node, slot)| graph.set_input(node, slot, Some(value)));
    value
}

/// Where operators are inserted, and after which value they are named.
struct Place<'a> {
    graph: &'a mut Graph,
    before: NodeId,
    name: String,
}

impl<'a> Place<'a> {
    /// Before the first of `readers` in execution order, where there is one.
    fn before(graph: &'a mut Graph, value: ValueId, readers: &[(NodeId, usize)]) -> Option<Self> {
        let reads = |id: &NodeId| readers.iter().any(|(reader, _)| reader == id);
        let before = graph.order().iter().copied().find(reads)?;
        let name = graph.value(value).name().to_owned();
        Some(Self { graph, before, name })
    }

    fn constant(&mut self, suffix: &str, tensor: TensorProto) -> ValueId {
        self.graph.add_constant(&format!("{}_{suffix}", self.name), tensor)
    }

    fn scalar(&mut self, suffix: &str, number: f32) -> ValueId {
        self.constant(suffix, tensor::from_f32(&[], &[number]))
    }

    fn made(&mut self, op_type: &'static str, inputs: &[ValueId], suffix: &str) -> ValueId {
        self.made_with(op_type, inputs, suffix, vec![])
    }

    /// A scalar: the operator over all dimensions.
    fn reduced(&mut self, op_type: &'static str, value: ValueId, suffix: &str) -> ValueId {
        self.made_with(op_type, &[value], suffix, vec![int_attribute("keepdims", 0)])
    }

    fn made_with(
        &mut self,
        op_type: &'static str,
        inputs: &[ValueId],
        suffix: &str,
        attributes: Vec<AttributeProto>,
    ) -> ValueId {
        insert(self.graph, self.before, op_type, inputs, format!("{}_{suffix}", self.name), attributes)
    }

    /// `scale * clip(round(value / scale), low, high)`.
    fn rounded(&mut self, value: ValueId, scale: ValueId, low: ValueId, high: ValueId) -> ValueId {
        let steps = self.made("Div", &[value, scale], "over_scale");
        let steps = self.made("Round", &[steps], "steps");
        let steps = self.made("Max", &[steps, low], "steps_above");
        let steps = self.made("Min", &[steps, high], "steps_within");
        self.made("Mul", &[steps, scale], "fake_quantized")
    }
}

#[cfg(test)]
#[path = "fake_quantize_tests.rs"]
mod tests;
