//! The diagonal of the second moments alone, in O(K) memory.

use ndarray::{Array1, ArrayView2};

use super::{GramStats, Moment, check_inputs, check_rows};
use crate::error::{Array, QuantError};

/// Gathers the diagonal of `H` only: enough for weighted scales, and O(K) memory.
///
/// Rows are added one by one, so that the split into pushes does not matter.
#[derive(Debug)]
pub struct DiagonalAccumulator {
    n_rows: usize,
    sums: Array1<f64>,
    squares: Array1<f64>,
}

impl DiagonalAccumulator {
    /// For rows of `k` inputs.
    pub fn new(k: usize) -> Result<DiagonalAccumulator, QuantError> {
        check_inputs(k)?;
        Ok(DiagonalAccumulator { n_rows: 0, sums: Array1::zeros(k), squares: Array1::zeros(k) })
    }

    /// Adds rows `[n, K]`. After an error the accumulator is as before the call.
    pub fn push(&mut self, rows: ArrayView2<'_, f32>) -> Result<(), QuantError> {
        check_rows(&rows, self.sums.len(), self.n_rows)?;
        self.n_rows += rows.nrows();
        for row in rows.rows() {
            for ((sum, square), x) in self.sums.iter_mut().zip(&mut self.squares).zip(row) {
                let x = f64::from(*x);
                *sum += x;
                *square += x * x;
            }
        }
        Ok(())
    }

    /// Closes the sums.
    pub fn finish(self) -> Result<GramStats, QuantError> {
        if self.n_rows == 0 {
            return Err(QuantError::NoRows);
        }
        let n = self.n_rows as f64;
        let diagonal = self.squares / n;
        if let Some(i) = diagonal.iter().position(|value| !value.is_finite()) {
            return Err(QuantError::NonFinite { array: Array::Moments, index: vec![i, i], value: diagonal[i] });
        }
        let (mean, moment) = (self.sums / n, Moment::Diagonal(diagonal));
        let (n_rows, n_samples) = (self.n_rows, self.n_rows);
        Ok(GramStats { n_rows, n_samples, mean, moment, rows: None, drift: None, n_unpaired: 0 })
    }
}
