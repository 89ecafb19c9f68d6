//! Bias correction: what rounding adds to a layer's mean output is taken off its bias.
//!
//! # Problem
//!
//! Rounding changes `X W` to `X Q`. Part of the change is the same for every row,
//! `mean(X) (Q - W)`, and a bias can absorb it exactly.
//!
//! # Shapes and units
//!
//! The correction is `[groups, M]`, in units of the layer's output.
//!
//! # Method
//!
//! ```text
//! c = mean(X)^T (W - Q),      b' = b + c
//! ```
//!
//! # Guarantee
//!
//! On the calibration rows the squared error falls by exactly `n |c|^2`: with D = W - Q,
//!
//! ```text
//! |X D - 1 c^T|_F^2 / n  =  tr(D^T H D) - 2 c^T D^T mean + |c|^2
//! ```
//!
//! # Cost
//!
//! O(K M).
//!
//! # References
//!
//! Nagel, van Baalen, Blankevoort, Welling: Data-free quantization through weight
//! equalization and bias correction, arXiv 1906.04721, section 4.2.

use crate::certificate::{ratio, total};
use crate::error::QuantError;
use crate::stats::GramStats;
use crate::view::shape_error;
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis};

/// `c = mean(X)^T (W - Q)`, one number an output.
pub fn bias_correction(
    weights: ArrayView3<'_, f32>,
    dequantized: ArrayView3<'_, f32>,
    stats: &[GramStats],
) -> Result<Array2<f64>, QuantError> {
    let errors = errors(weights, dequantized, stats)?;
    Ok(mean_outputs(&errors, stats))
}

/// `|X (W - Q) - 1 c^T|_F / |X W|_F` on the rows behind `stats` (one entry per group).
pub fn corrected_error(
    weights: ArrayView3<'_, f32>,
    dequantized: ArrayView3<'_, f32>,
    correction: ArrayView2<'_, f64>,
    stats: &[GramStats],
) -> Result<f64, QuantError> {
    let errors = errors(weights, dequantized, stats)?;
    let means = mean_outputs(&errors, stats);
    if correction.dim() != means.dim() {
        return Err(shape_error("bias correction", correction.shape(), format!("{:?}", means.shape())));
    }
    let shift: f64 = correction.iter().zip(&means).map(|(c, mean)| c * (c - 2.0 * mean)).sum();
    let remaining = (total(stats, &errors) + shift).max(0.0);
    Ok(ratio(remaining, total(stats, &weights.mapv(f64::from))))
}

fn errors(
    weights: ArrayView3<'_, f32>,
    dequantized: ArrayView3<'_, f32>,
    stats: &[GramStats],
) -> Result<Array3<f64>, QuantError> {
    if dequantized.dim() != weights.dim() {
        return Err(shape_error("dequantized weights", dequantized.shape(), format!("{:?}", weights.shape())));
    }
    let (groups, k, _) = weights.dim();
    let inputs: Vec<usize> = stats.iter().map(GramStats::k).collect();
    if inputs != vec![k; groups] {
        return Err(shape_error("statistics", &inputs, format!("{groups} groups of {k} inputs")));
    }
    Ok(weights.mapv(f64::from) - dequantized.mapv(f64::from))
}

/// `mean(X)^T D` of every group.
fn mean_outputs(errors: &Array3<f64>, stats: &[GramStats]) -> Array2<f64> {
    let (groups, _, outputs) = errors.dim();
    let mut means = Array2::zeros((groups, outputs));
    for ((mut row, error), stats) in means.outer_iter_mut().zip(errors.axis_iter(Axis(0))).zip(stats) {
        row.assign(&stats.mean().dot(&error));
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gaussian_rows;
    use ndarray::Array2;

    #[test]
    fn correction_leaves_the_error_that_the_rows_themselves_give() {
        let rows = gaussian_rows(40, 6, 3).mapv(|x| x + 2.0);
        let weights = Array3::from_shape_fn((1, 6, 2), |(_, k, m)| (k as f32 - 2.5) * 0.3 + m as f32);
        let rounded = weights.mapv(f32::round);
        let stats = [GramStats::from_rows(rows.view()).unwrap()];
        let correction = bias_correction(weights.view(), rounded.view(), &stats).unwrap();
        let found = corrected_error(weights.view(), rounded.view(), correction.view(), &stats).unwrap();

        let x = rows.mapv(f64::from);
        let difference = (&weights - &rounded).index_axis(Axis(0), 0).mapv(f64::from);
        let left: Array2<f64> = x.dot(&difference) - &correction;
        let whole = x.dot(&weights.index_axis(Axis(0), 0).mapv(f64::from));
        let norm = |a: &Array2<f64>| a.iter().map(|v| v * v).sum::<f64>().sqrt();
        assert!((found - norm(&left) / norm(&whole)).abs() < 1e-6);
        let column_means = left.mean_axis(Axis(0)).unwrap();
        assert!(column_means.iter().all(|mean| mean.abs() < 1e-6));
    }
}
