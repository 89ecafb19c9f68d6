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
//! The matrix is written column by column (it is stored K-major), in chunks of
//! whole *lines* of output positions, that is along the last spatial dimension.
//! For one channel and one kernel position along that dimension, what an output
//! line reads is one run of an input line: a copy for stride 1, a strided copy
//! otherwise, with zeros where the run leaves the input. Kernel positions along the
//! dimension before it read the same runs, only of other lines; so the runs of
//! all input lines are laid out once, one after the other (by phase, where that
//! dimension has a stride), and a column is one piece of that table, unless the table
//! would be larger than the columns, as with large dilations:
//!
//! ```text
//! table[l] = run of input line l,    column(k, j) = table[k..k + lines]
//! ```
//!
//! A kernel of one element with stride 1 and no padding needs no unfolding: the
//! channels of the input are the columns, and are handed over as they are.
//!
//! # Cost
//!
//! One write per element of the result, in long pieces; for a kernel of `h` lines, the table has
//! about `1 / h` as many elements. Nothing for pointwise kernels.

use crate::error::QuantError;
use crate::error::shape_error;
use crate::layer::chunks::Chunks;
use crate::layer::geometry::{ConvGeometry, Extent, Padding};
use ndarray::{ArrayView2, ArrayViewD, Axis, ShapeBuilder, Slice};

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
    /// At least two.
    dims: Vec<Dim>,
    pointwise: bool,
}

/// Output positions of one chunk: lines `lines.0..lines.1` of one plane, or part of one line.
struct Block {
    sample: usize,
    /// Output index in every dimension but the last two.
    outer: Vec<usize>,
    lines: (usize, usize),
    columns: (usize, usize),
}

impl Block {
    fn width(&self) -> usize {
        self.columns.1 - self.columns.0
    }

    fn rows(&self) -> usize {
        self.width() * (self.lines.1 - self.lines.0)
    }
}

impl Unfold {
    pub(crate) fn new(conv: &ConvGeometry, shape: &[usize]) -> Result<Unfold, QuantError> {
        let rank = conv.kernel.len();
        if shape.len() != rank + 2 || shape[1] != conv.in_channels {
            let expected = format!("[batch, {}, {rank} spatial dimensions]", conv.in_channels);
            return Err(shape_error("input", shape, expected));
        }
        let dims = if pointwise(conv) {
            vec![whole_line(1), whole_line(shape[2..].iter().product())]
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
            // One spatial dimension is one line of a plane.
            let mut dims = if rank == 1 { vec![whole_line(1)] } else { vec![] };
            for d in 0..rank {
                dims.push(dim(d)?);
            }
            dims
        };
        let (channels, group_channels) = (conv.in_channels, conv.group_channels());
        Ok(Unfold { batch: shape[0], channels, group_channels, dims, pointwise: pointwise(conv) })
    }

    /// Patches of one group.
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.dims.iter().map(|dim| dim.output).product::<usize>()
    }

    /// Calls `visit` for every chunk of patches that is to be taken.
    pub(crate) fn for_each_chunk(
        &self,
        input: ArrayViewD<'_, f32>,
        group: usize,
        chunks: Chunks,
        visit: &mut dyn FnMut(ArrayView2<'_, f32>),
    ) {
        let input = input.as_standard_layout();
        let Some(elements) = input.as_slice() else {
            return;
        };
        if self.pointwise {
            return self.channels_as_columns(elements, group, chunks, visit);
        }
        let columns = self.group_channels * self.dims.iter().map(|dim| dim.kernel).product::<usize>();
        let mut buffer = Vec::new();
        let mut table = Vec::new();
        for block in chunks.taken(self.blocks(chunks.rows())) {
            let rows = block.rows();
            buffer.resize(columns * rows, 0.0);
            let channel_columns = columns / self.group_channels * rows;
            for (channel, target) in buffer.chunks_exact_mut(channel_columns).enumerate() {
                self.fill_channel(elements, group * self.group_channels + channel, &block, &mut table, target);
            }
            if let Ok(chunk) = ArrayView2::from_shape((rows, columns).f(), &buffer) {
                visit(chunk);
            }
        }
    }

    fn channels_as_columns(
        &self,
        elements: &[f32],
        group: usize,
        chunks: Chunks,
        visit: &mut dyn FnMut(ArrayView2<'_, f32>),
    ) {
        let (rows, columns) = (self.dims[1].input, self.group_channels);
        if rows == 0 {
            return;
        }
        let samples = elements.chunks_exact(self.channels * rows);
        let all = samples.flat_map(|sample| {
            let own = &sample[group * columns * rows..][..columns * rows];
            (0..rows).step_by(chunks.rows()).map(move |start| (own, start..rows.min(start + chunks.rows())))
        });
        for (own, range) in chunks.taken(all) {
            if let Ok(whole) = ArrayView2::from_shape((rows, columns).f(), own) {
                visit(whole.slice_axis(Axis(0), Slice::from(range)));
            }
        }
    }

    /// The last dimension but one, and the last.
    fn plane(&self) -> (Dim, Dim) {
        let n = self.dims.len();
        (self.dims[n - 2], self.dims[n - 1])
    }

    /// All output positions in order, in blocks of at most `chunk_rows`.
    fn blocks(&self, chunk_rows: usize) -> impl Iterator<Item = Block> {
        let (high, wide) = self.plane();
        let outer = &self.dims[..self.dims.len() - 2];
        let planes = self.batch * outer.iter().map(|dim| dim.output).product::<usize>();
        let width = wide.output.min(chunk_rows);
        let lines = if width < wide.output { 1 } else { (chunk_rows / width.max(1)).max(1) };
        (0..planes).flat_map(move |plane| {
            let (mut sample, mut index) = (plane, vec![0; outer.len()]);
            for (slot, dim) in index.iter_mut().zip(outer).rev() {
                *slot = sample % dim.output;
                sample /= dim.output;
            }
            (0..high.output).step_by(lines).flat_map(move |line| {
                let outer = index.clone();
                (0..wide.output).step_by(width.max(1)).map(move |first| Block {
                    sample,
                    outer: outer.clone(),
                    lines: (line, high.output.min(line + lines)),
                    columns: (first, wide.output.min(first + width)),
                })
            })
        })
    }

    /// Writes the columns of one channel.
    fn fill_channel(
        &self,
        elements: &[f32],
        channel: usize,
        block: &Block,
        table: &mut Vec<f32>,
        mut target: &mut [f32],
    ) {
        let (high, wide) = self.plane();
        let outer = &self.dims[..self.dims.len() - 2];
        let outer_positions = outer.iter().map(|dim| dim.kernel).product::<usize>();
        let plane_elements = high.input * wide.input;
        for position in 0..outer_positions {
            let (mut rest, mut plane) = (position, Some(0));
            let mut step = 1;
            for (dim, output) in outer.iter().zip(&block.outer).rev() {
                let source = dim.source(*output, rest % dim.kernel);
                plane = plane.and_then(|plane| Some(plane + source? * step));
                rest /= dim.kernel;
                step *= dim.input;
            }
            let own = target.split_off_mut(..high.kernel * wide.kernel * block.rows()).unwrap_or_default();
            match plane {
                Some(plane) => {
                    let first = ((block.sample * self.channels + channel) * step + plane) * plane_elements;
                    fill_plane(&high, &wide, &elements[first..first + plane_elements], block, table, own);
                }
                None => own.fill(0.0),
            }
        }
    }
}

/// Writes the columns of one plane of one channel: kernel positions of the last two dimensions.
fn fill_plane(high: &Dim, wide: &Dim, plane: &[f32], block: &Block, table: &mut Vec<f32>, target: &mut [f32]) {
    let (rows, width, lines) = (block.rows(), block.width(), block.lines.1 - block.lines.0);
    // A line is counted from the first one that the block reads.
    let shift = |k: usize| k * high.dilation;
    let reach = (lines - 1) * high.stride + shift(high.kernel - 1) + 1;
    let table_lines = reach.div_ceil(high.stride);
    let phases = high.stride.min(shift(high.kernel - 1) + 1);
    let tabled = phases.saturating_mul(table_lines) <= high.kernel * lines;
    for at in 0..wide.kernel {
        let inside = wide.inside(at);
        let copy = |line: usize, run: &mut [f32]| {
            let line = (block.lines.0 * high.stride + line).checked_sub(high.before);
            match line.filter(|line| *line < high.input) {
                Some(line) => copy_run(wide, at, inside, block.columns, &plane[line * wide.input..][..wide.input], run),
                None => run.fill(0.0),
            }
        };
        if tabled {
            // Lines that are a stride apart are neighbours.
            table.resize(phases * table_lines * width, 0.0);
            for (phase, part) in table.chunks_exact_mut(table_lines * width).enumerate() {
                for (line, run) in part.chunks_exact_mut(width).enumerate() {
                    copy(line * high.stride + phase, run);
                }
            }
        }
        for k in 0..high.kernel {
            let column = &mut target[(k * wide.kernel + at) * rows..][..rows];
            if tabled {
                let begin = (shift(k) % high.stride * table_lines + shift(k) / high.stride) * width;
                column.copy_from_slice(&table[begin..begin + rows]);
            } else {
                for (line, run) in column.chunks_exact_mut(width).enumerate() {
                    copy(line * high.stride + shift(k), run);
                }
            }
        }
    }
}

/// Copies what one line contributes to the outputs `columns` of a line; zeros outside the input.
fn copy_run(dim: &Dim, k: usize, inside: (usize, usize), columns: (usize, usize), source: &[f32], run: &mut [f32]) {
    let first = inside.0.clamp(columns.0, columns.1);
    let end = inside.1.clamp(first, columns.1);
    let (before, rest) = run.split_at_mut(first - columns.0);
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

fn whole_line(length: usize) -> Dim {
    Dim { input: length, output: length, kernel: 1, stride: 1, dilation: 1, before: 0 }
}
