//! The best scales for given codes, in closed form.
//!
//! # Problem
//!
//! The levels of a neuron are `q = sum_b s_b z_b`, with `z_b` what the codes of block b stand for. For fixed
//! codes its cost `(w - q)^T A (w - q)` is a quadratic in the scales.
//!
//! # Method
//!
//! With `g = A (w - q)`, the change `d` of the scales solves the normal equations
//!
//! ```text
//! sum_c <z_b, A z_c> d_c = <z_b, g>        (one block: d = <z, g> / <z, A z>)
//! ```
//!
//! The new scale is rounded to the type in which it is stored, errors are formed anew from it, and a neuron keeps it
//! only if its cost fell.
//!
//! # Guarantee
//!
//! No neuron's cost rises.
//!
//! # Cost
//!
//! `2 K^2` multiply-adds a neuron, and `k^3 / 3` for its k blocks.

use crate::lattice::panel::descent::Descent;
use crate::lattice::panel::{Panel, PanelScales, Rounded, multiply};
use crate::layer::scale_type::Rounding;
use crate::layer::spec::QuantSpec;
use crate::linalg;
use faer::{Accum, Mat};

/// A smaller relative gain is not worth a step, or is rounding noise.
const NOISE: f64 = 1e-6;
/// Added to the diagonal of the normal equations, as a fraction of it.
const RIDGE: f64 = 1e-9;

/// Refits the scales of all neurons; false if none gained.
pub(crate) fn refit(panel: &Panel<'_>, descent: &mut Descent, scales: &mut PanelScales, spec: &QuantSpec) -> bool {
    let (width, inputs) = (panel.weights.nrows(), panel.weights.ncols());
    let blocks: Vec<Vec<usize>> = (0..scales.count()).map(|block| scales.rows(block)).collect();
    let values = &values(panel, &descent.rounded, scales);
    let (gradient, before) = (&descent.gradient, descent.energies());
    let normal = normal_equations(panel, values, &blocks);
    let mut trial = scales.clone();
    for (p, normal) in normal.iter().enumerate() {
        let inner = |rows: &Vec<usize>| rows.iter().map(|i| product(values, gradient, p, *i)).sum::<f64>();
        let Some(changes) = solve(normal, blocks.iter().map(inner).collect()) else { continue };
        for (block, change) in changes.into_iter().enumerate() {
            let affine = scales.block(block)[p];
            let scale = f64::from(affine.scale()) + change;
            if scale.is_finite() && scale > 0.0 {
                trial.set(block, p, spec.affine(scale, affine.zero_point(), Rounding::Nearest));
            }
        }
    }
    let mut refitted = descent.rounded.clone();
    for i in 0..inputs {
        let codes = &descent.rounded.codes[i * width..][..width];
        let errors = refitted.errors.col_as_slice_mut(i).iter_mut();
        for (((error, w), code), affine) in errors.zip(panel.weights.col_as_slice(i)).zip(codes).zip(trial.at(i)) {
            *error = w - affine.dequantize(*code);
        }
    }
    let (mut any, refitted) = (false, panel.descent(refitted));
    for (p, after) in refitted.energies().into_iter().enumerate() {
        if after < before[p] * (1.0 - NOISE) {
            any = true;
            descent.take(p, &refitted);
            for block in 0..blocks.len() {
                scales.set(block, p, trial.block(block)[p]);
            }
        }
    }
    any
}

/// What codes stand for, in units of their scales, P x K.
fn values(panel: &Panel<'_>, rounded: &Rounded, scales: &PanelScales) -> Mat<f32> {
    let (width, inputs) = (panel.weights.nrows(), panel.weights.ncols());
    Mat::from_fn(width, inputs, |p, i| scales.at(i)[p].value(rounded.codes[i * width + p]))
}

/// `<z_b, A z_c>` of every neuron.
fn normal_equations(panel: &Panel<'_>, values: &Mat<f32>, blocks: &[Vec<usize>]) -> Vec<Mat<f64>> {
    let width = values.nrows();
    let mut normal = vec![Mat::zeros(blocks.len(), blocks.len()); width];
    for (b, rows) in blocks.iter().enumerate() {
        let image = &block_image(panel, values, rows, blocks.len());
        for (c, others) in blocks.iter().enumerate() {
            for (p, normal) in normal.iter_mut().enumerate() {
                normal[(b, c)] = others.iter().map(|i| product(image, values, p, *i)).sum();
            }
        }
    }
    normal
}

/// `z_b^T A` of every neuron.
fn block_image(panel: &Panel<'_>, values: &Mat<f32>, rows: &[usize], blocks: usize) -> Mat<f32> {
    if blocks == 1 {
        return panel.image(values.as_ref());
    }
    let (width, inputs) = (values.nrows(), values.ncols());
    let own = Mat::from_fn(width, rows.len(), |p, j| values[(p, rows[j])]);
    // Columns of a symmetric matrix lie in one piece.
    let matrix = Mat::from_fn(inputs, rows.len(), |i, j| panel.form.matrix[(i, rows[j])]);
    let mut image = Mat::zeros(width, inputs);
    multiply(image.as_mut(), Accum::Replace, own.as_ref(), matrix.transpose());
    for (j, i) in rows.iter().enumerate() {
        for p in 0..width {
            image[(p, *i)] += panel.added * own[(p, j)];
        }
    }
    image
}

/// The product of two elements.
fn product(a: &Mat<f32>, b: &Mat<f32>, p: usize, i: usize) -> f64 {
    f64::from(a[(p, i)]) * f64::from(b[(p, i)])
}

fn solve(normal: &Mat<f64>, right: Vec<f64>) -> Option<Vec<f64>> {
    let n = right.len();
    let ridged = |i: usize| if normal[(i, i)] > 0.0 { normal[(i, i)] * (1.0 + RIDGE) } else { 1.0 };
    let factor = linalg::cholesky(Mat::from_fn(n, n, |i, j| if i == j { ridged(i) } else { normal[(i, j)] }))?;
    Some(linalg::solve_factored(factor.as_ref(), right))
}

#[cfg(test)]
#[path = "scale_refit_tests.rs"]
mod tests;
