//! What saturating sums of products do to a layer's result, as one operator.
//!
//! # Problem
//!
//! Integer kernels of x86 processors without VNNI add the products of two neighbours in 16 bits, saturating
//! ([`onnxquant_quant::PairRule`]). What a model loses there is to be measured with an engine that multiplies floats.
//!
//! # Shapes and units
//!
//! | input | |
//! |---|---|
//! | `y` | the exact result of a layer: f32, or the int32 sums of products |
//! | `x` | what the layer reads, decoded from codes |
//! | `scale` | real numbers per code step of `x`, a scalar |
//! | `low` | the lowest code of `x` in steps from the code that means 0, a scalar: -128 for int8 with the zero point 0 |
//! | `weight_scales` | real numbers per code step of the weight, one for each output |
//!
//! | attribute | |
//! |---|---|
//! | `weight_shape` | that of the operator: `[K, M]`, or that of a Conv |
//! | `pairs` | of each pair that can saturate: the output, its two inputs in the group, their two codes |
//! | `group`, `strides`, `dilations`, `pads`, `auto_pad` | all those of a Conv, defaults written out |
//!
//! # Method
//!
//! Kernels see unsigned codes `a = round(x / scale) - low`; signed ones are shifted by 128 before. The result is
//!
//! ```text
//! y[m] + scale * weight_scales[m] * sum over the pairs of m: clamp(a q + a' q') - (a q + a' q')
//! ```
//!
//! Where a Conv reads its padding `x` is 0, and `a` the zero point, as in the kernel.
//!
//! # Numerics
//!
//! Sums of two products are exact in f32; those over pairs below 2^24.
//!
//! # Cost
//!
//! One multiply-add and a comparison for each pair and row of the input; a Conv's input is unfolded once more.

use crate::engine::contract::SATURATE_PAIRS;
use ndarray::{ArrayD, ArrayViewD};
use onnxquant_quant::{Chunks, ConvGeometry, MatrixView, Padding};
use tract_onnx::Onnx;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{
    DatumType, EvalContext, EvalOp, IntoTensor, Op, StaticName, TValue, TVec, Tensor, TractResult, TypedFact, TypedOp,
    as_op, bail, check_input_arity, check_output_arity, ensure, inference_wrap, op_as_typed_op, op_out_of_plan, tvec,
};

const N_INPUTS: usize = 5;

/// Rows of the input that are held as columns together.
const CHUNK_ROWS: usize = 1024;

/// What stands for one pair in the attribute.
const NUMBERS_A_PAIR: usize = 5;

/// Two inputs of an output that are multiplied side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pair {
    inputs: [usize; 2],
    codes: [f32; 2],
}

/// The layer, and by output the pairs that can saturate.
#[derive(Clone, Debug, PartialEq)]
struct SaturatePairs {
    view: MatrixView,
    pairs: Vec<Vec<Pair>>,
}

impl Eq for SaturatePairs {}

/// Makes the operator known to the engine.
pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert(SATURATE_PAIRS, |_, node| {
        let operator = SaturatePairs::parse(node)?;
        Ok((inference_wrap(operator, 1, rules), vec![]))
    });
}

/// The result is like `y`.
fn rules<'p>(
    _: &dyn Op,
    solver: &mut Solver<'_>,
    inputs: &'p [TensorProxy],
    outputs: &'p [TensorProxy],
) -> InferenceResult {
    check_input_arity(inputs, N_INPUTS)?;
    check_output_arity(outputs, 1)?;
    solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
    solver.equals(&inputs[0].shape, &outputs[0].shape)?;
    Ok(())
}

impl SaturatePairs {
    fn parse(node: &NodeProto) -> TractResult<Self> {
        let view = view(node)?;
        let mut pairs = vec![Vec::new(); view.groups() * view.outputs()];
        for numbers in node.get_attr_slice::<i64>("pairs")?.as_chunks::<NUMBERS_A_PAIR>().0 {
            let [output, first, second, code, other] = *numbers;
            let inputs = [usize::try_from(first)?, usize::try_from(second)?];
            let Some(own) = usize::try_from(output).ok().and_then(|output| pairs.get_mut(output)) else {
                bail!("there is no output {output}")
            };
            ensure!(inputs.iter().all(|input| *input < view.inputs()), "there are no inputs {inputs:?}");
            own.push(Pair { inputs, codes: [code as f32, other as f32] });
        }
        Ok(Self { view, pairs })
    }

    /// What saturation adds to the sums of products, in the order of the layer's result, for `steps` of the input.
    fn excess(&self, steps: ArrayViewD<'_, f32>, low: f32, scales: &[f32]) -> TractResult<Vec<f32>> {
        let (groups, outputs) = (self.view.groups(), self.view.outputs());
        let rows = self.view.rows(steps.shape())?;
        // Rows of one sample: its output positions.
        let positions = if self.view.is_dense() { 1 } else { rows / steps.shape()[0].max(1) };
        let mut excess = vec![0.0; rows * groups * outputs];
        for group in 0..groups {
            let mut first = 0;
            self.view.for_each_rows(steps.view(), group, Chunks::all(CHUNK_ROWS), &mut |chunk| {
                let columns = chunk.t();
                let columns = columns.as_standard_layout();
                let mut sums = vec![0.0; chunk.nrows()];
                for output in group * outputs..(group + 1) * outputs {
                    let Some(pairs) = self.pairs.get(output).filter(|pairs| !pairs.is_empty()) else { continue };
                    sums.fill(0.0);
                    for pair in pairs {
                        let [a, b] = pair.inputs.map(|input| columns.row(input));
                        let numbers = sums.iter_mut().zip(a.iter().zip(b.iter()));
                        numbers.for_each(|(sum, (a, b))| *sum += cut([a - low, b - low], pair.codes));
                    }
                    for (row, sum) in (first..).zip(&sums) {
                        let (sample, position) = (row / positions, row % positions);
                        excess[(sample * groups * outputs + output) * positions + position] = sum * scales[output];
                    }
                }
                first += chunk.nrows();
            })?;
        }
        Ok(excess)
    }
}

/// What is cut off the sum of two products that has 16 bits.
fn cut(activations: [f32; 2], codes: [f32; 2]) -> f32 {
    let sum = activations[0] * codes[0] + activations[1] * codes[1];
    sum.clamp(f32::from(i16::MIN), f32::from(i16::MAX)) - sum
}

fn view(node: &NodeProto) -> TractResult<MatrixView> {
    let sizes = |name: &str| -> TractResult<Vec<usize>> {
        node.get_attr_slice::<i64>(name)?.iter().map(|&size| Ok(usize::try_from(size)?)).collect()
    };
    let shape = sizes("weight_shape")?;
    let [first, second, kernel @ ..] = shape.as_slice() else { bail!("the weight has shape {shape:?}") };
    if kernel.is_empty() {
        return Ok(MatrixView::Dense { inputs: *first, outputs: *second, transposed: false });
    }
    let groups: usize = node.get_attr("group")?;
    let pads = sizes("pads")?;
    let padding = match node.get_attr::<String>("auto_pad")?.as_str() {
        "SAME_UPPER" => Padding::SameUpper,
        "SAME_LOWER" => Padding::SameLower,
        "VALID" => Padding::Valid,
        _ => {
            ensure!(pads.len() == 2 * kernel.len(), "pads is {pads:?}");
            let (begin, end) = pads.split_at(kernel.len());
            Padding::Explicit { begin: begin.to_vec(), end: end.to_vec() }
        }
    };
    let geometry = ConvGeometry {
        groups,
        out_channels: *first,
        in_channels: second * groups,
        kernel: kernel.to_vec(),
        strides: sizes("strides")?,
        dilations: sizes("dilations")?,
        padding,
    };
    geometry.check()?;
    Ok(MatrixView::Conv(geometry))
}

impl Op for SaturatePairs {
    fn name(&self) -> StaticName {
        "SaturatePairs".into()
    }

    op_as_typed_op!();
}

impl EvalOp for SaturatePairs {
    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [y, x, scale, low, weight_scales] = inputs.as_slice() else { bail!("it has {} inputs", inputs.len()) };
        let numbers = |value: &TValue| -> TractResult<ArrayD<f32>> {
            value.cast_to::<f32>()?.into_owned().into_plain_array::<f32>()
        };
        let scalar = |value: &TValue| -> TractResult<f32> { Ok(numbers(value)?.first().copied().unwrap_or(f32::NAN)) };
        let (scale, low) = (scalar(scale)?, scalar(low)?);
        let steps = numbers(x)?.mapv(|x| (x / scale).round_ties_even());
        let scales: Vec<f32> = numbers(weight_scales)?.iter().map(|weight| weight * scale).collect();
        ensure!(scales.len() == self.pairs.len(), "{} scales for {} outputs", scales.len(), self.pairs.len());
        let excess = self.excess(steps.view(), low, &scales)?;
        let mut y = y.clone().into_tensor();
        ensure!(y.len() == excess.len(), "{} results, expected {}", y.len(), excess.len());
        add(&mut y, &excess)?;
        Ok(tvec!(y.into()))
    }

    op_out_of_plan!();
}

impl TypedOp for SaturatePairs {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    as_op!();
}

fn add(y: &mut Tensor, excess: &[f32]) -> TractResult<()> {
    let datum_type = y.datum_type();
    let mut memory = y.try_as_plain_ram_mut()?;
    match datum_type {
        DatumType::F32 => memory.as_slice_mut::<f32>()?.iter_mut().zip(excess).for_each(|(y, more)| *y += more),
        DatumType::I32 => memory.as_slice_mut::<i32>()?.iter_mut().zip(excess).for_each(|(y, more)| *y += *more as i32),
        other => bail!("the result is {other:?}, expected f32 or i32"),
    }
    Ok(())
}

#[cfg(test)]
#[path = "saturate_pairs_tests.rs"]
mod tests;
