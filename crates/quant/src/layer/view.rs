//! How an operator's weight and input are read as matrices.
//!
//! A layer is `Y = X W` for every group: `W` is K x M (K inputs, M outputs, one
//! column a neuron) and `X` holds one input row per position. A dense layer is
//! that already; a convolution becomes it when its input is unfolded into
//! patches (module [`crate::layer::unfold`]), and a transposed one when zeros are put
//! between its elements first (module [`crate::layer::transposed`]). The order of the K inputs of a
//! convolution is that of the ONNX weight `[out, in/groups, kernel...]`: channel
//! in the group first, kernel positions row-major after it.
//!
//! All of it checks ranks and shapes and returns errors; nothing panics on a
//! shape that came from a file.

use crate::error::{QuantError, shape_error};
use crate::layer::chunks::Chunks;
use crate::layer::geometry::ConvGeometry;
use crate::layer::transposed::TransposedConv;
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
    /// ConvTranspose: input `[batch, channels, spatial...]`.
    ConvTranspose(TransposedConv),
}

impl MatrixView {
    /// Whether it is a Gemm or MatMul.
    pub fn is_dense(&self) -> bool {
        self.conv().is_none()
    }

    /// Channels, kernel and steps of a convolution of either kind.
    pub fn conv(&self) -> Option<&ConvGeometry> {
        match self {
            MatrixView::Dense { .. } => None,
            MatrixView::Conv(conv) => Some(conv),
            MatrixView::ConvTranspose(transposed) => Some(&transposed.conv),
        }
    }

    /// The same of a convolution that is not transposed.
    pub fn plain_conv(&self) -> Option<&ConvGeometry> {
        match self {
            MatrixView::Conv(conv) => Some(conv),
            MatrixView::Dense { .. } | MatrixView::ConvTranspose(_) => None,
        }
    }

    /// The same matrices of a weight that is not stored transposed.
    pub fn untransposed(&self) -> MatrixView {
        match *self {
            MatrixView::Dense { inputs, outputs, .. } => MatrixView::Dense { inputs, outputs, transposed: false },
            _ => self.clone(),
        }
    }

    /// Spatial dimensions of input and result, none of a dense layer.
    pub fn spatial_rank(&self) -> usize {
        self.conv().map_or(0, |conv| conv.kernel.len())
    }

    /// Channels of the input: those along which it may be scaled.
    pub fn in_channels(&self) -> usize {
        match self {
            MatrixView::Dense { inputs, .. } => *inputs,
            MatrixView::Conv(conv) | MatrixView::ConvTranspose(TransposedConv { conv, .. }) => conv.in_channels,
        }
    }

    /// Number of independent problems.
    pub fn groups(&self) -> usize {
        self.conv().map_or(1, |conv| conv.groups)
    }

    /// K: inputs per neuron, in one group.
    pub fn inputs(&self) -> usize {
        self.in_channels() / self.groups().max(1) * self.positions()
    }

    /// Kernel positions, 1 of a dense layer.
    pub fn positions(&self) -> usize {
        self.conv().map_or(1, |conv| conv.kernel.iter().product())
    }

    /// M: neurons in one group.
    pub fn outputs(&self) -> usize {
        match self {
            MatrixView::Dense { outputs, .. } => *outputs,
            MatrixView::Conv(conv) | MatrixView::ConvTranspose(TransposedConv { conv, .. }) => {
                conv.out_channels / conv.groups.max(1)
            }
        }
    }

    /// The shape in which the operator stores its weight.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            MatrixView::Dense { inputs, outputs, transposed: false } => vec![*inputs, *outputs],
            MatrixView::Dense { inputs, outputs, .. } => vec![*outputs, *inputs],
            MatrixView::Conv(conv) => [vec![conv.out_channels, conv.group_channels()], conv.kernel.clone()].concat(),
            MatrixView::ConvTranspose(transposed) => transposed.weight_shape(),
        }
    }

    /// Channel of the input and neuron, of all groups, that element `index` of the stored weight belongs to.
    pub fn channel_and_output(&self, index: usize) -> (usize, usize) {
        let filter = index / self.positions().max(1);
        let (groups, outputs) = (self.groups().max(1), self.outputs().max(1));
        let channels = (self.in_channels() / groups).max(1);
        match self {
            MatrixView::Dense { transposed: false, .. } => (index / outputs, index % outputs),
            MatrixView::Dense { .. } => (index % channels, index / channels),
            // [groups * out/groups, in/groups, kernel...]
            MatrixView::Conv(_) => {
                let output = filter / channels;
                (output / outputs * channels + filter % channels, output)
            }
            // [groups * in/groups, out/groups, kernel...]
            MatrixView::ConvTranspose(_) => {
                let channel = filter / outputs;
                (channel, channel / channels * outputs + filter % outputs)
            }
        }
    }

    /// The same input read for one neuron a group: what statistics of the input depend on.
    pub fn of_one_output(&self) -> MatrixView {
        let one = |conv: &ConvGeometry| ConvGeometry { out_channels: conv.groups, ..conv.clone() };
        match self {
            MatrixView::Dense { inputs, .. } => MatrixView::Dense { inputs: *inputs, outputs: 1, transposed: false },
            MatrixView::Conv(conv) => MatrixView::Conv(one(conv)),
            MatrixView::ConvTranspose(transposed) => {
                MatrixView::ConvTranspose(TransposedConv { conv: one(&transposed.conv), ..transposed.clone() })
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
        let weight = weight.as_standard_layout();
        let (stored, order) = self.stored();
        let mut matrix = weight.to_shape(stored).map_err(|_| shape_error("weight", &shape, format!("{stored:?}")))?;
        if matches!(self, MatrixView::ConvTranspose(_)) {
            matrix.invert_axis(Axis(3));
        }
        let matrix = matrix.permuted_axes(order);
        let matrix: Vec<T> = matrix.iter().copied().collect();
        let wanted = (self.groups(), self.inputs(), self.outputs());
        Array3::from_shape_vec(wanted, matrix).map_err(|_| shape_error("weight", &shape, format!("{wanted:?}")))
    }

    /// The stored weight in four dimensions, and their order as `[groups, channels, positions, outputs]`.
    fn stored(&self) -> ([usize; 4], [usize; 4]) {
        let (g, m, p) = (self.groups(), self.outputs(), self.positions());
        let channels = self.in_channels() / g.max(1);
        match self {
            MatrixView::Dense { transposed: false, .. } => ([g, channels, p, m], [0, 1, 2, 3]),
            MatrixView::Dense { .. } | MatrixView::Conv(_) => ([g, m, channels, p], [0, 2, 3, 1]),
            MatrixView::ConvTranspose(_) => ([g, channels, m, p], [0, 1, 3, 2]),
        }
    }

    /// The inverse of [`MatrixView::to_matrix`], for codes as well as weights.
    pub fn from_matrix<T: Copy>(&self, matrix: ArrayView3<'_, T>) -> Result<ArrayD<T>, QuantError> {
        self.check()?;
        let expected = [self.groups(), self.inputs(), self.outputs()];
        if matrix.shape() != expected {
            return Err(shape_error("matrix", matrix.shape(), format!("{expected:?}")));
        }
        let (stored, order) = self.stored();
        let split = order.map(|axis| stored[axis]);
        let unfit = || shape_error("matrix", &expected, format!("{split:?}"));
        let mut matrix = matrix.to_shape(split).map_err(|_| unfit())?;
        if matches!(self, MatrixView::ConvTranspose(_)) {
            matrix.invert_axis(Axis(2));
        }
        let mut back = [0; 4];
        order.iter().enumerate().for_each(|(place, axis)| back[*axis] = place);
        let flat: Vec<T> = matrix.permuted_axes(back).iter().copied().collect();
        ArrayD::from_shape_vec(IxDyn(&self.weight_shape()), flat).map_err(|_| unfit())
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
            MatrixView::ConvTranspose(transposed) => transposed.for_each_rows(input, group, chunks, visit),
        }
    }

    /// Rows `[n, K]` that an input of this shape has, in each group.
    pub fn rows(&self, shape: &[usize]) -> Result<usize, QuantError> {
        self.check()?;
        match self {
            MatrixView::Dense { inputs, .. } => Ok(shape.iter().product::<usize>() / inputs),
            MatrixView::Conv(conv) => Ok(Unfold::new(conv, shape)?.rows()),
            MatrixView::ConvTranspose(transposed) => transposed.rows(shape),
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
            MatrixView::ConvTranspose(transposed) => transposed.check(),
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
