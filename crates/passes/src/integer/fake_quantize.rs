//! Rounds an activation to 8 or 16 bits, with codes or with the same arithmetic in floats.
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
//! | [`fake_quantize_in_blocks`] | the same, with a scale for every block of a row, as `MatMulNBits` finds it |
//!
//! The float forms need `Div`, `Round`, `Max`, `Min` and `Mul`, the dynamic one also `ReduceMin`, `ReduceMax`, `Sub` and
//! `Add`, all with scalars. `DynamicQuantizeLinear` extends the range to 0 and takes 255 steps for it:
//!
//! ```text
//! low = min(0, min(x)), high = max(0, max(x)), scale = (high - low) / 255, zero_point = round(-low / scale)
//! ```
//!
//! `MatMulNBits` at accuracy level 4, ONNX Runtime's default, rounds each block of a row of its input to int8, with the
//! zero point 0 and the scale `max(|x|) / 127` of the block. Blocks are those of the weight along its inputs; the last one
//! may be short.
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
use onnxquant_ir::{Graph, NodeId, ValueId, int_attribute, ints_attribute, tensor};
use onnxquant_quant::{ActivationGrid, ActivationParams};

use crate::graph::insert::insert;

/// Lowest opset for [`fake_quantize`] and [`fake_quantize_dynamically`]: that of `Round`. `Max` and `Min` broadcast
/// from 8 on.
pub const FAKE_QUANTIZE_OPSET: i64 = 11;

/// The opset that made the axes of `ReduceMax` an input.
const REDUCE_AXES_OPSET: i64 = 18;

/// Lowest opset for [`quantize_dequantize`] with codes of 8 bits.
pub const QUANTIZE_OPSET: i64 = 10;

/// The same with codes of 16 bits.
pub const QUANTIZE_16_OPSET: i64 = 21;

/// The type in which codes are stored.
fn storage(grid: ActivationGrid) -> DataType {
    match (grid.bits(), grid.min_code()) {
        (8, 0) => DataType::Uint8,
        (8, _) => DataType::Int8,
        (_, 0) => DataType::Uint16,
        (..) => DataType::Int16,
    }
}

/// Codes as they are stored.
fn stored(grid: ActivationGrid, dims: &[usize], codes: impl Iterator<Item = i32>) -> TensorProto {
    // Two's complement: the low bytes of a code are what is stored, signed or not.
    let bytes = grid.bits() as usize / 8;
    let raw: Vec<u8> = codes.flat_map(|code| code.to_le_bytes().into_iter().take(bytes)).collect();
    tensor::from_raw(storage(grid), dims, raw)
}

/// Makes `readers`, node inputs, read `value` rounded to the codes of `params`, computed in floats; returns what they
/// read now.
pub fn fake_quantize(
    graph: &mut Graph,
    value: ValueId,
    params: ActivationParams,
    readers: &[(NodeId, usize)],
) -> ValueId {
    let Some(mut place) = Place::before(graph, value, readers) else { return value };
    let (lowest, highest) = params.steps();
    let scale = place.scalar("scale", params.scale());
    let low = place.scalar("lowest_step", lowest as f32);
    let high = place.scalar("highest_step", highest as f32);
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

/// Makes `readers`, node inputs, read `value`, whose last axis has `inputs` elements, rounded as ONNX Runtime rounds it
/// inside `MatMulNBits` with blocks of `block`; returns what they read now.
pub fn fake_quantize_in_blocks(
    graph: &mut Graph,
    opset: i64,
    value: ValueId,
    [inputs, block]: [usize; 2],
    readers: &[(NodeId, usize)],
) -> ValueId {
    let whole = inputs / block * block;
    let Some(mut place) = Place::before(graph, value, readers) else { return value };
    let rounded = match (whole, inputs - whole) {
        (_, 0) => place.rounded_blocks(opset, value, block),
        (0, _) => place.rounded_blocks(opset, value, inputs),
        (_, rest) => {
            let parts = [(0, whole, block), (whole, inputs, rest)].map(|(from, to, block)| {
                let part = place.slice(value, from, to);
                place.rounded_blocks(opset, part, block)
            });
            place.made_with("Concat", &parts, "fake_quantized", vec![int_attribute("axis", -1)])
        }
    };
    redirect(graph, readers, rounded)
}

/// Makes `readers`, node inputs, read `value` through codes: `QuantizeLinear -> DequantizeLinear`; returns what they
/// read now.
///
/// A constant is quantized here and goes when nothing else reads it.
pub fn quantize_dequantize(
    graph: &mut Graph,
    value: ValueId,
    params: ActivationParams,
    readers: &[(NodeId, usize)],
) -> ValueId {
    let constant = quantized(graph, value, params);
    let Some(mut place) = Place::before(graph, value, readers) else { return value };
    let zero_point = stored(params.grid(), &[], std::iter::once(params.zero_point()));
    let scale = place.scalar("scale", params.scale());
    let zero_point = place.constant("zero_point", zero_point);
    let codes = match constant {
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
    let shape = tensor::shape(constant).ok()?;
    Some(stored(params.grid(), &shape, numbers.iter().map(|&x| params.quantize(x))))
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

    fn integers(&mut self, suffix: &str, numbers: &[i64]) -> ValueId {
        let raw: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant(suffix, tensor::from_raw(DataType::Int64, &[numbers.len()], raw))
    }

    /// Elements `from..to` of the last axis.
    fn slice(&mut self, value: ValueId, from: usize, to: usize) -> ValueId {
        let [from, to] = [from, to].map(|end| i64::try_from(end).expect("a dimension of data in memory fits 63 bits"));
        let ends = [self.integers("from", &[from]), self.integers("to", &[to]), self.integers("axis", &[-1])];
        self.made("Slice", &[&[value], ends.as_slice()].concat(), "part")
    }

    /// Each run of `block` elements rounded to codes from -127 to 127 on a scale of its own.
    fn rounded_blocks(&mut self, opset: i64, value: ValueId, block: usize) -> ValueId {
        let shape = self.made("Shape", &[value], "shape");
        let block = i64::try_from(block).expect("a dimension of data in memory fits 63 bits");
        let rows = self.integers("rows", &[-1, block]);
        let blocks = self.made("Reshape", &[value, rows], "blocks");
        let magnitudes = self.made("Abs", &[blocks], "magnitudes");
        let greatest = match opset >= REDUCE_AXES_OPSET {
            true => {
                let axis = self.integers("axis", &[1]);
                self.made("ReduceMax", &[magnitudes, axis], "greatest")
            }
            false => self.made_with("ReduceMax", &[magnitudes], "greatest", vec![ints_attribute("axes", &[1])]),
        };
        let steps = self.scalar("steps", 127.0);
        let least_scale = self.scalar("least_scale", f32::MIN_POSITIVE);
        let scale = self.made("Div", &[greatest, steps], "block_scale");
        let scale = self.made("Max", &[scale, least_scale], "scale");
        let codes = self.made("Div", &[blocks, scale], "over_scale");
        let codes = self.made("Round", &[codes], "steps");
        let rounded = self.made("Mul", &[codes, scale], "rounded_blocks");
        self.made("Reshape", &[rounded, shape], "fake_quantized")
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
