//! The error of a layer's output, from second moments of its inputs.
//!
//! # Problem
//!
//! A layer that computed `X W` will compute `X~ Q`, where `X~` are its inputs once the layers before it are quantized.
//! How far apart are they, all rows, neurons and groups together?
//!
//! # Method
//!
//! With `E = W - Q` and the moments of [`crate::stats::paired`]
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
//! `f64`, and `f32` for products with `B` and `S`. Energies are cut at 0: rounding can make those of kernel vectors negative.
//!
//! # Cost
//!
//! `K^2` multiply-adds a neuron, and as many for `|X W|`; with drift twice that once more, for all solutions together.

use crate::linalg;
use crate::stats::gram::GramStats;
use faer::traits::RealField;
use faer::{MatMut, MatRef};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, Axis, LinalgScalar};
use rayon::prelude::*;

/// Neurons whose errors are formed in one matrix product.
const CHUNK: usize = 64;
/// Up to so many inputs, products are formed term by term.
const FEW_INPUTS: usize = 32;

/// `e_j^T H e_j` for every column; 0 without a Gram matrix.
pub(crate) fn energies(stats: &GramStats, errors: ArrayView2<'_, f64>) -> Vec<f64> {
    match stats.gram() {
        None => vec![0.0; errors.ncols()],
        Some(gram) => forms(gram, errors),
    }
}

/// `|D w_j|^2 / n` for every column of W; 0 without drift.
pub(crate) fn drift_energies(stats: &GramStats, weights: ArrayView2<'_, f32>) -> Vec<f64> {
    match stats.drift() {
        None => vec![0.0; weights.ncols()],
        Some(drift) => forms(drift.own(), weights),
    }
}

/// A layer on some rows, by which its solutions are measured; what they have in common is computed once.
pub(crate) struct Yardstick<'a> {
    stats: &'a [GramStats],
    /// `W`.
    weights: Array3<f64>,
    drifts: Vec<Option<Drifted>>,
}

/// What drift does to the outputs of a group.
struct Drifted {
    /// `B W`.
    cross: Array2<f32>,
    /// `|D w_j|^2 / n`.
    energies: Vec<f64>,
}

impl<'a> Yardstick<'a> {
    pub(crate) fn new(stats: &'a [GramStats], weights: Array3<f64>) -> Self {
        let drifted = |(stats, weights): (&GramStats, ArrayView2<'_, f64>)| {
            let weights = weights.mapv(|w| w as f32);
            let cross = image(stats.drift()?.cross(), weights.view());
            Some(Drifted { cross, energies: drift_energies(stats, weights.view()) })
        };
        let drifts = stats.iter().zip(weights.axis_iter(Axis(0))).map(drifted).collect();
        Self { stats, weights, drifts }
    }

    /// `|X W|_F^2 / n` over all groups.
    pub(crate) fn output(&self) -> f64 {
        // `X W - X~ 0`.
        self.lost(&self.weights)
    }

    /// `|X W - X~ Q|_F^2 / n` over all groups; `errors` are `E`.
    pub(crate) fn lost(&self, errors: &Array3<f64>) -> f64 {
        self.lost_by_neuron(errors).iter().flatten().sum()
    }

    /// The same by group and neuron.
    pub(crate) fn lost_by_neuron(&self, errors: &Array3<f64>) -> Vec<Vec<f64>> {
        let groups = self.stats.iter().zip(errors.axis_iter(Axis(0))).zip(&self.drifts);
        let lost = |((stats, errors), drifted): ((&GramStats, ArrayView2<'_, f64>), &Option<Drifted>)| {
            let own = energies(stats, errors);
            let Some(drifted) = drifted else { return own };
            let cross = column_products(errors, drifted.cross.view());
            let terms = own.iter().zip(&cross).zip(&drifted.energies);
            terms.map(|((own, cross), drifted)| (own + 2.0 * cross + drifted).max(0.0)).collect()
        };
        groups.map(lost).collect()
    }

    /// `|D W - 1 mean(D W)|_F^2 / n` over all groups: what the layers before have changed in the outputs, offsets apart.
    pub(crate) fn drifted(&self) -> f64 {
        let whole: f64 = self.drifts.iter().flatten().flat_map(|drifted| &drifted.energies).sum();
        let offsets = self.mean_lost(&Array3::zeros(self.weights.dim()));
        whole - offsets.iter().map(|mean| mean * mean).sum::<f64>()
    }

    /// `mean(X W - X~ Q)` of every group, `[groups, M]`.
    pub(crate) fn mean_lost(&self, errors: &Array3<f64>) -> Array2<f64> {
        let (groups, _, outputs) = errors.dim();
        let mut means = Array2::zeros((groups, outputs));
        let parts = self.stats.iter().zip(self.weights.axis_iter(Axis(0))).zip(errors.axis_iter(Axis(0)));
        for (mut row, ((stats, weights), errors)) in means.outer_iter_mut().zip(parts) {
            row.assign(&mean_row(stats.mean(), errors));
            if let Some(drift) = stats.drift() {
                row += &mean_row(drift.mean(), weights);
            }
        }
        means
    }
}

/// Numbers of which products are formed.
pub(crate) trait Real: RealField + LinalgScalar + Into<f64> {}

impl<T: RealField + LinalgScalar + Into<f64>> Real for T {}

/// The root of a quotient of energies; nothing lost of nothing is no error.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if part == 0.0 { 0.0 } else { (part / whole).sqrt() }
}

/// `mean^T matrix`: each product in the order of the rows, which are read once.
fn mean_row(mean: ArrayView1<'_, f64>, matrix: ArrayView2<'_, f64>) -> Array1<f64> {
    // One column in one piece is added up in another order.
    if matrix.ncols() < 2 || !matrix.is_standard_layout() {
        return mean.dot(&matrix);
    }
    let mut sums = Array1::zeros(matrix.ncols());
    for (mean, row) in mean.iter().zip(matrix.rows()) {
        sums.zip_mut_with(&row, |sum, x| *sum += mean * x);
    }
    sums
}

/// `x_j^T matrix x_j` for every column, cut at 0.
fn forms<T: Real>(matrix: ArrayView2<'_, T>, x: ArrayView2<'_, T>) -> Vec<f64> {
    let form = |x: ArrayView2<'_, T>| column_products(x, chunk_image(matrix, x).view());
    let chunks: Vec<_> = x.axis_chunks_iter(Axis(1), CHUNK).collect();
    let forms = chunks.into_par_iter().map(form).collect::<Vec<_>>().concat();
    forms.into_iter().map(|form| form.max(0.0)).collect()
}

/// `matrix x`.
fn image<T: Real>(matrix: ArrayView2<'_, T>, x: ArrayView2<'_, T>) -> Array2<T> {
    let mut image = Array2::<T>::zeros(x.dim());
    let chunks: Vec<_> = image.axis_chunks_iter_mut(Axis(1), CHUNK).zip(x.axis_chunks_iter(Axis(1), CHUNK)).collect();
    chunks.into_par_iter().for_each(|(mut image, x)| image.assign(&chunk_image(matrix, x)));
    image
}

/// `matrix x` for a few columns, on one thread.
pub(crate) fn chunk_image<T: Real>(matrix: ArrayView2<'_, T>, x: ArrayView2<'_, T>) -> Array2<T> {
    let (k, m) = x.dim();
    if k <= FEW_INPUTS {
        return matrix.dot(&x);
    }
    let standard = [matrix.as_standard_layout(), x.as_standard_layout()];
    let [matrix, x] = standard.each_ref().map(|array| {
        let elements = array.as_slice().expect("it is in standard layout");
        MatRef::from_row_major_slice(elements, k, array.ncols())
    });
    let mut image = vec![T::zero(); k * m];
    linalg::multiply(MatMut::from_row_major_slice_mut(&mut image, k, m), matrix, x);
    Array2::from_shape_vec((k, m), image).expect("k x m elements")
}

/// `<left_j, right_j>` for every column.
fn column_products<A: Real, B: Real>(left: ArrayView2<'_, A>, right: ArrayView2<'_, B>) -> Vec<f64> {
    let mut sums = vec![0.0; left.ncols()];
    for (left, right) in left.rows().into_iter().zip(right.rows()) {
        for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
            *sum += (*left).into() * (*right).into();
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::paired::PairedAccumulator;
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
        let yardstick = Yardstick::new(&stats, weights);
        near(yardstick.lost(&errors), square(&left));
        near(yardstick.output(), square(&whole));
        let means = yardstick.mean_lost(&errors);
        let drift = (&reference - &seen).mapv(f64::from).dot(&yardstick.weights.index_axis(Axis(0), 0));
        near(yardstick.drifted(), square(&(&drift - &drift.mean_axis(Axis(0)).unwrap())));
        for (found, wanted) in means.iter().zip(left.mean_axis(Axis(0)).unwrap()) {
            assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
        }
    }
}
