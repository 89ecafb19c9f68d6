//! What a neuron's rounding costs, as a quadratic form with its Cholesky factor.
//!
//! # Problem
//!
//! With `e = w - q`, the mean squared error of a neuron's output on the
//! calibration rows is `e^T H e`, or `e^T (H - mean mean^T) e` once the bias takes
//! off the mean error. Error feedback needs a positive definite form and its
//! factor, in the order in which inputs are rounded.
//!
//! # Method
//!
//! ```text
//! A = P (H - mean mean^T + damping * mean(diag) * I) P^T = L L^T
//! ```
//!
//! P sorts the live inputs by rising diagonal, of equals the later one first:
//! rounding starts at the last row and so takes the largest first. Inputs without variance are left out: what
//! they do is constant, and their weights are rounded on their own.
//!
//! # Numerics
//!
//! The moments are `f64`, form and factor are kept as `f32`, the factorization is `f64`. An input counts as dead if its diagonal is below `1e-12` of the largest,
//! or below `4 f32::EPSILON` of its own mean square: sums formed in `f32` cannot
//! tell it from a constant. Damping is 0.01 (Frantar et al.) unless
//! asked otherwise, and rises tenfold as long as the factorization fails.
//!
//! # Cost
//!
//! O(K^3 / 3) a factor; `4 K^2` bytes for the form and for each factor, and `8 K^2` while one is made.
//!
//! # Failure
//!
//! A matrix that is not positive definite even with damping `1e4` is an error.

use crate::error::QuantError;
use crate::linalg;
use crate::stats::gram::GramStats;
use crate::stats::live::{entries, live_inputs};
use faer::Mat;

const LAST_DAMPING: f64 = 2e4;
const RAISE_DAMPING: f64 = 10.0;

/// The form of one group, on its live inputs.
#[derive(Clone, Debug)]
pub(crate) struct Quadratic {
    /// The input behind each row; rounding goes from the last to the first.
    pub(crate) inputs: Vec<usize>,
    /// `A` without damping, both triangles.
    pub(crate) matrix: Mat<f32>,
    mean_diagonal: f64,
}

/// `L`, and the damping in it.
#[derive(Clone, Debug)]
pub(crate) struct Factor {
    /// Only the lower triangle means anything.
    pub(crate) lower: Mat<f32>,
    /// What was added to the diagonal.
    pub(crate) added: f32,
    /// The same as a fraction of the mean diagonal.
    pub(crate) damping: f64,
}

impl Quadratic {
    /// From a full Gram matrix, or `None` if only the diagonal was gathered.
    pub(crate) fn new(stats: &GramStats, centred: bool) -> Option<Quadratic> {
        let entry = entries(stats, centred)?;
        let inputs = live_inputs(stats, centred)?;
        let n = inputs.len();
        let matrix = Mat::from_fn(n, n, |i, j| entry(inputs[i], inputs[j]) as f32);
        let mean_diagonal = inputs.iter().map(|i| entry(*i, *i)).sum::<f64>() / n.max(1) as f64;
        Some(Quadratic { inputs, matrix, mean_diagonal })
    }

    /// The factor with `damping`, or with the least power of ten times it that is enough.
    pub(crate) fn factor(&self, mut damping: f64) -> Result<Factor, QuantError> {
        while damping < LAST_DAMPING {
            let added = damping * self.mean_diagonal;
            let n = self.inputs.len();
            let damped = |i, j| f64::from(self.matrix[(i, j)]) + if i == j { added } else { 0.0 };
            if let Some(lower) = linalg::cholesky(Mat::from_fn(n, n, damped)) {
                let lower = Mat::from_fn(n, n, |i, j| lower[(i, j)] as f32);
                return Ok(Factor { lower, added: added as f32, damping });
            }
            damping *= RAISE_DAMPING;
        }
        Err(QuantError::Factorization {
            matrix: "Gram matrix",
            reason: format!("it is not positive definite, not even with {LAST_DAMPING} times its mean diagonal added"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::options::FIRST_DAMPING;
    use crate::testing::gaussian_rows;

    #[test]
    fn the_factor_is_that_of_the_damped_covariance_in_rising_order() {
        let mut rows = gaussian_rows(50, 6, 1);
        rows.column_mut(2).mapv_inplace(|x| 3.0 * x + 5.0);
        rows.column_mut(4).fill(7.0);
        let stats = GramStats::from_rows(rows.view()).unwrap();
        let form = Quadratic::new(&stats, true).unwrap();
        let factor = form.factor(FIRST_DAMPING).unwrap();
        assert_eq!((form.inputs.len(), form.inputs[4], factor.damping), (5, 2, FIRST_DAMPING));
        let n = form.inputs.len();
        let lower = Mat::from_fn(n, n, |i, j| if i >= j { factor.lower[(i, j)] } else { 0.0 });
        let damped = &form.matrix + Mat::<f32>::identity(n, n) * faer::Scale(factor.added);
        assert!((&lower * lower.transpose() - damped).norm_max() < 1e-5);
        assert!((1..n).all(|i| form.matrix[(i, i)] >= form.matrix[(i - 1, i - 1)]));
        assert_eq!(Quadratic::new(&stats, false).unwrap().inputs.len(), 6);
    }

    #[test]
    fn an_indefinite_form_is_factored_with_more_damping() {
        let matrix = Mat::from_fn(2, 2, |i, j| if i == j { 1.0 } else { 1.5 });
        let form = Quadratic { inputs: vec![0, 1], matrix, mean_diagonal: 1.0 };
        assert!((form.factor(FIRST_DAMPING).unwrap().damping - 1.0).abs() < 1e-12);
        let hopeless = Quadratic { inputs: vec![0], matrix: Mat::from_fn(1, 1, |_, _| -1.0), mean_diagonal: -1.0 };
        assert!(hopeless.factor(FIRST_DAMPING).is_err());
    }

    #[test]
    fn inputs_that_never_move_are_left_out() {
        let rows = ndarray::Array2::from_elem((20, 3), 2.5);
        let stats = GramStats::from_rows(rows.view()).unwrap();
        assert!(Quadratic::new(&stats, true).unwrap().inputs.is_empty());
        let silent = GramStats::from_rows(ndarray::Array2::zeros((20, 3)).view()).unwrap();
        assert!(Quadratic::new(&silent, false).unwrap().inputs.is_empty());
    }
}
