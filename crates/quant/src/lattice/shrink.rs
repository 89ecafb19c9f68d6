//! Shrinks the range of a neuron's weights where the data hardly notice.
//!
//! # Problem
//!
//! One large weight widens the grid of its whole neuron. Along directions in which the inputs vary little it can be
//! made smaller at almost no cost.
//!
//! # Method
//!
//! MagR: with `A` scaled to largest eigenvalue 1,
//!
//! ```text
//! min over z of  (z - w)^T A (z - w) / 2 + alpha |z|_inf
//! ```
//!
//! by Nesterov's accelerated proximal gradient, 40 steps. The proximal map of `alpha |.|_inf` takes off the projection onto
//! the l1 ball of radius alpha.
//!
//! # Guarantee
//!
//! A neuron's result is kept only if the objective fell. Then `|z|_inf <= |w|_inf`, and the output moves by
//! `sqrt(2 alpha |w|_inf)` at most, in units of the largest eigenvalue's root.
//!
//! # Cost
//!
//! `40 K^2` multiply-adds a neuron.
//!
//! # References
//!
//! A. Zhang, N. Wang, Y. Deng, X. Li, Z. Yang, P. Yin, *MagR: weight magnitude reduction for enhancing post-training
//! quantization*, NeurIPS 2024, arXiv 2406.00800.

use crate::lattice::quadratic::Quadratic;
use crate::lattice::recipe::Forms;
use crate::layer::problem::LayerProblem;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use ndarray::{Array3, Axis};
use rayon::prelude::*;

const STEPS: usize = 40;
/// Steps towards the largest eigenvalue, which is then taken a little larger.
const POWER_STEPS: usize = 30;
const MARGIN: f32 = 1.02;
/// Neurons shrunk side by side.
const CHUNK: usize = 64;

/// Shrinks `weights` as the problem's options say.
pub(crate) fn shrink(problem: &LayerProblem<'_>, forms: &Forms, weights: &mut Array3<f32>) {
    let alpha = problem.options().shrink() as f32;
    if alpha == 0.0 {
        return;
    }
    for (mut group, form) in weights.axis_iter_mut(Axis(0)).zip(&forms.forms) {
        let largest = largest_eigenvalue(form) * MARGIN;
        if largest.is_nan() || largest <= 0.0 {
            continue;
        }
        let chunks: Vec<_> = group.axis_chunks_iter_mut(Axis(1), CHUNK).collect();
        chunks.into_par_iter().for_each(|mut chunk| {
            let start = Mat::from_fn(form.inputs.len(), chunk.ncols(), |i, m| chunk[[form.inputs[i], m]]);
            let shrunk = Shrinking { form, largest, alpha }.run(&start);
            for m in 0..shrunk.ncols() {
                for (i, input) in form.inputs.iter().enumerate() {
                    chunk[[*input, m]] = shrunk[(i, m)];
                }
            }
        });
    }
}

struct Shrinking<'a> {
    form: &'a Quadratic,
    largest: f32,
    alpha: f32,
}

impl Shrinking<'_> {
    fn run(&self, w: &Mat<f32>) -> Mat<f32> {
        let (mut z, mut ahead, mut momentum) = (w.clone(), w.clone(), 1.0f32);
        for _ in 0..STEPS {
            let mut next = &ahead - self.image(&(&ahead - w));
            for m in 0..next.ncols() {
                shrink_range(next.col_as_slice_mut(m), self.alpha);
            }
            let faster = (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt()) / 2.0;
            let push = faer::Scale((momentum - 1.0) / faster);
            ahead = &next + (&next - &z) * push;
            (z, momentum) = (next, faster);
        }
        for m in 0..w.ncols() {
            if self.objective(&z, w, m) >= self.objective(w, w, m) {
                z.col_as_slice_mut(m).copy_from_slice(w.col_as_slice(m));
            }
        }
        z
    }

    /// `A v` with largest eigenvalue 1.
    fn image(&self, v: &Mat<f32>) -> Mat<f32> {
        let mut image = Mat::zeros(v.nrows(), v.ncols());
        matmul(image.as_mut(), Accum::Replace, self.form.matrix.as_ref(), v.as_ref(), 1.0 / self.largest, Par::Seq);
        image
    }

    fn objective(&self, z: &Mat<f32>, w: &Mat<f32>, m: usize) -> f64 {
        let change = Mat::from_fn(z.nrows(), 1, |i, _| z[(i, m)] - w[(i, m)]);
        let energy: f64 =
            self.image(&change).col_as_slice(0).iter().zip(change.col_as_slice(0)).map(|(a, b)| f64::from(a * b)).sum();
        energy / 2.0 + f64::from(self.alpha * range(z.col_as_slice(m)))
    }
}

fn range(v: &[f32]) -> f32 {
    v.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// The proximal map: `v` less its projection onto the l1 ball, which cuts it at a common height.
fn shrink_range(v: &mut [f32], alpha: f32) {
    let mut sizes: Vec<f32> = v.iter().map(|x| x.abs()).collect();
    if sizes.iter().sum::<f32>() <= alpha {
        v.fill(0.0);
        return;
    }
    sizes.sort_by(|a, b| b.total_cmp(a));
    let (mut sum, mut height) = (0.0, 0.0);
    for (count, size) in (1..).zip(&sizes) {
        sum += size;
        let level = (sum - alpha) / count as f32;
        if *size <= level {
            break;
        }
        height = level;
    }
    for x in v {
        *x = x.clamp(-height, height);
    }
}

fn largest_eigenvalue(form: &Quadratic) -> f32 {
    let n = form.inputs.len();
    let mut v = Mat::from_fn(n, 1, |i, _| 1.0 + (i % 7) as f32 / 7.0);
    let mut value = 0.0;
    for _ in 0..POWER_STEPS {
        let norm = v.norm_l2();
        v = &form.matrix * (v * faer::Scale(1.0 / norm));
        value = v.norm_l2();
    }
    // No eigenvalue problem is needed to know that it is not below any diagonal element.
    value.max(form.matrix.diagonal().column_vector().iter().fold(0.0, |most, own| most.max(*own)))
}

#[cfg(test)]
#[path = "shrink_tests.rs"]
mod tests;
