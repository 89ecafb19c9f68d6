//! How an operator's weight and input are read as matrices.
//!
//! A layer is `Y = X W` for every group: `W` is K x M (K inputs, M outputs, one
//! column a neuron) and `X` holds one input row per position. A dense layer is
//! that already; a convolution becomes it when its input is unfolded into
//! patches (module [`crate::unfold`]). The order of the K inputs of a
//! convolution is that of the ONNX weight `[out, in/groups, kernel...]`: channel
//! in the group first, kernel positions row-major after it.
//!
//! All of it checks ranks and shapes and returns errors; nothing panics on a
//! shape that came from a file.

use crate::error::QuantError;
use crate::unfold::Unfold;
use ndarray::{Array3, ArrayD, ArrayView2, ArrayView3, ArrayViewD, Axis, IxDyn};

/// What a padded convolution reads beyond its input's border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Zeros before and after, one number per spatial dimension.
    Explicit {
        /// Zeros before the first element.
        begin: Vec<usize>,
        /// Zeros after the last element.
        end: Vec<usize>,
    },
    /// Output size `ceil(input / stride)`; an odd zero goes to the end.
    SameUpper,
    /// Output size `ceil(input / stride)`; an odd zero goes to the beginning.
    SameLower,
    /// No zeros.
    Valid,
}

/// A convolution in any number of spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Number of groups.
    pub groups: usize,
    /// Output channels of all groups together.
    pub out_channels: usize,
    /// Input channels of all groups together.
    pub in_channels: usize,
    /// Kernel size per spatial dimension.
    pub kernel: Vec<usize>,
    /// Stride per spatial dimension.
    pub strides: Vec<usize>,
    /// Dilation per spatial dimension.
    pub dilations: Vec<usize>,
    /// Zeros around the input.
    pub padding: Padding,
}

/// No kernel, stride, dilation or padding of a real operator is larger, and
/// products of two such numbers cannot overflow.
const LARGEST: usize = 1 << 24;

/// Along one spatial dimension: what is read and what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Zeros before the first input element.
    pub(crate) before: usize,
    /// Output positions.
    pub(crate) output: usize,
}

impl ConvGeometry {
    /// Checks that all fields fit together.
    pub fn check(&self) -> Result<(), QuantError> {
        let rank = self.kernel.len();
        let fault = |text: String| Err(QuantError::Geometry(text));
        if rank == 0 {
            return fault("the kernel has no spatial dimension".into());
        }
        let mut lists = vec![("strides", &self.strides), ("dilations", &self.dilations)];
        if let Padding::Explicit { begin, end } = &self.padding {
            lists.extend([("pads at the begin", begin), ("pads at the end", end)]);
        }
        for (name, list) in &lists {
            if list.len() != rank {
                return fault(format!("{name} are {list:?}, expected {rank} numbers"));
            }
        }
        let positive = [("kernel", &self.kernel), lists[0], lists[1]];
        for (name, list) in positive {
            if list.iter().any(|n| *n == 0 || *n > LARGEST) {
                return fault(format!("{name} is {list:?}, expected numbers from 1 to {LARGEST}"));
            }
        }
        for (name, list) in &lists {
            if list.iter().any(|n| *n > LARGEST) {
                return fault(format!("{name} are {list:?}, expected at most {LARGEST}"));
            }
        }
        for (name, channels) in [("output", self.out_channels), ("input", self.in_channels)] {
            if self.groups == 0 || channels == 0 || channels % self.groups != 0 {
                let groups = self.groups;
                return fault(format!("{channels} {name} channels in {groups} groups, expected a positive multiple"));
            }
        }
        Ok(())
    }

    /// Input channels of one group.
    pub(crate) fn group_channels(&self) -> usize {
        self.in_channels / self.groups.max(1)
    }

    /// Output size and leading padding along one spatial dimension.
    pub(crate) fn extent(&self, dim: usize, input: usize) -> Result<Extent, QuantError> {
        let reach = (self.kernel[dim] - 1) * self.dilations[dim] + 1;
        let stride = self.strides[dim];
        let (before, padded) = match &self.padding {
            Padding::Explicit { begin, end } => (begin[dim], input + begin[dim] + end[dim]),
            Padding::Valid => (0, input),
            same => {
                let output = input.div_ceil(stride);
                let needed = (output.max(1) - 1) * stride + reach;
                let total = needed.saturating_sub(input);
                let before = match same {
                    Padding::SameLower => total.div_ceil(2),
                    _ => total / 2,
                };
                return Ok(Extent { before, output });
            }
        };
        if padded < reach {
            return Err(QuantError::Geometry(format!(
                "spatial dimension {dim} has {padded} elements with padding, \
                 expected at least the {reach} that the kernel spans"
            )));
        }
        let output = (padded - reach) / stride + 1;
        Ok(Extent { before, output })
    }
}

/// How weight and input of an operator are read as matrices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatrixView {
    /// Gemm or MatMul: input `[..., inputs]`.
    Dense {
        /// K, inputs per neuron.
        inputs: usize,
        /// M, neurons.
        outputs: usize,
        /// The weight is stored `[outputs, inputs]` instead of `[inputs, outputs]`.
        transposed: bool,
    },
    /// Conv: input `[batch, channels, spatial...]`.
    Conv(ConvGeometry),
}

impl MatrixView {
    /// Number of independent problems.
    pub fn groups(&self) -> usize {
        match self {
            MatrixView::Dense { .. } => 1,
            MatrixView::Conv(conv) => conv.groups,
        }
    }

    /// K: inputs per neuron, in one group.
    pub fn inputs(&self) -> usize {
        match self {
            MatrixView::Dense { inputs, .. } => *inputs,
            MatrixView::Conv(conv) => conv.group_channels() * conv.kernel.iter().product::<usize>(),
        }
    }

    /// M: neurons in one group.
    pub fn outputs(&self) -> usize {
        match self {
            MatrixView::Dense { outputs, .. } => *outputs,
            MatrixView::Conv(conv) => conv.out_channels / conv.groups.max(1),
        }
    }

    /// The shape in which the operator stores its weight.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            MatrixView::Dense { inputs, outputs, transposed: false } => vec![*inputs, *outputs],
            MatrixView::Dense { inputs, outputs, .. } => vec![*outputs, *inputs],
            MatrixView::Conv(conv) => {
                let mut shape = vec![conv.out_channels, conv.group_channels()];
                shape.extend(&conv.kernel);
                shape
            }
        }
    }

    /// The stored weight as `[groups, K, M]`.
    pub fn to_matrix<T: Copy>(&self, weight: ArrayViewD<'_, T>) -> Result<Array3<T>, QuantError> {
        self.check()?;
        let shape = self.weight_shape();
        if weight.shape() != shape {
            return Err(shape_error("weight", weight.shape(), format!("{shape:?}")));
        }
        let (g, k, m) = (self.groups(), self.inputs(), self.outputs());
        let by_neuron = !matches!(self, MatrixView::Dense { transposed: false, .. });
        let stored = if by_neuron { (g, m, k) } else { (g, k, m) };
        let weight = weight.as_standard_layout();
        let mut matrix = weight.to_shape(stored).map_err(|_| shape_error("weight", &shape, format!("{stored:?}")))?;
        if by_neuron {
            matrix.swap_axes(1, 2);
        }
        Ok(matrix.as_standard_layout().into_owned())
    }

    /// The inverse of [`MatrixView::to_matrix`], for codes as well as weights.
    pub fn from_matrix<T: Copy>(&self, matrix: ArrayView3<'_, T>) -> Result<ArrayD<T>, QuantError> {
        self.check()?;
        let expected = [self.groups(), self.inputs(), self.outputs()];
        if matrix.shape() != expected {
            return Err(shape_error("matrix", matrix.shape(), format!("{expected:?}")));
        }
        let mut stored = matrix;
        if !matches!(self, MatrixView::Dense { transposed: false, .. }) {
            stored.swap_axes(1, 2);
        }
        let flat: Vec<T> = stored.iter().copied().collect();
        let shape = self.weight_shape();
        ArrayD::from_shape_vec(IxDyn(&shape), flat).map_err(|_| shape_error("matrix", &expected, format!("{shape:?}")))
    }

    /// Hands the input of one group to `visit` as matrices `[rows, K]`, in the
    /// order of the output positions.
    ///
    /// The memory layout of a chunk is whatever is quickest: row-major for a
    /// dense layer, column-major for unfolded patches.
    pub fn for_each_rows(
        &self,
        input: ArrayViewD<'_, f32>,
        group: usize,
        chunks: Chunks,
        visit: &mut dyn FnMut(ArrayView2<'_, f32>),
    ) -> Result<(), QuantError> {
        self.check()?;
        if group >= self.groups() {
            return Err(QuantError::Setting {
                what: "group",
                found: group.to_string(),
                expected: "a group that exists",
            });
        }
        match self {
            MatrixView::Dense { inputs, .. } => dense_rows(input, *inputs, chunks, visit),
            MatrixView::Conv(conv) => {
                Unfold::new(conv, input.shape())?.for_each_chunk(input, group, chunks, visit);
                Ok(())
            }
        }
    }

    /// Rows `[n, K]` that an input of this shape has, in each group.
    pub fn rows(&self, shape: &[usize]) -> Result<usize, QuantError> {
        self.check()?;
        match self {
            MatrixView::Dense { inputs, .. } => Ok(shape.iter().product::<usize>() / inputs),
            MatrixView::Conv(conv) => Ok(Unfold::new(conv, shape)?.rows()),
        }
    }

    fn check(&self) -> Result<(), QuantError> {
        match self {
            MatrixView::Dense { inputs, outputs, .. } if *inputs == 0 || *outputs == 0 => Err(QuantError::Setting {
                what: "size of the dense layer",
                found: format!("{inputs} inputs, {outputs} outputs"),
                expected: "at least one of each",
            }),
            MatrixView::Dense { .. } => Ok(()),
            MatrixView::Conv(conv) => conv.check(),
        }
    }
}

/// How the rows of an input are divided, and which of them are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Most rows of a chunk.
    rows: usize,
    /// One of so many chunks is taken.
    every: usize,
    /// The first that is.
    first: usize,
}

impl Chunks {
    /// All rows, `rows` (at least one) at a time.
    pub fn all(rows: usize) -> Self {
        Self { rows: rows.max(1), every: 1, first: 0 }
    }

    /// Of every `every` chunks that with the number `phase`, which is taken modulo `every`.
    pub fn one_of(self, every: usize, phase: usize) -> Self {
        let every = every.max(1);
        Self { every, first: phase % every, ..self }
    }

    /// Most rows of a chunk.
    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    /// The chunks to take, of all those there are.
    pub(crate) fn taken<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.first).step_by(self.every)
    }
}

fn dense_rows(
    input: ArrayViewD<'_, f32>,
    inputs: usize,
    chunks: Chunks,
    visit: &mut dyn FnMut(ArrayView2<'_, f32>),
) -> Result<(), QuantError> {
    let expected = || format!("[..., {inputs}]");
    if input.shape().last() != Some(&inputs) {
        return Err(shape_error("input", input.shape(), expected()));
    }
    let input = input.as_standard_layout();
    let rows =
        input.to_shape((input.len() / inputs, inputs)).map_err(|_| shape_error("input", input.shape(), expected()))?;
    chunks.taken(rows.axis_chunks_iter(Axis(0), chunks.rows())).for_each(&mut *visit);
    Ok(())
}

pub(crate) fn shape_error(what: &'static str, found: &[usize], expected: String) -> QuantError {
    QuantError::Shape { what, found: found.to_vec(), expected }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
