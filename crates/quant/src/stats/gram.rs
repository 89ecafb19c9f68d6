//! Second moments of a layer's inputs, gathered while the model runs.
//!
//! # Problem
//!
//! For the rows `x_1, ..., x_n` (K numbers each) that a layer sees on the
//! calibration data: `H = X^T X / n`, the mean row, and, where `n` is small
//! enough to fit the buffer, the rows themselves.
//!
//! # Shapes and units
//!
//! Rows are pushed as `[n, K]` `f32`, any split, any memory layout. `H` is K x K
//! `f64`, symmetric, in squared units of the input.
//!
//! # Method
//!
//! Rows fill a buffer: of 128 rows up to K = 32, because depthwise convolutions have
//! hundreds of such matrices; of `max(K, 512)` rows else (fewer for very wide layers:
//! 64 MiB at most, never under 512 rows), so that every `n < K` up to K = 4096 is
//! kept whole. When it is full, and after that every 1024 rows at most, faer forms
//! the lower triangle of `X^T X` in `f32`, which is added to the `f64` sums. A whole
//! chunk in the caller's memory is not copied. If all rows fit the buffer, moments are
//! formed in `f64` and the rows are kept: exactly what the kernel walk needs.
//!
//! # Guarantee
//!
//! Where blocks end depends on the number of rows only and each accumulator is
//! sequential, so the result is the same, bit by bit, for any split into pushes,
//! any memory layout of the rows and any number of threads around it.
//!
//! # Numerics
//!
//! Products of one block are summed in `f32`, blocks in `f64`: relative error
//! per element about `f32::EPSILON * sqrt(rows of the block)` at worst, and not
//! growing with n.
//!
//! # Cost
//!
//! `n K^2 / 2` multiply-adds and one pass over the rows to find NaN and infinity.
//! Memory: see [`GramAccumulator::bytes`].
//!
//! # Failure
//!
//! NaN or infinity in a row is an error that names row and input; sums that
//! overflow are an error that names the element of `H`.

pub(crate) mod diagonal;
pub(crate) mod part;

use crate::error::shape_error;
use crate::error::{Array, QuantError};
use crate::linalg;
use crate::stats::column_sums::{add_columns, all_finite};
use crate::stats::drift::Drift;
use faer::prelude::ReborrowMut;
use faer::{Accum, Mat, MatMut, MatRef};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, ShapeBuilder, Slice};

/// Up to so many inputs the buffer has [`FEW_INPUTS_ROWS`] rows.
const FEW_INPUTS: usize = 32;
/// Enough for the product to run at full speed, where a row is that short.
const FEW_INPUTS_ROWS: usize = 128;
/// Least number of rows in the buffer for more inputs.
const LEAST_BUFFER_ROWS: usize = 512;
/// Most rows of a chunk after the first.
const MOST_LATER_ROWS: usize = 1024;
/// Most elements in the buffer, unless [`LEAST_BUFFER_ROWS`] needs more.
const MOST_BUFFER_ELEMENTS: usize = 1 << 24;

/// Rows for which a buffer has room from the start.
const FIRST_ROWS: usize = 64;

/// Makes room in a buffer for its first `rows` rows; it doubles, up to `most` rows. The memory order is that of what it
/// holds, or by columns where it is empty and that is asked for.
pub(crate) fn make_room(buffer: &mut Array2<f32>, rows: usize, most: usize, by_columns: bool) {
    let old = buffer.nrows();
    if rows <= old {
        return;
    }
    let by_columns = if old == 0 { by_columns } else { !buffer.is_standard_layout() };
    let new = rows.max(2 * old).clamp(FIRST_ROWS, most.max(rows));
    let mut larger = Array2::zeros((new, buffer.ncols()).set_f(by_columns));
    larger.slice_axis_mut(Axis(0), Slice::from(..old)).assign(buffer);
    *buffer = larger;
}

/// Second moments of the inputs of one group of a layer.
#[derive(Clone, Debug)]
pub struct GramStats {
    n_rows: usize,
    n_samples: usize,
    mean: Array1<f64>,
    moment: Moment,
    rows: Option<Array2<f32>>,
    drift: Option<Drift>,
    n_unpaired: usize,
}

#[derive(Clone, Debug)]
enum Moment {
    Diagonal(Array1<f64>),
    Full(Array2<f64>),
}

impl GramStats {
    /// Statistics of rows that are all at hand.
    pub fn from_rows(rows: ArrayView2<'_, f32>) -> Result<GramStats, QuantError> {
        let mut accumulator = GramAccumulator::new(rows.ncols())?;
        accumulator.push(rows)?;
        accumulator.finish()
    }

    /// K, the number of inputs.
    pub fn k(&self) -> usize {
        self.mean.len()
    }

    /// How many rows were seen.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// From how many samples they come; rows of one sample resemble each other. Unless said otherwise, every row is
    /// one.
    pub fn n_samples(&self) -> usize {
        self.n_samples
    }

    /// The same, known to come from so many samples.
    pub fn with_samples(self, n_samples: usize) -> GramStats {
        GramStats { n_samples: n_samples.clamp(1, self.n_rows), ..self }
    }

    /// The mean row.
    pub fn mean(&self) -> ArrayView1<'_, f64> {
        self.mean.view()
    }

    /// The diagonal of `H`: the mean square of every input.
    pub fn mean_square(&self) -> ArrayView1<'_, f64> {
        match &self.moment {
            Moment::Diagonal(diagonal) => diagonal.view(),
            Moment::Full(gram) => gram.diag(),
        }
    }

    /// `H = X^T X / n`, both triangles, unless only its diagonal was gathered.
    pub fn gram(&self) -> Option<ArrayView2<'_, f64>> {
        match &self.moment {
            Moment::Diagonal(_) => None,
            Moment::Full(gram) => Some(gram.view()),
        }
    }

    /// The rows `[n, K]` themselves, if they fitted the buffer.
    pub fn rows(&self) -> Option<ArrayView2<'_, f32>> {
        self.rows.as_ref().map(|rows| rows.view())
    }

    /// How the float network's inputs differ from these, unless they are the same or were not gathered
    /// ([`PairedAccumulator`](crate::PairedAccumulator)).
    pub fn drift(&self) -> Option<&Drift> {
        self.drift.as_ref()
    }

    /// Rows that have no counterpart in the float network, as far as it was asked: they count as if they had not moved.
    pub fn n_unpaired(&self) -> usize {
        self.n_unpaired
    }

    /// Statistics of these rows and those of `other`, another reader of the same weight on the same samples. What drift
    /// was gathered is left out.
    pub fn with(self, other: &GramStats) -> Result<GramStats, QuantError> {
        let k = self.k();
        if other.k() != k {
            return Err(shape_error("other statistics", &[other.k()], format!("[{k}]")));
        }
        let n_rows = self.n_rows + other.n_rows;
        let n_samples = self.n_samples.max(other.n_samples);
        let kept = self.rows.as_ref().zip(other.rows.as_ref()).filter(|_| n_rows <= buffer_rows(k));
        let rows = kept.and_then(|(rows, others)| ndarray::concatenate(Axis(0), &[rows.view(), others.view()]).ok());
        let share = other.n_rows as f64 / n_rows as f64;
        let mean = self.mean * (1.0 - share) + &other.mean * share;
        let moment = match (self.moment, &other.moment) {
            (Moment::Full(gram), Moment::Full(others)) => Moment::Full(gram * (1.0 - share) + others * share),
            (Moment::Full(gram), _) => {
                Moment::Diagonal(gram.diag().to_owned() * (1.0 - share) + &other.mean_square() * share)
            }
            (Moment::Diagonal(diagonal), _) => {
                Moment::Diagonal(diagonal * (1.0 - share) + &other.mean_square() * share)
            }
        };
        let n_unpaired = self.n_unpaired + other.n_unpaired;
        Ok(GramStats { n_rows, n_samples, mean, moment, rows, drift: None, n_unpaired })
    }

    pub(crate) fn with_drift(self, drift: Drift) -> GramStats {
        GramStats { drift: Some(drift), ..self }
    }

    pub(crate) fn with_unpaired(self, n_unpaired: usize) -> GramStats {
        GramStats { n_unpaired, ..self }
    }
}

/// Gathers the whole Gram matrix.
#[derive(Debug)]
pub struct GramAccumulator {
    k: usize,
    n_rows: usize,
    /// `[rows, K]` in the memory order of the first push into it; empty before it.
    buffer: Array2<f32>,
    filled: usize,
    /// Upper triangle of `X^T X`; empty before the first chunk.
    sums: Array2<f64>,
    column_sums: Array1<f64>,
}

impl GramAccumulator {
    /// For rows of `k` inputs.
    pub fn new(k: usize) -> Result<GramAccumulator, QuantError> {
        check_inputs(k)?;
        let (buffer, sums) = (Array2::zeros((0, k)), Array2::zeros((0, 0)));
        Ok(GramAccumulator { k, n_rows: 0, buffer, filled: 0, sums, column_sums: Array1::zeros(k) })
    }

    /// K, the number of inputs.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// How many rows were pushed.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Bytes that gathering the moments of `k` inputs takes at most.
    pub fn bytes(k: usize) -> u64 {
        let wide = k as u64;
        let buffer = (4 * buffer_rows(k) as u64).saturating_mul(wide);
        wide.saturating_mul(wide).saturating_add(wide).saturating_mul(8).saturating_add(buffer)
    }

    /// How many rows may be pushed before the rows themselves are given up.
    pub fn capacity(&self) -> usize {
        buffer_rows(self.k)
    }

    /// Adds rows `[n, K]`. After an error the accumulator is as before the call.
    pub fn push(&mut self, rows: ArrayView2<'_, f32>) -> Result<(), QuantError> {
        check_rows(&rows, self.k, self.n_rows)?;
        self.n_rows += rows.nrows();
        let (whole, mut done) = (memory(&rows), 0);
        while done < rows.nrows() {
            if self.filled == self.chunk_rows() {
                self.flush();
            }
            let taken = (rows.nrows() - done).min(self.chunk_rows() - self.filled);
            let now = rows.slice_axis(Axis(0), Slice::from(done..done + taken));
            let last = done + taken == rows.nrows();
            match whole {
                // The last rows are kept, because they may be all there are.
                Some(whole) if taken == self.chunk_rows() && !last => self.add_chunk(&now, whole.subrows(done, taken)),
                _ => self.keep(&now),
            }
            done += taken;
        }
        Ok(())
    }

    /// Closes the sums.
    pub fn finish(mut self) -> Result<GramStats, QuantError> {
        if self.n_rows == 0 {
            return Err(QuantError::NoRows);
        }
        let rows = (self.n_rows == self.filled).then(|| self.take_rows());
        match &rows {
            Some(rows) => (self.sums, self.column_sums) = exact_sums(rows),
            None => self.flush(),
        }
        self.buffer = Array2::zeros((0, 0));
        let mut gram = self.sums;
        divide_and_mirror(&mut gram, self.n_rows);
        check_moments(&[gram.view()])?;
        let mean = self.column_sums / self.n_rows as f64;
        let (n_rows, n_samples, moment) = (self.n_rows, self.n_rows, Moment::Full(gram));
        Ok(GramStats { n_rows, n_samples, mean, moment, rows, drift: None, n_unpaired: 0 })
    }

    /// Rows of the chunk that is being filled.
    fn chunk_rows(&self) -> usize {
        if self.sums.is_empty() { self.capacity() } else { later_rows(self.k) }
    }

    /// The rows in the buffer, row by row.
    fn take_rows(&mut self) -> Array2<f32> {
        let buffer = std::mem::take(&mut self.buffer);
        if !buffer.is_standard_layout() {
            return buffer.slice_axis(Axis(0), Slice::from(..self.filled)).as_standard_layout().into_owned();
        }
        let (mut elements, _) = buffer.into_raw_vec_and_offset();
        elements.truncate(self.filled * self.k);
        elements.shrink_to_fit();
        Array2::from_shape_vec((self.filled, self.k), elements).expect("the buffer has no offset")
    }

    fn keep(&mut self, rows: &ArrayView2<'_, f32>) {
        let (end, most) = (self.filled + rows.nrows(), self.chunk_rows());
        make_room(&mut self.buffer, end, most, !rows.is_standard_layout());
        let mut place = self.buffer.slice_axis_mut(Axis(0), Slice::from(self.filled..end));
        if rows.strides()[0] == 1 && place.strides()[0] == 1 {
            for (mut target, source) in place.columns_mut().into_iter().zip(rows.columns()) {
                if let (Some(target), Some(source)) = (target.as_slice_mut(), source.to_slice()) {
                    target.copy_from_slice(source);
                }
            }
        } else {
            place.assign(rows);
        }
        self.filled = end;
    }

    fn flush(&mut self) {
        // Taken out for the call, so that the chunk may borrow it.
        let buffer = std::mem::take(&mut self.buffer);
        if self.filled > 0 {
            let rows = buffer.slice_axis(Axis(0), Slice::from(..self.filled));
            let x = memory(&buffer.view()).expect("the buffer was allocated in one piece");
            self.add_chunk(&rows, x.subrows(0, self.filled));
        }
        // The first buffer may have more rows than the chunks after it.
        self.buffer = if buffer.nrows() <= self.chunk_rows() { buffer } else { Array2::zeros((0, self.k)) };
        self.filled = 0;
    }

    fn add_chunk(&mut self, rows: &ArrayView2<'_, f32>, x: MatRef<'_, f32>) {
        if self.sums.is_empty() {
            self.sums = Array2::zeros((self.k, self.k));
        }
        add_columns(rows, self.column_sums.as_slice_mut().expect("a vector is in one piece"));
        let sums = self.sums.as_slice_mut().expect("the sums are in standard layout");
        linalg::add_gram_lower(MatMut::from_column_major_slice_mut(sums, self.k, self.k), x);
    }
}

fn check_inputs(k: usize) -> Result<(), QuantError> {
    if k == 0 {
        return Err(QuantError::Setting { what: "number of inputs", found: "0".into(), expected: "at least 1" });
    }
    Ok(())
}

/// Checks rows that follow `seen` others.
pub(crate) fn check_rows(rows: &ArrayView2<'_, f32>, k: usize, seen: usize) -> Result<(), QuantError> {
    if rows.ncols() != k {
        return Err(shape_error("rows", rows.shape(), format!("[n, {k}]")));
    }
    if all_finite(rows) {
        return Ok(());
    }
    let bad = rows.indexed_iter().find(|(_, x)| !x.is_finite());
    let ((row, input), value) = bad.map_or(((0, 0), f32::NAN), |(index, x)| (index, *x));
    Err(QuantError::NonFinite { array: Array::Rows, index: vec![seen + row, input], value: f64::from(value) })
}

/// Rows of the first chunk.
fn buffer_rows(k: usize) -> usize {
    if k <= FEW_INPUTS {
        return FEW_INPUTS_ROWS;
    }
    let most = (MOST_BUFFER_ELEMENTS / k).max(LEAST_BUFFER_ROWS);
    k.max(LEAST_BUFFER_ROWS).min(most)
}

/// Rows of every chunk after the first.
pub(crate) fn later_rows(k: usize) -> usize {
    buffer_rows(k).min(MOST_LATER_ROWS)
}

/// Rows as faer sees them, if they lie in memory row by row or column by column.
pub(crate) fn memory<'a>(rows: &ArrayView2<'a, f32>) -> Option<MatRef<'a, f32>> {
    let (n, k) = rows.dim();
    if let Some(elements) = rows.to_slice() {
        return Some(MatRef::from_row_major_slice(elements, n, k));
    }
    let elements = rows.reversed_axes().to_slice()?;
    Some(MatRef::from_column_major_slice(elements, n, k))
}

/// The sums of products, upper triangle, and the column sums, in `f64`.
fn exact_sums(rows: &Array2<f32>) -> (Array2<f64>, Array1<f64>) {
    let k = rows.ncols();
    let mut sums = vec![0.0; k * k];
    let mut target = MatMut::from_column_major_slice_mut(&mut sums, k, k);
    // Only a part of the rows is copied at a time.
    for part in rows.axis_chunks_iter(Axis(0), LEAST_BUFFER_ROWS) {
        let x = Mat::from_fn(part.nrows(), k, |i, j| f64::from(part[[i, j]]));
        linalg::gram_lower(target.rb_mut(), Accum::Add, x.as_ref());
    }
    let gram = Array2::from_shape_vec((k, k), sums).expect("as many elements as the shape has");
    let mut columns = Array1::zeros(k);
    for row in rows.rows() {
        columns.zip_mut_with(&row, |sum, x| *sum += f64::from(*x));
    }
    (gram, columns)
}

/// Rows and columns of a tile that stays in a core's cache.
const TILE: usize = 64;

pub(crate) fn divide_and_mirror(upper: &mut Array2<f64>, n_rows: usize) {
    let (k, n) = (upper.nrows(), n_rows as f64);
    for first in (0..k).step_by(TILE) {
        for second in (first..k).step_by(TILE) {
            for i in first..k.min(first + TILE) {
                for j in second.max(i)..k.min(second + TILE) {
                    let value = upper[[i, j]] / n;
                    upper[[i, j]] = value;
                    upper[[j, i]] = value;
                }
            }
        }
    }
}

/// Checks moments, each row of which is a row of one of `matrices`, one below the other.
pub(crate) fn check_moments<T: Copy + Into<f64>>(matrices: &[ArrayView2<'_, T>]) -> Result<(), QuantError> {
    // NaN and infinity times zero are NaN.
    let is_finite = |row: ArrayView1<'_, T>| row.iter().fold(0.0, |sum: f64, x| sum + 0.0 * (*x).into()) == 0.0;
    let rows = matrices.iter().flat_map(|matrix| matrix.rows().into_iter().enumerate());
    let bad = rows.filter(|(_, row)| !is_finite(*row)).flat_map(|(i, row)| {
        let find = row.into_iter().enumerate().find(|(_, x)| !(**x).into().is_finite());
        find.map(|(j, x)| ((i, j), (*x).into()))
    });
    match bad.into_iter().next() {
        None => Ok(()),
        Some(((i, j), value)) => Err(QuantError::NonFinite { array: Array::Moments, index: vec![i, j], value }),
    }
}

#[cfg(test)]
#[path = "gram_tests.rs"]
mod tests;
