//! How many dimensions the data have, and how well they let weights be rounded at all.
//!
//! # Problem
//!
//! The bound of the kernel walk ([`crate::walks::kernel`]) counts the rank of the data, and says nothing once there are more
//! rows than inputs. Data of full rank still lie near few dimensions.
//!
//! # Shapes and units
//!
//! `A = H + l I`, K x K, as in [`crate::lattice::quadratic`], with its factor L.
//!
//! # Method
//!
//! ```text
//! d(l) = tr(H (H + l I)^-1) = K - l |L^-1|_F^2
//! ```
//!
//! # Guarantee
//!
//! If no weight of a neuron lies beyond its grid and no step of the grid is wider than `s`, then a walk over the corners of
//! the cells in which the weights lie (Gram-Schmidt walk, pivots moved along directions of least cost, up or down at random
//! such that the mean stays) rounds each weight up or down with
//!
//! ```text
//! E e = 0,    E e^T H e <= (s / 2)^2 (max_i H_ii + l) d(l),    Var <x, e> <= (s / 2)^2 (max_i H_ii + l) x^T A^-1 x
//! ```
//!
//! for every l, the last for any input x, seen or not. So codes with at most the error in the middle exist.
//!
//! # Cost
//!
//! `K^3 / 6` multiply-adds, in parallel.
//!
//! # References
//!
//! C. Harshaw, F. Sävje, D. Spielman, P. Zhang, *Balancing covariates in randomized experiments with the Gram-Schmidt walk
//! design*, arXiv 1911.03071: the covariance of the walk, for columns `(x_i, sqrt(l) e_i)`.

use crate::lattice::quadratic::{Factor, Quadratic};
use crate::linalg;
use faer::Mat;
use rayon::prelude::*;

/// Columns of the inverse that are formed together.
const CHUNK: usize = 64;

/// `d(l)` for the damping of `factor`.
fn effective_dimension(factor: &Factor) -> f64 {
    let k = factor.lower.nrows();
    let chunks: Vec<usize> = (0..k).step_by(CHUNK).collect();
    let squares: Vec<f64> = chunks.into_par_iter().map(|first| inverse_squares(factor, first)).collect();
    (k as f64 - f64::from(factor.added) * squares.iter().sum::<f64>()).max(0.0)
}

/// `|L^-1|_F^2` over the columns from `first` on; above the diagonal they are 0.
fn inverse_squares(factor: &Factor, first: usize) -> f64 {
    let rows = factor.lower.nrows() - first;
    let mut columns = Mat::from_fn(rows, CHUNK.min(rows), |i, j| if i == j { 1.0f32 } else { 0.0 });
    linalg::solve_lower_in_place(factor.lower.as_ref().submatrix(first, first, rows, rows), columns.as_mut());
    (0..columns.ncols()).flat_map(|j| columns.col_as_slice(j)).map(|x| f64::from(*x).powi(2)).sum()
}

/// What the walk leaves of a neuron in the mean at most.
pub(crate) struct MeanError {
    /// `d(l)`.
    pub(crate) effective_dimension: f64,
    /// `(max_i H_ii + l) d(l)`.
    factor: f64,
}

impl MeanError {
    pub(crate) fn new(form: &Quadratic, factor: &Factor) -> MeanError {
        let effective_dimension = effective_dimension(factor);
        let largest = (0..form.inputs.len()).fold(0.0f32, |most, i| most.max(form.matrix[(i, i)]));
        MeanError { effective_dimension, factor: f64::from(largest + factor.added) * effective_dimension }
    }

    /// Of neurons whose `(s / 2)^2` have this sum.
    pub(crate) fn of(&self, cells: f64) -> f64 {
        // No data, no error.
        if self.factor == 0.0 { 0.0 } else { self.factor * cells }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::gram::GramStats;
    use crate::testing::{correlated_rows, gaussian_rows, with_threads};

    #[test]
    fn it_is_the_sum_over_eigenvalues_and_the_same_with_any_number_of_threads() {
        for (rows, k) in
            [(correlated_rows(400, 90, 1), 90), (gaussian_rows(30, 70, 2), 70), (gaussian_rows(50, 3, 3), 3)]
        {
            let form = Quadratic::new(&GramStats::from_rows(rows.view()).unwrap(), true).unwrap();
            let matrix = Mat::from_fn(k, k, |i, j| f64::from(form.matrix[(i, j)]));
            let (values, _) = linalg::eigen(matrix.as_ref(), false).unwrap();
            for damping in [0.3, 0.01] {
                let factor = form.factor(damping).unwrap();
                let added = f64::from(factor.added);
                let wanted: f64 = values.iter().map(|value| value / (value + added)).sum();
                let found = effective_dimension(&factor);
                assert!((found - wanted).abs() < 1e-3 * wanted, "{k} {damping}: {found} {wanted}");
                assert_eq!(found, with_threads(3, || effective_dimension(&factor)));
            }
        }
    }
}
