//! Unfolds the input of a convolution into patches (im2col).
//!
//! # Problem
//!
//! Input `[batch, channels, spatial...]`; wanted, for one group, the matrix
//! `[positions, K]` with one row per output position (batch first, then output
//! positions row-major) and K = channels in the group x kernel positions, in
//! chunks of bounded height.
//!
//! # Method
//!
//! A chunk is written column by column (it is stored K-major), because along one
//! *line* of output positions, that is along the last spatial dimension, one
//! column of the matrix is one run of input elements: a copy for stride 1, a
//! strided copy otherwise, with zeros where the run leaves the input. Borders
//! are resolved once per run, not per element. A kernel of one element with
//! stride 1 and no padding is treated as one long line: the unfolding is a
//! transposition then.
//!
//! # Cost
//!
//! One write per element of the result; O(lines x K) index arithmetic.

use crate::error::QuantError;
use crate::view::{ConvGeometry, Extent, Padding, shape_error};
use ndarray::{ArrayView2, ArrayViewD, ShapeBuilder};

/// One spatial dimension of the unfolding.
#[derive(Clone, Copy)]
struct Dim {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
}

impl Dim {
    /// The input index that output `o` reads at kernel position `k`, if inside.
    fn source(&self, o: usize, k: usize) -> Option<usize> {
        (o * self.stride + k * self.dilation).checked_sub(self.before).filter(|index| *index < self.input)
    }

    /// The outputs that read inside the input at kernel position `k`.
    fn inside(&self, k: usize) -> (usize, usize) {
        let shift = k * self.dilation;
        let first = self.before.saturating_sub(shift).div_ceil(self.stride);
        let end = (self.input + self.before).saturating_sub(shift).div_ceil(self.stride).min(self.output);
        (first.min(end), end)
    }
}

/// The resolved sizes of one unfolding.
pub(crate) struct Unfold {
    batch: usize,
    channels: usize,
    group_channels: usize,
    dims: Vec<Dim>,
}

/// A run of output positions inside one line, and where it goes in the chunk.
struct Segment {
    sample: usize,
    /// Output index in every dimension but the last.
    outer: Vec<usize>,
    first: usize,
    end: usize,
    row: usize,
}

impl Unfold {
    pub(crate) fn new(conv: &ConvGeometry, shape: &[usize]) -> Result<Unfold, QuantError> {
        let rank = conv.kernel.len();
        if shape.len() != rank + 2 || shape[1] != conv.in_channels {
            let expected = format!("[batch, {}, {rank} spatial dimensions]", conv.in_channels);
            return Err(shape_error("input", shape, expected));
        }
        let dims = if pointwise(conv) {
            vec![line(shape[2..].iter().product())]
        } else {
            let dim = |d: usize| -> Result<Dim, QuantError> {
                let Extent { before, output } = conv.extent(d, shape[d + 2])?;
                Ok(Dim {
                    input: shape[d + 2],
                    output,
                    kernel: conv.kernel[d],
                    stride: conv.strides[d],
                    dilation: conv.dilations[d],
                    before,
                })
            };
            (0..rank).map(dim).collect::<Result<_, _>>()?
        };
        Ok(Unfold { batch: shape[0], channels: conv.in_channels, group_channels: conv.group_channels(), dims })
    }

    /// Calls `visit` for every chunk of at most `chunk_rows` patches.
    pub(crate) fn for_each_chunk(
        &self,
        input: ArrayViewD<'_, f32>,
        group: usize,
        chunk_rows: usize,
        visit: &mut dyn FnMut(ArrayView2<'_, f32>),
    ) {
        let input = input.as_standard_layout();
        let Some(elements) = input.as_slice() else {
            return;
        };
        let columns = self.group_channels * self.kernel_positions();
        let positions = self.batch * self.dims.iter().map(|dim| dim.output).product::<usize>();
        let mut buffer = vec![0.0f32; columns * chunk_rows.min(positions)];
        for start in (0..positions).step_by(chunk_rows) {
            let rows = chunk_rows.min(positions - start);
            let segments = self.segments(start, rows);
            for (column, target) in buffer.chunks_exact_mut(rows).take(columns).enumerate() {
                self.fill_column(elements, group, column, &segments, target);
            }
            let shape = (rows, columns).f();
            if let Ok(chunk) = ArrayView2::from_shape(shape, &buffer[..rows * columns]) {
                visit(chunk);
            }
        }
    }

    fn kernel_positions(&self) -> usize {
        self.dims.iter().map(|dim| dim.kernel).product()
    }

    /// Splits `rows` output positions from `start` into runs inside lines.
    fn segments(&self, start: usize, rows: usize) -> Vec<Segment> {
        let (outer, last) = self.dims.split_at(self.dims.len() - 1);
        let width = last[0].output;
        let mut segments = Vec::with_capacity(rows / width + 2);
        let mut position = start;
        while position < start + rows {
            let mut line = position / width;
            let first = position % width;
            let end = width.min(first + start + rows - position);
            let mut index = vec![0; outer.len()];
            for (slot, dim) in index.iter_mut().zip(outer).rev() {
                *slot = line % dim.output;
                line /= dim.output;
            }
            segments.push(Segment { sample: line, outer: index, first, end, row: position - start });
            position += end - first;
        }
        segments
    }

    /// Writes one column of the chunk: one channel at one kernel position.
    fn fill_column(&self, elements: &[f32], group: usize, column: usize, segments: &[Segment], target: &mut [f32]) {
        let mut kernel = vec![0; self.dims.len()];
        let mut rest = column;
        for (slot, dim) in kernel.iter_mut().zip(&self.dims).rev() {
            *slot = rest % dim.kernel;
            rest /= dim.kernel;
        }
        let channel = group * self.group_channels + rest;
        let (outer, last) = self.dims.split_at(self.dims.len() - 1);
        let (last, at) = (last[0], kernel[outer.len()]);
        let inside = last.inside(at);
        for segment in segments {
            let run = &mut target[segment.row..segment.row + segment.end - segment.first];
            let mut line = Some(segment.sample * self.channels + channel);
            for ((dim, o), k) in outer.iter().zip(&segment.outer).zip(&kernel) {
                line = line.and_then(|line| Some(line * dim.input + dim.source(*o, *k)?));
            }
            match line {
                Some(line) => {
                    let source = &elements[line * last.input..(line + 1) * last.input];
                    copy_run(&last, at, inside, segment, source, run);
                }
                None => run.fill(0.0),
            }
        }
    }
}

/// Copies what one line contributes to one segment; zeros outside the input.
fn copy_run(dim: &Dim, k: usize, inside: (usize, usize), segment: &Segment, source: &[f32], run: &mut [f32]) {
    let first = inside.0.clamp(segment.first, segment.end);
    let end = inside.1.clamp(first, segment.end);
    let (before, rest) = run.split_at_mut(first - segment.first);
    let (body, after) = rest.split_at_mut(end - first);
    before.fill(0.0);
    after.fill(0.0);
    if body.is_empty() {
        return;
    }
    let start = first * dim.stride + k * dim.dilation - dim.before;
    if dim.stride == 1 {
        body.copy_from_slice(&source[start..start + body.len()]);
    } else {
        let strided = source[start..].iter().step_by(dim.stride);
        for (slot, value) in body.iter_mut().zip(strided) {
            *slot = *value;
        }
    }
}

fn pointwise(conv: &ConvGeometry) -> bool {
    let ones = |list: &[usize]| list.iter().all(|n| *n == 1);
    let padded = match &conv.padding {
        Padding::Explicit { begin, end } => begin.iter().chain(end).any(|n| *n != 0),
        _ => false,
    };
    ones(&conv.kernel) && ones(&conv.strides) && !padded
}

fn line(length: usize) -> Dim {
    Dim { input: length, output: length, kernel: 1, stride: 1, dilation: 1, before: 0 }
}
