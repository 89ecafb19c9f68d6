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
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Slice};

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
    /// `[K, capacity]`, one column per row of data.
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
        Ok(GramAccumulator {
            buffer: Array2::zeros((k, buffer_rows(k))),
            filled: 0,
            sums: Mat::new(),
            scratch: Mat::new(),
            columns,
        })
    }

    /// How many rows may be pushed before the rows themselves are given up.
    pub fn capacity(&self) -> usize {
        self.buffer.ncols()
    }

    /// Adds rows `[n, K]`. After an error the accumulator is as before the call.
    pub fn push(&mut self, rows: ArrayView2<'_, f32>) -> Result<(), QuantError> {
        self.columns.check(&rows)?;
        let mut rest = rows;
        while rest.nrows() > 0 {
            if self.filled == self.capacity() {
                self.flush();
            }
            let taken = rest.nrows().min(self.capacity() - self.filled);
            let (now, later) = rest.split_at(Axis(0), taken);
            let end = self.filled + taken;
            let place = Slice::from(self.filled..end);
            transpose_into(self.buffer.slice_axis_mut(Axis(1), place), now);
            self.filled = end;
            self.columns.add(&now, false);
            rest = later;
        }
        Ok(())
    }

    /// Closes the sums.
    pub fn finish(mut self) -> Result<GramStats, QuantError> {
        let n_rows = self.columns.n_rows;
        let rows = (n_rows == self.filled).then(|| {
            let kept = self.buffer.slice_axis(Axis(1), Slice::from(..n_rows)).reversed_axes();
            kept.as_standard_layout().into_owned()
        });
        match &rows {
            Some(rows) => self.sums = exact_gram(rows.view()),
            None => self.flush(),
        }
        let (n_rows, mean) = self.columns.mean()?;
        let gram = symmetric(&self.sums, n_rows);
        check_moments(gram.indexed_iter().map(|((i, j), value)| (vec![i, j], *value)))?;
        Ok(GramStats { n_rows, mean, moment: Moment::Full(gram), rows })
    }

    fn flush(&mut self) {
        let k = self.buffer.nrows();
        if self.sums.nrows() != k {
            self.sums = Mat::zeros(k, k);
            self.scratch = Mat::zeros(k, k);
        }
        let stride = self.buffer.ncols();
        let Some(elements) = self.buffer.as_slice() else {
            return;
        };
        let columns = MatRef::from_row_major_slice_with_stride(elements, k, self.filled, stride);
        linalg::gram_lower(self.scratch.as_mut(), Accum::Replace, columns.transpose());
        for j in 0..k {
            let source = &self.scratch.col_as_slice(j)[j..];
            let target = &mut self.sums.col_as_slice_mut(j)[j..];
            for (sum, chunk) in target.iter_mut().zip(source) {
                *sum += f64::from(*chunk);
            }
        }
        self.filled = 0;
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
        self.columns.check(&rows)?;
        self.columns.add(&rows, true);
        Ok(())
    }

    /// Closes the sums.
    pub fn finish(self) -> Result<GramStats, QuantError> {
        let (n_rows, mean) = self.columns.mean()?;
        let diagonal = self.columns.squares / n_rows as f64;
        check_moments(diagonal.iter().enumerate().map(|(i, value)| (vec![i, i], *value)))?;
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

    fn check(&self, rows: &ArrayView2<'_, f32>) -> Result<(), QuantError> {
        let k = self.sums.len();
        if rows.ncols() != k {
            return Err(shape_error("rows", rows.shape(), format!("[n, {k}]")));
        }
        // A sum is finite only if every term is: one pass without branches first.
        if rows.iter().map(|x| x * 0.0).sum::<f32>() == 0.0 {
            return Ok(());
        }
        match rows.indexed_iter().find(|(_, x)| !x.is_finite()) {
            None => Ok(()),
            Some(((row, input), value)) => Err(QuantError::NonFinite {
                array: Array::Rows,
                index: vec![self.n_rows + row, input],
                value: f64::from(*value),
            }),
        }
    }

    fn add(&mut self, rows: &ArrayView2<'_, f32>, squares: bool) {
        if rows.stride_of(Axis(0)) < rows.stride_of(Axis(1)) {
            self.add_by_column(rows, squares);
        } else {
            self.add_by_row(rows, squares);
        }
        self.n_rows += rows.nrows();
    }

    fn add_by_column(&mut self, rows: &ArrayView2<'_, f32>, squares: bool) {
        for (j, column) in rows.columns().into_iter().enumerate() {
            let (mut sum, mut square) = (self.sums[j], self.squares[j]);
            for x in column {
                let x = f64::from(*x);
                sum += x;
                square += x * x;
            }
            self.sums[j] = sum;
            if squares {
                self.squares[j] = square;
            }
        }
    }

    fn add_by_row(&mut self, rows: &ArrayView2<'_, f32>, squares: bool) {
        for row in rows.rows() {
            for (sum, x) in self.sums.iter_mut().zip(row) {
                *sum += f64::from(*x);
            }
            if squares {
                for (square, x) in self.squares.iter_mut().zip(row) {
                    *square += f64::from(*x) * f64::from(*x);
                }
            }
        }
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

/// Copies `source` `[n, K]` to `target` `[K, n]`, in tiles that stay in cache.
fn transpose_into(mut target: ndarray::ArrayViewMut2<'_, f32>, source: ArrayView2<'_, f32>) {
    const TILE: usize = 16;
    if source.stride_of(Axis(0)) == 1 {
        target.assign(&source.reversed_axes());
        return;
    }
    for (first, mut band) in target.axis_chunks_iter_mut(Axis(1), TILE).enumerate() {
        let rows = Slice::from(first * TILE..first * TILE + band.ncols());
        let rows = source.slice_axis(Axis(0), rows);
        for (mut tile, from) in band.axis_chunks_iter_mut(Axis(0), TILE).zip(rows.axis_chunks_iter(Axis(1), TILE)) {
            tile.assign(&from.reversed_axes());
        }
    }
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

fn check_moments(mut moments: impl Iterator<Item = (Vec<usize>, f64)>) -> Result<(), QuantError> {
    match moments.find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some((index, value)) => Err(QuantError::NonFinite { array: Array::Moments, index, value }),
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
