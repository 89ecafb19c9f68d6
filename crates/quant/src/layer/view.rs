//! How an operator's weight and input are read as matrices.
//!
//! A layer is `Y = X W` for every group: `W` is K x M (K inputs, M outputs, one
//! column a neuron) and `X` holds one input row per position. A dense layer is
//! that already; a convolution becomes it when its input is unfolded into
//! patches (module [`crate::layer::unfold`]). The order of the K inputs of a
//! convolution is that of the ONNX weight `[out, in/groups, kernel...]`: channel
//! in the group first, kernel positions row-major after it.
//!
//! All of it checks ranks and shapes and returns errors; nothing panics on a
//! shape that came from a file.

use crate::error::{QuantError, shape_error};
use crate::layer::chunks::Chunks;
use crate::layer::geometry::ConvGeometry;
use crate::layer::unfold::Unfold;
use ndarray::{Array3, ArrayD, ArrayView2, ArrayView3, ArrayViewD, Axis, IxDyn};

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

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
