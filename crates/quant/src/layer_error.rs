//! The error of a layer's output, from second moments of its inputs.
//!
//! # Problem
//!
//! A layer that computed `X W` will compute `X~ Q`, where `X~` are its inputs once the layers before it are quantized.
//! How far apart are they, all rows, neurons and groups together?
//!
//! # Method
//!
//! With `E = W - Q` and the moments of [`crate::drift`]
//!
//! ```text
//! |X W - X~ Q|_F^2 / n  =  tr(E^T H E) + 2 tr(E^T B W) + tr(W^T S W)
//! |X W|_F^2 / n         =  tr(W^T (H + B + B^T + S) W)
//! mean(X W - X~ Q)      =  mean(X~)^T E + mean(D)^T W
//! ```
//!
//! Without drift (`X~ = X`) only the terms in `H` and `mean(X~)` remain.
//!
//! # Numerics
//!
//! `f64`. Energies are cut at 0: rounding can make those of kernel vectors negative.
//!
//! # Cost
//!
//! `K^2` multiply-adds a neuron, three times that with drift.

use crate::stats::GramStats;
use ndarray::{Array2, Array3, ArrayView2, Axis};
use rayon::prelude::*;

/// Neurons whose errors are formed in one matrix product.
const CHUNK: usize = 64;

/// `e_j^T H e_j` for every column; 0 without a Gram matrix.
pub(crate) fn energies(stats: &GramStats, errors: ArrayView2<'_, f64>) -> Vec<f64> {
    match stats.gram() {
        None => vec![0.0; errors.ncols()],
        Some(gram) => forms(errors, errors, |errors| gram.dot(&errors)),
    }
}

/// `|D w_j|^2 / n` for every column of W; 0 without drift.
pub(crate) fn drift_energies(stats: &GramStats, weights: ArrayView2<'_, f64>) -> Vec<f64> {
    match stats.drift() {
        None => vec![0.0; weights.ncols()],
        Some(drift) => forms(weights, weights, |weights| drift.own().dot(&weights)),
    }
}

/// `|X W - X~ Q|_F^2 / n` over all groups; `errors` are `E`.
pub(crate) fn lost(stats: &[GramStats], weights: &Array3<f64>, errors: &Array3<f64>) -> f64 {
    let groups = stats.iter().zip(weights.axis_iter(Axis(0))).zip(errors.axis_iter(Axis(0)));
    groups.map(|((stats, weights), errors)| group_lost(stats, weights, errors)).sum()
}

/// `|X W|_F^2 / n` over all groups.
pub(crate) fn output(stats: &[GramStats], weights: &Array3<f64>) -> f64 {
    // `X W - X~ 0`.
    lost(stats, weights, weights)
}

fn group_lost(stats: &GramStats, weights: ArrayView2<'_, f64>, errors: ArrayView2<'_, f64>) -> f64 {
    let own = energies(stats, errors);
    let Some(drift) = stats.drift() else {
        return own.iter().sum();
    };
    let cross = forms_signed(weights, errors, |weights| drift.cross().dot(&weights));
    let drifted = drift_energies(stats, weights);
    let terms = own.iter().zip(&cross).zip(&drifted);
    terms.map(|((own, cross), drifted)| (own + 2.0 * cross + drifted).max(0.0)).sum()
}

/// `mean(X W - X~ Q)` of every group, `[groups, M]`.
pub(crate) fn mean_lost(stats: &[GramStats], weights: &Array3<f64>, errors: &Array3<f64>) -> Array2<f64> {
    let (groups, _, outputs) = errors.dim();
    let mut means = Array2::zeros((groups, outputs));
    let parts = stats.iter().zip(weights.axis_iter(Axis(0))).zip(errors.axis_iter(Axis(0)));
    for (mut row, ((stats, weights), errors)) in means.outer_iter_mut().zip(parts) {
        row.assign(&stats.mean().dot(&errors));
        if let Some(drift) = stats.drift() {
            row += &drift.mean().dot(&weights);
        }
    }
    means
}

/// The root of a quotient of energies; nothing lost of nothing is no error.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if part == 0.0 { 0.0 } else { (part / whole).sqrt() }
}

/// `<right_j, image(left)_j>` for every column, cut at 0.
fn forms(
    left: ArrayView2<'_, f64>,
    right: ArrayView2<'_, f64>,
    image: impl Fn(ArrayView2<'_, f64>) -> Array2<f64> + Sync,
) -> Vec<f64> {
    forms_signed(left, right, image).into_iter().map(|form| form.max(0.0)).collect()
}

fn forms_signed(
    left: ArrayView2<'_, f64>,
    right: ArrayView2<'_, f64>,
    image: impl Fn(ArrayView2<'_, f64>) -> Array2<f64> + Sync,
) -> Vec<f64> {
    let chunks: Vec<_> = left.axis_chunks_iter(Axis(1), CHUNK).zip(right.axis_chunks_iter(Axis(1), CHUNK)).collect();
    let form = |(left, right): (ArrayView2<'_, f64>, ArrayView2<'_, f64>)| -> Vec<f64> {
        let product: Array2<f64> = image(left) * right;
        product.axis_iter(Axis(1)).map(|column| column.sum()).collect()
    };
    chunks.into_par_iter().map(form).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::PairedAccumulator;
    use crate::testing::{gaussian_rows, gaussian_weights};

    #[test]
    fn energies_with_drift_are_those_of_the_rows() {
        let (n, k, m) = (300, 20, 70);
        let seen = gaussian_rows(n, k, 1) + 0.5;
        let reference = &seen + &(gaussian_rows(n, k, 2) * 0.1 + 0.05);
        let mut accumulator = PairedAccumulator::new(k).unwrap();
        accumulator.push(seen.view(), reference.view()).unwrap();
        let stats = [accumulator.finish().unwrap()];
        let weights = gaussian_weights(1, k, m, 3).mapv(f64::from);
        let rounded = weights.mapv(f64::round);
        let errors = &weights - &rounded;
        let group = |a: &Array3<f64>| a.index_axis(Axis(0), 0).to_owned();
        let whole = reference.mapv(f64::from).dot(&group(&weights));
        let left = &whole - &seen.mapv(f64::from).dot(&group(&rounded));
        let square = |a: &Array2<f64>| a.iter().map(|v| v * v).sum::<f64>() / n as f64;
        let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-5 * wanted.abs(), "{found} {wanted}");
        near(lost(&stats, &weights, &errors), square(&left));
        near(output(&stats, &weights), square(&whole));
        let means = mean_lost(&stats, &weights, &errors);
        for (found, wanted) in means.iter().zip(left.mean_axis(Axis(0)).unwrap()) {
            assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        }
    }
}
