//! A transposed convolution as a convolution.
//!
//! # Problem
//!
//! Every input element of a transposed convolution adds a multiple of the kernel to the result; results of neighbours
//! overlap. Wanted are rows of inputs whose products with the weights are the results, with one column of weights an output
//! channel.
//!
//! # Method
//!
//! Put `stride - 1` zeros between the elements of the input and zeros around them; a convolution of stride 1 over that,
//! with the kernel turned round, makes the same numbers. With `reach = (kernel - 1) dilation`, along each dimension:
//!
//! ```text
//! widened[i * stride + reach - head] = input[i],      size of widened = output + reach
//! y[o] = sum over k of widened[o + (kernel - 1 - k) dilation] * w[k]
//! ```
//!
//! `head` is what is cut off the beginning of the result. Where it is more than `reach` the first elements fall off.
//!
//! # Shapes
//!
//! The weight is `[in, out/groups, kernel...]`; as a matrix its K inputs are channel in the group first, then the kernel
//! positions, last one first. Groups share nothing.
//!
//! # Cost
//!
//! That of unfolding a convolution of as many outputs, and the widened input of one group.

use crate::error::{QuantError, shape_error};
use crate::layer::chunks::Chunks;
use crate::layer::geometry::{ConvGeometry, LARGEST, Padding};
use crate::layer::unfold::Unfold;
use ndarray::{ArrayD, ArrayView2, ArrayViewD, IxDyn, Slice};

/// More elements of a widened input than this are those of a broken file.
const MOST_ELEMENTS: usize = 1 << 31;

/// A transposed convolution in any number of spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransposedConv {
    /// Channels, kernel and steps. The padding is what is cut off the result.
    pub conv: ConvGeometry,
    /// Added to the end of the result, per spatial dimension.
    pub output_padding: Vec<usize>,
    /// Size of the result per spatial dimension, where it is given: what is cut off follows from it then.
    pub output_shape: Option<Vec<usize>>,
}

/// Along one spatial dimension: what is cut off the beginning of the result, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) head: usize,
    pub(crate) output: usize,
}

impl TransposedConv {
    /// Checks that all fields fit together.
    pub fn check(&self) -> Result<(), QuantError> {
        self.conv.check()?;
        let rank = self.conv.kernel.len();
        let lists = [("output_padding", Some(&self.output_padding)), ("output_shape", self.output_shape.as_ref())];
        for (name, list) in lists.into_iter().filter_map(|(name, list)| Some((name, list?))) {
            if list.len() != rank || list.iter().any(|n| *n > LARGEST) {
                let expected = format!("expected {rank} numbers up to {LARGEST}");
                return Err(QuantError::Geometry(format!("{name} is {list:?}, {expected}")));
            }
        }
        Ok(())
    }

    /// The shape in which the operator stores its weight.
    pub(crate) fn weight_shape(&self) -> Vec<usize> {
        let conv = &self.conv;
        [vec![conv.in_channels, conv.out_channels / conv.groups.max(1)], conv.kernel.clone()].concat()
    }

    /// What is left of the result along one spatial dimension.
    pub(crate) fn cut(&self, dim: usize, input: usize) -> Result<Cut, QuantError> {
        let conv = &self.conv;
        let added = self.output_padding[dim];
        let full = input.checked_sub(1).map(|steps| steps * conv.strides[dim] + conv.reach(dim) + 1 + added);
        let Some(full) = full else { return Ok(Cut { head: 0, output: 0 }) };
        let wanted = match (&self.output_shape, &conv.padding) {
            (Some(shape), _) => Some(shape[dim]),
            (None, Padding::SameUpper | Padding::SameLower) => Some(input * conv.strides[dim]),
            (None, Padding::Explicit { .. } | Padding::Valid) => None,
        };
        let total = wanted.map_or(0, |wanted| full.saturating_sub(wanted));
        let (head, tail) = match (wanted, &conv.padding) {
            (None, Padding::Explicit { begin, end }) => (begin[dim], end[dim]),
            (None, _) => (0, 0),
            (Some(_), Padding::SameUpper) => (total / 2, total.div_ceil(2)),
            (Some(_), _) => (total.div_ceil(2), total / 2),
        };
        let output = match &self.output_shape {
            Some(shape) => Some(shape[dim]),
            None => full.checked_sub(head + tail),
        };
        let output = output.ok_or_else(|| {
            QuantError::Geometry(format!(
                "spatial dimension {dim} of the result has {full} elements, of which {head} and {tail} are cut off"
            ))
        })?;
        Ok(Cut { head, output })
    }

    /// Output positions for an input of this shape.
    pub(crate) fn rows(&self, shape: &[usize]) -> Result<usize, QuantError> {
        let outputs = self.cuts(shape)?.into_iter().map(|cut| cut.output);
        Ok(shape[0] * outputs.product::<usize>())
    }

    fn cuts(&self, shape: &[usize]) -> Result<Vec<Cut>, QuantError> {
        let rank = self.conv.kernel.len();
        if shape.len() != rank + 2 || shape[1] != self.conv.in_channels {
            let expected = format!("[batch, {}, {rank} spatial dimensions]", self.conv.in_channels);
            return Err(shape_error("input", shape, expected));
        }
        (0..rank).map(|dim| self.cut(dim, shape[dim + 2])).collect()
    }

    /// Hands the rows of one group to `visit`, in the order of the output positions.
    pub(crate) fn for_each_rows(
        &self,
        input: ArrayViewD<'_, f32>,
        group: usize,
        chunks: Chunks,
        visit: &mut dyn FnMut(ArrayView2<'_, f32>),
    ) -> Result<(), QuantError> {
        let widened = self.widened(input, group)?;
        let rank = self.conv.kernel.len();
        let channels = self.conv.group_channels();
        let over_widened = ConvGeometry {
            groups: 1,
            out_channels: 1,
            in_channels: channels,
            strides: vec![1; rank],
            padding: Padding::Valid,
            ..self.conv.clone()
        };
        if !widened.is_empty() {
            Unfold::new(&over_widened, widened.shape())?.for_each_chunk(widened.view(), 0, chunks, visit);
        }
        Ok(())
    }

    /// The input channels of a group with zeros between and around their elements.
    fn widened(&self, input: ArrayViewD<'_, f32>, group: usize) -> Result<ArrayD<f32>, QuantError> {
        let (conv, cuts) = (&self.conv, self.cuts(input.shape())?);
        let channels = conv.group_channels();
        let is_empty = cuts.iter().any(|cut| cut.output == 0);
        let sizes = cuts.iter().enumerate().map(|(dim, cut)| if is_empty { 0 } else { cut.output + conv.reach(dim) });
        let shape: Vec<usize> = [input.shape()[0], channels].into_iter().chain(sizes).collect();
        let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        if elements.is_none_or(|elements| elements > MOST_ELEMENTS) {
            return Err(QuantError::Geometry(format!("the input with zeros in between has the shape {shape:?}")));
        }
        let mut widened = ArrayD::zeros(IxDyn(&shape));
        if is_empty {
            return Ok(widened);
        }
        let steps: Vec<_> = (0..cuts.len()).map(|dim| self.steps(dim, cuts[dim], input.shape()[dim + 2])).collect();
        if steps.iter().any(|steps| steps.count == 0) {
            return Ok(widened);
        }
        let own = input.slice_each_axis(|axis| match axis.axis.index() {
            0 => Slice::from(..),
            1 => Slice::from(group * channels..(group + 1) * channels),
            spatial => Slice::from(steps[spatial - 2].first..steps[spatial - 2].first + steps[spatial - 2].count),
        });
        let mut target = widened.slice_each_axis_mut(|axis| match axis.axis.index() {
            0 | 1 => Slice::from(..),
            spatial => steps[spatial - 2].places(self.conv.strides[spatial - 2]),
        });
        target.assign(&own);
        drop(target);
        Ok(widened)
    }

    /// Where the input elements of one spatial dimension stand in the widened input.
    fn steps(&self, dim: usize, cut: Cut, input: usize) -> Steps {
        let (stride, reach) = (self.conv.strides[dim], self.conv.reach(dim));
        let first = cut.head.saturating_sub(reach).div_ceil(stride).min(input);
        let start = (first * stride + reach).saturating_sub(cut.head);
        let room = (cut.output + reach).saturating_sub(start).div_ceil(stride);
        Steps { first, count: room.min(input - first), start }
    }
}

/// So many input elements from `first` on stand at `start`, and each a stride further.
struct Steps {
    first: usize,
    count: usize,
    start: usize,
}

impl Steps {
    fn places(&self, stride: usize) -> Slice {
        let end = self.start + (self.count - 1) * stride + 1;
        // All three are below the length of an axis in memory.
        Slice::new(self.start as isize, Some(end as isize), stride as isize)
    }
}

#[cfg(test)]
#[path = "transposed_tests.rs"]
mod tests;
