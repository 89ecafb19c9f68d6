//! The inverse of a basis, kept up to date while columns are exchanged.
//!
//! # Method
//!
//! Replacing column `slot` of `B` by `v` turns `B^-1` into `E B^-1` with `E` the
//! identity but for column `slot`; with `y = B^-1 v` that is the rank-one update
//!
//! ```text
//! row = B^-1[slot, :] / y[slot]
//! B^-1 -= y row,   B^-1[slot, :] = row
//! ```
//!
//! # Cost
//!
//! O(r^2) for a product or an exchange, O(r^3) for [`Inverse::refactor`].
//!
//! # Failure
//!
//! [`Inverse::refactor`] says so if the new basis is singular. Callers avoid
//! small pivots and refactor now and then; both are theirs to decide.

use crate::linalg;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// `B^-1`, r x r.
#[derive(Clone, Debug)]
pub(crate) struct Inverse {
    matrix: Mat<f64>,
    row: Vec<f64>,
    exchanges: usize,
}

impl Inverse {
    /// Of the identity.
    pub(crate) fn identity(rank: usize) -> Inverse {
        Inverse { matrix: Mat::identity(rank, rank), row: vec![0.0; rank], exchanges: 0 }
    }

    /// `target = B^-1 v`.
    pub(crate) fn apply(&self, v: &[f64], target: &mut [f64]) {
        let rank = self.matrix.nrows();
        matmul(
            MatMut::from_column_major_slice_mut(target, rank, 1),
            Accum::Replace,
            self.matrix.as_ref(),
            MatRef::from_column_major_slice(v, rank, 1),
            1.0,
            Par::Seq,
        );
    }

    /// `target = row slot of B^-1`.
    pub(crate) fn copy_row(&self, slot: usize, target: &mut [f64]) {
        for (k, value) in target.iter_mut().enumerate() {
            *value = self.matrix[(slot, k)];
        }
    }

    /// Replaces column `slot` of the basis by the `v` of which `y = B^-1 v`.
    pub(crate) fn exchange(&mut self, slot: usize, y: &[f64]) {
        let pivot = y[slot];
        let mut row = std::mem::take(&mut self.row);
        self.copy_row(slot, &mut row);
        row.iter_mut().for_each(|value| *value /= pivot);
        let rank = self.matrix.nrows();
        matmul(
            self.matrix.as_mut(),
            Accum::Add,
            MatRef::from_column_major_slice(y, rank, 1),
            MatRef::from_row_major_slice(&row, 1, rank),
            -1.0,
            Par::Seq,
        );
        for (k, value) in row.iter().enumerate() {
            self.matrix[(slot, k)] = *value;
        }
        self.row = row;
        self.exchanges += 1;
    }

    /// Exchanges since the last factorization.
    pub(crate) fn exchanges(&self) -> usize {
        self.exchanges
    }

    /// Starts anew from the columns of `basis`; false, and no change, if they
    /// are dependent to working precision.
    pub(crate) fn refactor(&mut self, basis: Mat<f64>) -> bool {
        match linalg::invert(basis) {
            None => false,
            Some(matrix) => {
                self.matrix = matrix;
                self.exchanges = 0;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Gaussian;

    #[test]
    fn updates_agree_with_a_fresh_factorization() {
        let mut gaussian = Gaussian::new(3);
        let rank = 7;
        let mut basis = Mat::<f64>::identity(rank, rank);
        let mut inverse = Inverse::identity(rank);
        let mut y = vec![0.0; rank];
        for step in 0..40 {
            let slot = (step * 3) % rank;
            let v: Vec<f64> = (0..rank).map(|_| gaussian.sample()).collect();
            inverse.apply(&v, &mut y);
            if y[slot].abs() < 0.1 {
                continue;
            }
            inverse.exchange(slot, &y);
            basis.col_as_slice_mut(slot).copy_from_slice(&v);
        }
        let error = &inverse.matrix * &basis - Mat::<f64>::identity(rank, rank);
        assert!(error.norm_max() < 1e-8, "{}", error.norm_max());
        let mut fresh = Inverse::identity(rank);
        assert!(fresh.refactor(basis));
        assert!((fresh.matrix - inverse.matrix).norm_max() < 1e-8);
    }
}
