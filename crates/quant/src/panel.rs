//! Error feedback and coordinate descent on a few neurons side by side.
//!
//! # Shapes and units
//!
//! Matrices are P x K, column-major: P neurons of a panel lie next to each other
//! in memory, inputs in the order of [`Quadratic`]. `E = W - Q`, in units of the
//! weights.
//!
//! # Method
//!
//! Error feedback rounds from the last input to the first,
//!
//! ```text
//! t_i = w_i + sum_{k > i} L_ki e_k / L_ii,      q_i = nearest level of t_i
//! ```
//!
//! The sum over earlier blocks of [`BLOCK`] inputs is one matrix product; within
//! a block each column is added as soon as it is known. The error comes for free:
//! `e^T A e = sum_i L_ii^2 (t_i - q_i)^2`.
//!
//! Coordinate descent keeps `G = E A` and moves each code to the level nearest to
//! `q_i + g_i / A_ii`, the minimiser with all others fixed; again one product a
//! block carries the changes to the other blocks.
//!
//! # Guarantee
//!
//! If no `t_i` lies beyond the grid's ends, feedback leaves an error of at most
//! `sum_i (step_i / 2)^2 L_ii^2` (Babai's nearest plane). Descent never raises it.
//!
//! # Cost
//!
//! `K^2` multiply-adds a neuron for feedback, with half of them skipped; `K^2` for `G` and for
//! each sweep of the descent.

use crate::grid::{Affine, Grid};
use crate::quadratic::Quadratic;
use crate::scale::ScaleTable;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// Inputs whose errors enter one matrix product.
pub(crate) const BLOCK: usize = 64;

/// Neurons of one group, with what their errors cost.
pub(crate) struct Panel<'a> {
    pub(crate) form: &'a Quadratic,
    /// `L`; only the lower triangle is read.
    pub(crate) lower: MatRef<'a, f64>,
    /// The damping on the diagonal of `A`.
    pub(crate) added: f64,
    pub(crate) grid: &'a Grid,
    /// P x K.
    pub(crate) weights: Mat<f64>,
}

/// Codes of a panel.
#[derive(Clone, Debug)]
pub(crate) struct Rounded {
    /// K columns of P codes.
    pub(crate) codes: Vec<i16>,
    /// `E`, P x K.
    pub(crate) errors: Mat<f64>,
}

/// Codes on their way to better ones.
#[derive(Clone, Debug)]
pub(crate) struct Descent {
    pub(crate) rounded: Rounded,
    /// `E A`, kept up to date.
    pub(crate) gradient: Mat<f64>,
}

/// What the codes of a panel mean.
#[derive(Clone, Debug)]
pub(crate) struct PanelScales {
    /// The block of every row of the form.
    blocks: Vec<usize>,
    /// Blocks of P entries.
    affine: Vec<Affine>,
    width: usize,
}

impl PanelScales {
    /// Those of the neurons `first..first + width` of a group.
    pub(crate) fn new(table: &ScaleTable, group: usize, first: usize, width: usize, inputs: &[usize]) -> PanelScales {
        let blocks = inputs.iter().map(|k| k / table.block_size()).collect();
        let affine = table.affine();
        let entry = |index: usize| affine[[group, index / width, first + index % width]];
        PanelScales { blocks, affine: (0..affine.dim().1 * width).map(entry).collect(), width }
    }

    /// How many blocks a neuron has.
    pub(crate) fn count(&self) -> usize {
        self.affine.len() / self.width
    }

    /// The rows of a block.
    pub(crate) fn rows(&self, block: usize) -> Vec<usize> {
        (0..self.blocks.len()).filter(|i| self.blocks[*i] == block).collect()
    }

    /// Row `i`, all neurons.
    pub(crate) fn at(&self, i: usize) -> &[Affine] {
        self.block(self.blocks[i])
    }

    /// A block, all neurons.
    pub(crate) fn block(&self, block: usize) -> &[Affine] {
        &self.affine[block * self.width..][..self.width]
    }

    /// A block of one neuron.
    pub(crate) fn set(&mut self, block: usize, p: usize, affine: Affine) {
        self.affine[block * self.width + p] = affine;
    }
}

impl Panel<'_> {
    fn width(&self) -> usize {
        self.weights.nrows()
    }

    fn inputs(&self) -> usize {
        self.weights.ncols()
    }

    fn empty(&self) -> Rounded {
        let (p, k) = (self.width(), self.inputs());
        Rounded { codes: vec![0; p * k], errors: Mat::zeros(p, k) }
    }

    /// Every weight to its nearest level. `scales` say what codes mean.
    pub(crate) fn round(&self, scales: &PanelScales) -> Rounded {
        let mut rounded = self.empty();
        for i in 0..self.inputs() {
            let column = self.weights.col_as_slice(i);
            rounded.set(i, column, column, self.grid, scales);
        }
        rounded
    }

    /// Error feedback; and the error `e^T A e` of every neuron.
    pub(crate) fn feed_back(&self, scales: &PanelScales) -> (Rounded, Vec<f64>) {
        self.feed_back_from(&self.weights, scales)
    }

    /// The same with other numbers in the place of `w_i` in the formula for `t_i`; the errors stay those of W.
    pub(crate) fn feed_back_from(&self, starts: &Mat<f64>, scales: &PanelScales) -> (Rounded, Vec<f64>) {
        let (p, k) = (self.width(), self.inputs());
        let factor = self.lower;
        let mut rounded = self.empty();
        let mut energies = vec![0.0; p];
        let mut target = vec![0.0; p];
        let mut carried = Mat::<f64>::zeros(p, BLOCK);
        let mut end = k;
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            let size = end - start;
            multiply(
                carried.as_mut().subcols_mut(0, size),
                Accum::Replace,
                rounded.errors.as_ref().subcols(end, k - end),
                factor.submatrix(end, start, k - end, size),
            );
            for i in (start..end).rev() {
                let pivot = factor[(i, i)];
                let weights = self.weights.col_as_slice(i);
                let starts = starts.col_as_slice(i);
                for ((target, w), carried) in target.iter_mut().zip(starts).zip(carried.col_as_slice(i - start)) {
                    *target = w + carried / pivot;
                }
                rounded.set(i, &target, weights, self.grid, scales);
                let errors = rounded.errors.col_as_slice(i);
                for (((energy, target), w), e) in energies.iter_mut().zip(&target).zip(weights).zip(errors) {
                    // The level is w - e.
                    *energy += (pivot * (target - w + e)).powi(2);
                }
                for earlier in start..i {
                    add_scaled(carried.col_as_slice_mut(earlier - start), factor[(i, earlier)], errors);
                }
            }
            end = start;
        }
        (rounded, energies)
    }

    /// What error feedback can leave of every neuron where no code is clipped: `sum_i (step_i / 2)^2 L_ii^2`.
    pub(crate) fn nearest_plane_bounds(&self, scales: &PanelScales) -> Vec<f64> {
        let half_step = f64::from(self.grid.step()) / 2.0;
        let mut bounds = vec![0.0; self.width()];
        for i in 0..self.inputs() {
            for (bound, affine) in bounds.iter_mut().zip(scales.at(i)) {
                *bound += (half_step * f64::from(affine.scale()) * self.lower[(i, i)]).powi(2);
            }
        }
        bounds
    }

    /// Coordinate descent: at most `sweeps` passes over all codes, or until none changes.
    pub(crate) fn descend(&self, descent: &mut Descent, scales: &PanelScales, sweeps: usize) {
        let (p, k) = (self.width(), self.inputs());
        let matrix = &self.form.matrix;
        let Descent { rounded, gradient } = descent;
        let mut change = Mat::<f64>::zeros(p, BLOCK);
        for _ in 0..sweeps {
            let mut changed = false;
            let mut end = k;
            while end > 0 {
                let start = end.saturating_sub(BLOCK);
                let size = end - start;
                let mut block_changed = false;
                for i in (start..end).rev() {
                    let own = matrix[(i, i)] + self.added;
                    let moves = change.col_as_slice_mut(i - start);
                    if !self.improve(i, rounded, gradient.col_as_slice(i), own, scales, moves) {
                        continue;
                    }
                    block_changed = true;
                    for other in start..end {
                        let moves = change.col_as_slice(i - start);
                        let factor = if other == i { own } else { matrix[(i, other)] };
                        add_scaled(gradient.col_as_slice_mut(other), factor, moves);
                    }
                }
                if block_changed {
                    changed = true;
                    let moves = change.as_ref().subcols(0, size);
                    for (from, to) in [(0, start), (end, k)] {
                        multiply(
                            gradient.as_mut().subcols_mut(from, to - from),
                            Accum::Add,
                            moves,
                            matrix.as_ref().submatrix(start, from, size, to - from),
                        );
                    }
                }
                end = start;
            }
            if !changed {
                return;
            }
        }
    }

    /// Moves code `i` of every neuron to its best level; `moves` receives the
    /// changes of `e_i`. False if there were none.
    fn improve(
        &self,
        i: usize,
        rounded: &mut Rounded,
        gradient: &[f64],
        own: f64,
        scales: &PanelScales,
        moves: &mut [f64],
    ) -> bool {
        let weights = self.weights.col_as_slice(i);
        let codes = rounded.codes[i * weights.len()..].iter_mut();
        let errors = rounded.errors.col_as_slice_mut(i);
        let mut any = false;
        let rows = codes.zip(errors).zip(weights.iter().zip(gradient)).zip(moves).zip(scales.at(i));
        for ((((code, error), (w, g)), step), affine) in rows {
            *step = 0.0;
            let best = affine.quantize((w - *error + g / own) as f32, self.grid);
            if best == *code {
                continue;
            }
            let moved = w - f64::from(affine.dequantize(best)) - *error;
            // Rounding of the target to `f32` must not make it worse.
            if moved * (moved * own + 2.0 * g) < 0.0 {
                (*code, *error, *step, any) = (best, *error + moved, moved, true);
            }
        }
        any
    }

    /// Where a descent starts.
    pub(crate) fn descent(&self, rounded: Rounded) -> Descent {
        Descent { gradient: self.gradient(&rounded), rounded }
    }

    /// `E A`.
    pub(crate) fn gradient(&self, rounded: &Rounded) -> Mat<f64> {
        self.image(rounded.errors.as_ref())
    }

    /// `V A` for P x K vectors.
    pub(crate) fn image(&self, vectors: MatRef<'_, f64>) -> Mat<f64> {
        let mut image = Mat::zeros(self.width(), self.inputs());
        multiply(image.as_mut(), Accum::Replace, vectors, self.form.matrix.as_ref());
        for i in 0..self.inputs() {
            let own = vectors.col(i).iter();
            for (image, own) in image.col_as_slice_mut(i).iter_mut().zip(own) {
                *image += self.added * own;
            }
        }
        image
    }

    /// `e^T A e` of every neuron.
    pub(crate) fn energies(&self, rounded: &Rounded) -> Vec<f64> {
        self.descent(rounded.clone()).energies()
    }
}

impl Descent {
    /// `e^T A e` of every neuron.
    pub(crate) fn energies(&self) -> Vec<f64> {
        let errors = &self.rounded.errors;
        let mut energies = vec![0.0; errors.nrows()];
        for i in 0..errors.ncols() {
            let terms = self.gradient.col_as_slice(i).iter().zip(errors.col_as_slice(i));
            for (energy, (g, e)) in energies.iter_mut().zip(terms) {
                *energy += g * e;
            }
        }
        energies
    }

    /// Takes neuron `p` over from another descent.
    pub(crate) fn take(&mut self, p: usize, other: &Descent) {
        self.rounded.take(p, &other.rounded);
        for i in 0..self.gradient.ncols() {
            self.gradient[(p, i)] = other.gradient[(p, i)];
        }
    }
}

impl Rounded {
    /// Rounds `target` for input `i` and notes what that does to `weights`.
    fn set(&mut self, i: usize, target: &[f64], weights: &[f64], grid: &Grid, scales: &PanelScales) {
        let width = weights.len();
        let codes = self.codes[i * width..].iter_mut();
        let errors = self.errors.col_as_slice_mut(i);
        for (((code, error), (target, w)), affine) in
            codes.zip(errors).zip(target.iter().zip(weights)).zip(scales.at(i))
        {
            *code = affine.quantize(*target as f32, grid);
            *error = w - f64::from(affine.dequantize(*code));
        }
    }

    /// Takes neuron `p` over from another solution.
    pub(crate) fn take(&mut self, p: usize, other: &Rounded) {
        let (width, inputs) = (self.errors.nrows(), self.errors.ncols());
        for i in 0..inputs {
            self.codes[i * width + p] = other.codes[i * width + p];
            self.errors[(p, i)] = other.errors[(p, i)];
        }
    }
}

pub(crate) fn add_scaled(target: &mut [f64], factor: f64, source: &[f64]) {
    for (target, source) in target.iter_mut().zip(source) {
        *target += factor * source;
    }
}

pub(crate) fn multiply(target: MatMut<'_, f64>, accum: Accum, a: MatRef<'_, f64>, b: MatRef<'_, f64>) {
    matmul(target, accum, a, b, 1.0, Par::Seq);
}
