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
//! Rows fill a buffer of `max(K, 512)` rows (fewer for very wide layers: 64 MiB
//! at most, never under 512 rows). A full buffer is flushed: faer forms the lower triangle of
//! `X^T X` in `f32`, which is added to the `f64` sums. If everything fits the
//! buffer, which includes every `n < K` up to K = 4096, the Gram matrix is formed
//! in `f64` and the rows are kept: exactly what the kernel walk needs.
//!
//! # Guarantee
//!
//! Chunk boundaries depend on the number of rows only and each accumulator is
//! sequential, so the result is the same, bit by bit, for any split into pushes
//! and any number of threads around it.
//!
//! # Numerics
//!
//! Products of one chunk are summed in `f32`, chunks in `f64`: relative error
//! per element about `f32::EPSILON * sqrt(chunk)` at worst, and not growing with n.
//!
//! # Cost
//!
//! `n K^2` multiply-adds. Memory: `8 K^2` bytes of sums, `4 K^2` of scratch,
//! and the buffer, `4 K max(K, 512)` bytes.
//!
//! # Failure
//!
//! NaN or infinity in a row is an error that names row and input; sums that
//! overflow are an error that names the element of `H`.

use crate::error::{Array, QuantError};
use crate::linalg;
use crate::view::shape_error;
use faer::{Accum, Mat, MatRef};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, ShapeBuilder, Slice};

/// Least number of rows in the buffer: enough for the product to run at full speed.
const LEAST_BUFFER_ROWS: usize = 512;
/// Most elements in the buffer, unless [`LEAST_BUFFER_ROWS`] needs more.
const MOST_BUFFER_ELEMENTS: usize = 1 << 24;

/// Second moments of the inputs of one group of a layer.
#[derive(Clone, Debug)]
pub struct GramStats {
    n_rows: usize,
    mean: Array1<f64>,
    moment: Moment,
    rows: Option<Array2<f32>>,
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
}

/// Gathers the whole Gram matrix.
#[derive(Debug)]
pub struct GramAccumulator {
    /// `[capacity, K]` in the memory order of the first push; empty before it.
    buffer: Array2<f32>,
    filled: usize,
    /// Lower triangle of `X^T X`, column-major; empty until the first flush.
    sums: Mat<f64>,
    scratch: Mat<f32>,
    columns: ColumnSums,
}

impl GramAccumulator {
    /// For rows of `k` inputs.
    pub fn new(k: usize) -> Result<GramAccumulator, QuantError> {
        let columns = ColumnSums::new(k)?;
        Ok(GramAccumulator { buffer: Array2::zeros((0, k)), filled: 0, sums: Mat::new(), scratch: Mat::new(), columns })
    }

    /// How many rows may be pushed before the rows themselves are given up.
    pub fn capacity(&self) -> usize {
        buffer_rows(self.buffer.ncols())
    }

    /// Adds rows `[n, K]`. After an error the accumulator is as before the call.
    pub fn push(&mut self, rows: ArrayView2<'_, f32>) -> Result<(), QuantError> {
        self.columns.add(&rows, false)?;
        let capacity = self.capacity();
        let mut rest = rows;
        while rest.nrows() > 0 {
            if self.filled == capacity {
                self.flush();
            }
            let taken = rest.nrows().min(capacity - self.filled);
            let (now, later) = rest.split_at(Axis(0), taken);
            match memory(&now) {
                // A whole chunk with more to follow need not be copied.
                Some(x) if taken == capacity && later.nrows() > 0 => self.add_chunk(x),
                _ => self.keep(&now),
            }
            rest = later;
        }
        Ok(())
    }

    /// Closes the sums.
    pub fn finish(mut self) -> Result<GramStats, QuantError> {
        let (n_rows, mean) = self.columns.mean()?;
        let kept = self.buffer.slice_axis(Axis(0), Slice::from(..self.filled));
        let rows = (n_rows == self.filled).then(|| kept.as_standard_layout().into_owned());
        match &rows {
            Some(rows) => self.sums = exact_gram(rows.view()),
            None => self.flush(),
        }
        let gram = symmetric(&self.sums, n_rows);
        check_moments(gram.indexed_iter().map(|(index, value)| (index, *value)))?;
        Ok(GramStats { n_rows, mean, moment: Moment::Full(gram), rows })
    }

    fn keep(&mut self, rows: &ArrayView2<'_, f32>) {
        if self.buffer.nrows() == 0 {
            let shape = (self.capacity(), rows.ncols());
            self.buffer = Array2::zeros(shape.set_f(!rows.is_standard_layout()));
        }
        let end = self.filled + rows.nrows();
        let place = Slice::from(self.filled..end);
        self.buffer.slice_axis_mut(Axis(0), place).assign(rows);
        self.filled = end;
    }

    fn flush(&mut self) {
        // Taken out for the call, so that the chunk may borrow it.
        let buffer = std::mem::take(&mut self.buffer);
        if self.filled > 0 {
            let whole = memory(&buffer.view()).expect("the buffer was allocated in one piece");
            self.add_chunk(whole.subrows(0, self.filled));
        }
        self.buffer = buffer;
        self.filled = 0;
    }

    fn add_chunk(&mut self, x: MatRef<'_, f32>) {
        let k = x.ncols();
        if self.sums.nrows() != k {
            self.sums = Mat::zeros(k, k);
            self.scratch = Mat::zeros(k, k);
        }
        linalg::gram_lower(self.scratch.as_mut(), Accum::Replace, x);
        for j in 0..k {
            let source = &self.scratch.col_as_slice(j)[j..];
            let target = &mut self.sums.col_as_slice_mut(j)[j..];
            for (sum, chunk) in target.iter_mut().zip(source) {
                *sum += f64::from(*chunk);
            }
        }
    }
}

/// Gathers the diagonal of `H` only: enough for weighted scales, and O(K) memory.
#[derive(Debug)]
pub struct DiagonalAccumulator {
    columns: ColumnSums,
}

impl DiagonalAccumulator {
    /// For rows of `k` inputs.
    pub fn new(k: usize) -> Result<DiagonalAccumulator, QuantError> {
        let columns = ColumnSums::new(k)?;
        Ok(DiagonalAccumulator { columns })
    }

    /// Adds rows `[n, K]`. After an error the accumulator is as before the call.
    pub fn push(&mut self, rows: ArrayView2<'_, f32>) -> Result<(), QuantError> {
        self.columns.add(&rows, true)
    }

    /// Closes the sums.
    pub fn finish(self) -> Result<GramStats, QuantError> {
        let (n_rows, mean) = self.columns.mean()?;
        let diagonal = self.columns.squares / n_rows as f64;
        check_moments(diagonal.iter().enumerate().map(|(i, value)| ((i, i), *value)))?;
        Ok(GramStats { n_rows, mean, moment: Moment::Diagonal(diagonal), rows: None })
    }
}

/// Sums over rows, added row by row so that the split into pushes does not matter.
#[derive(Debug)]
struct ColumnSums {
    n_rows: usize,
    sums: Array1<f64>,
    squares: Array1<f64>,
}

impl ColumnSums {
    fn new(k: usize) -> Result<ColumnSums, QuantError> {
        if k == 0 {
            return Err(QuantError::Setting { what: "number of inputs", found: "0".into(), expected: "at least 1" });
        }
        Ok(ColumnSums { n_rows: 0, sums: Array1::zeros(k), squares: Array1::zeros(k) })
    }

    /// Adds rows, or nothing if one of them is not finite.
    fn add(&mut self, rows: &ArrayView2<'_, f32>, squares: bool) -> Result<(), QuantError> {
        let k = self.sums.len();
        if rows.ncols() != k {
            return Err(shape_error("rows", rows.shape(), format!("[n, {k}]")));
        }
        let mut sums = self.sums.clone();
        add_terms(&mut sums, rows, |x| x);
        // Numbers of `f32` range cannot overflow these sums, but NaN and infinity
        // stay in them.
        if !sums.iter().all(|sum| sum.is_finite()) {
            return Err(self.first_bad(rows));
        }
        self.sums = sums;
        if squares {
            add_terms(&mut self.squares, rows, |x| x * x);
        }
        self.n_rows += rows.nrows();
        Ok(())
    }

    fn first_bad(&self, rows: &ArrayView2<'_, f32>) -> QuantError {
        let bad = rows.indexed_iter().find(|(_, x)| !x.is_finite());
        let ((row, input), value) = bad.map_or(((0, 0), f32::NAN), |(index, x)| (index, *x));
        QuantError::NonFinite { array: Array::Rows, index: vec![self.n_rows + row, input], value: f64::from(value) }
    }

    fn mean(&self) -> Result<(usize, Array1<f64>), QuantError> {
        if self.n_rows == 0 {
            return Err(QuantError::NoRows);
        }
        Ok((self.n_rows, &self.sums / self.n_rows as f64))
    }
}

fn buffer_rows(k: usize) -> usize {
    let most = (MOST_BUFFER_ELEMENTS / k).max(LEAST_BUFFER_ROWS);
    k.max(LEAST_BUFFER_ROWS).min(most)
}

/// `sums[j] += sum_i term(rows[i, j])`, rows in order whatever their layout.
fn add_terms(sums: &mut Array1<f64>, rows: &ArrayView2<'_, f32>, term: impl Fn(f64) -> f64) {
    if let (Some(rows), Some(sums)) = (rows.to_slice(), sums.as_slice_mut()) {
        add_terms_by_row(sums, rows, term);
        return;
    }
    // Several columns at once, so that additions need not wait for each other.
    const TOGETHER: usize = 8;
    let columns = rows.axis_chunks_iter(Axis(1), TOGETHER);
    for (band, sums) in columns.zip(sums.axis_chunks_iter_mut(Axis(0), TOGETHER)) {
        let mut partial = [0.0; TOGETHER];
        for (partial, sum) in partial.iter_mut().zip(&sums) {
            *partial = *sum;
        }
        for row in band.rows() {
            for (partial, x) in partial.iter_mut().zip(row) {
                *partial += term(f64::from(*x));
            }
        }
        for (sum, partial) in sums.into_iter().zip(partial) {
            *sum = partial;
        }
    }
}

/// The same for rows that lie in memory one after the other, four in one pass.
fn add_terms_by_row(sums: &mut [f64], rows: &[f32], term: impl Fn(f64) -> f64) {
    let k = sums.len();
    let mut quads = rows.chunks_exact(4 * k);
    for quad in &mut quads {
        let (a, rest) = quad.split_at(k);
        let (b, rest) = rest.split_at(k);
        let (c, d) = rest.split_at(k);
        for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            let value = *sum + term(f64::from(*a)) + term(f64::from(*b));
            *sum = value + term(f64::from(*c)) + term(f64::from(*d));
        }
    }
    for row in quads.remainder().chunks_exact(k) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += term(f64::from(*x));
        }
    }
}

/// Rows as faer sees them, if they lie in memory row by row or column by column.
fn memory<'a>(rows: &ArrayView2<'a, f32>) -> Option<MatRef<'a, f32>> {
    let (n, k) = rows.dim();
    if let Some(elements) = rows.to_slice() {
        return Some(MatRef::from_row_major_slice(elements, n, k));
    }
    let transposed = rows.reversed_axes();
    if let Some(elements) = transposed.to_slice() {
        return Some(MatRef::from_column_major_slice(elements, n, k));
    }
    None
}

fn exact_gram(rows: ArrayView2<'_, f32>) -> Mat<f64> {
    let (n, k) = rows.dim();
    let x = Mat::from_fn(n, k, |i, j| f64::from(rows[[i, j]]));
    let mut sums = Mat::zeros(k, k);
    linalg::gram_lower(sums.as_mut(), Accum::Replace, x.as_ref());
    sums
}

fn symmetric(lower: &Mat<f64>, n_rows: usize) -> Array2<f64> {
    let k = lower.nrows();
    let mut gram = Array2::zeros((k, k));
    for j in 0..k {
        for (i, sum) in lower.col_as_slice(j).iter().enumerate().skip(j) {
            let value = sum / n_rows as f64;
            gram[[i, j]] = value;
            gram[[j, i]] = value;
        }
    }
    gram
}

fn check_moments(mut moments: impl Iterator<Item = ((usize, usize), f64)>) -> Result<(), QuantError> {
    match moments.find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some(((i, j), value)) => Err(QuantError::NonFinite { array: Array::Moments, index: vec![i, j], value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gaussian_rows;

    fn pushed(rows: &Array2<f32>, chunk: usize) -> GramStats {
        let mut accumulator = GramAccumulator::new(rows.ncols()).unwrap();
        for part in rows.axis_chunks_iter(Axis(0), chunk) {
            accumulator.push(part).unwrap();
        }
        accumulator.finish().unwrap()
    }

    #[test]
    fn gram_equals_the_plain_product() {
        for (n, k) in [(1, 1), (3, 7), (512, 5), (513, 5), (1500, 40)] {
            let rows = gaussian_rows(n, k, 3);
            let stats = pushed(&rows, 100);
            let x = rows.mapv(f64::from);
            let wanted = x.t().dot(&x) / n as f64;
            for (found, wanted) in stats.gram().unwrap().iter().zip(&wanted) {
                assert!((found - wanted).abs() < 1e-5, "{n} {k}: {found} {wanted}");
            }
            assert_eq!(stats.rows().is_some(), n <= 512);
            assert_eq!((stats.n_rows(), stats.k()), (n, k));
            assert!(stats.rows().is_none_or(|kept| kept == rows));
        }
    }

    #[test]
    fn any_split_and_any_layout_give_the_same_bits() {
        let rows = gaussian_rows(1300, 24, 4);
        let whole = pushed(&rows, 1300);
        let mut columns = Array2::zeros((24, 1300)).reversed_axes();
        columns.assign(&rows);
        for (rows, chunk) in [(&rows, 1), (&rows, 7), (&rows, 512), (&columns, 333)] {
            let split = pushed(rows, chunk);
            assert_eq!(split.gram(), whole.gram());
            assert_eq!(split.mean(), whole.mean());
        }
    }

    #[test]
    fn diagonal_statistics_equal_the_diagonal_of_the_gram_matrix() {
        let rows = gaussian_rows(700, 6, 5);
        let full = pushed(&rows, 64);
        let mut accumulator = DiagonalAccumulator::new(6).unwrap();
        accumulator.push(rows.view()).unwrap();
        let diagonal = accumulator.finish().unwrap();
        assert!(diagonal.gram().is_none());
        for (a, b) in diagonal.mean_square().iter().zip(full.mean_square()) {
            assert!((a - b).abs() < 1e-5 * b);
        }
    }

    #[test]
    fn bad_rows_are_refused_with_their_index_and_change_nothing() {
        let mut accumulator = GramAccumulator::new(3).unwrap();
        accumulator.push(gaussian_rows(4, 3, 6).view()).unwrap();
        let mut bad = gaussian_rows(2, 3, 7);
        bad[[1, 2]] = f32::NAN;
        let error = accumulator.push(bad.view()).unwrap_err().to_string();
        assert!(error.contains("[5, 2]"), "{error}");
        assert!(accumulator.push(gaussian_rows(2, 4, 8).view()).is_err());
        let stats = accumulator.finish().unwrap();
        assert_eq!(stats.gram(), pushed(&gaussian_rows(4, 3, 6), 9).gram());
    }

    #[test]
    fn no_rows_no_inputs_and_overflow_are_errors() {
        assert!(GramAccumulator::new(0).is_err());
        let empty = GramAccumulator::new(3).unwrap().finish();
        assert!(matches!(empty, Err(QuantError::NoRows)));
        let huge = Array2::from_elem((600, 2), 1e30f32);
        let error = GramStats::from_rows(huge.view()).unwrap_err();
        assert!(error.to_string().contains("second moments"));
    }

    #[test]
    fn the_buffer_stays_bounded_for_wide_layers() {
        assert_eq!(buffer_rows(3), 512);
        assert_eq!(buffer_rows(4096), 4096);
        assert_eq!(buffer_rows(9216), 1820);
        assert_eq!(buffer_rows(1 << 20), 512);
    }
}
