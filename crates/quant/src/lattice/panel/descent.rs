//! Coordinate descent on the codes of a panel: each moves to the level that is best while all others stay.

use std::ops::Range;

use faer::{Accum, Mat, MatRef};

use super::{BLOCK, Panel, PanelScales, Rounded, add_scaled, multiply};
use crate::layer::pairs::PairRule;

/// Inputs whose changes the descent carries to all others at once.
const REACH: usize = 4 * BLOCK;

/// Codes on their way to better ones.
#[derive(Clone, Debug)]
pub(crate) struct Descent {
    pub(crate) rounded: Rounded,
    /// `E A`, kept up to date.
    pub(crate) gradient: Mat<f32>,
}

impl Panel<'_> {
    /// Coordinate descent: at most `sweeps` passes over all codes, or until none changes.
    pub(crate) fn descend(&self, descent: &mut Descent, scales: &PanelScales, sweeps: usize) {
        let (p, k) = (self.width(), self.inputs());
        let mut change = Mat::<f32>::zeros(p, REACH);
        for _ in 0..sweeps {
            let mut changed = false;
            for start in (0..k).step_by(REACH).rev() {
                let near = start..k.min(start + REACH);
                if self.descend_near(near.clone(), descent, &mut change, scales) {
                    changed = true;
                    self.carry(near.clone(), [0..start, near.end..k], start, &change, &mut descent.gradient);
                }
            }
            for (i, j) in self.bound() {
                changed |= self.exchange(i, j, descent, scales);
            }
            if !changed {
                return;
            }
        }
    }

    /// Moves steps from the code of row `i` to that of row `j` or back, as many as cost least, where the codes leave no
    /// room to move one alone. False if there were none.
    fn exchange(&self, i: usize, j: usize, descent: &mut Descent, scales: &PanelScales) -> bool {
        let (width, matrix) = (self.width(), &self.form.matrix);
        let Descent { rounded, gradient } = descent;
        let curvature = matrix[(i, i)] + matrix[(j, j)] + 2.0 * self.added - 2.0 * matrix[(i, j)];
        let mut moves = vec![0.0f32; width];
        let mut any = false;
        for (p, (moved, affine)) in moves.iter_mut().zip(scales.at(i)).enumerate() {
            let (first, second) = (rounded.codes[i * width + p], rounded.codes[j * width + p]);
            let sign = first.signum();
            if PairRule::allows(first + sign, second) || !PairRule::allows(first, second) {
                continue;
            }
            let slope = gradient[(p, i)] - gradient[(p, j)];
            let wanted = (slope / curvature / affine.scale()).round_ties_even().clamp(-127.0, 127.0) as i16;
            // Neither code changes its sign, so their sum stays.
            let furthest = sign * 127;
            let steps = (first + wanted).clamp(sign.min(furthest), sign.max(furthest)) - first;
            let change = affine.scale() * f32::from(steps);
            if steps != 0 && change * (change * curvature - 2.0 * slope) < 0.0 {
                for (row, steps) in [(i, steps), (j, -steps)] {
                    rounded.codes[row * width + p] += steps;
                    rounded.errors[(p, row)] =
                        self.weights[(p, row)] - affine.dequantize(rounded.codes[row * width + p]);
                }
                (*moved, any) = (change, true);
            }
        }
        for other in (0..self.inputs()).filter(|_| any) {
            let entry = |row| matrix[(row, other)] + if row == other { self.added } else { 0.0 };
            add_scaled(gradient.col_as_slice_mut(other), entry(j) - entry(i), &moves);
        }
        any
    }

    /// One pass over the inputs `near`, whose changes go into `change` and into the gradient of these inputs alone.
    fn descend_near(
        &self,
        near: Range<usize>,
        descent: &mut Descent,
        change: &mut Mat<f32>,
        scales: &PanelScales,
    ) -> bool {
        let matrix = &self.form.matrix;
        let Descent { rounded, gradient } = descent;
        let mut changed = false;
        for start in near.clone().step_by(BLOCK).rev() {
            let block = start..near.end.min(start + BLOCK);
            let mut block_changed = false;
            for i in block.clone().rev() {
                let own = matrix[(i, i)] + self.added;
                let moves = change.col_as_slice_mut(i - near.start);
                if !self.improve(i, rounded, gradient.col_as_slice(i), own, scales, moves) {
                    continue;
                }
                block_changed = true;
                for other in block.clone() {
                    let moves = change.col_as_slice(i - near.start);
                    let factor = if other == i { own } else { matrix[(i, other)] };
                    add_scaled(gradient.col_as_slice_mut(other), factor, moves);
                }
            }
            if block_changed {
                changed = true;
                self.carry(block.clone(), [near.start..start, block.end..near.end], near.start, change, gradient);
            }
        }
        changed
    }

    /// What the changes of some inputs, the columns of `change` from input `first` on, do to the gradient of others.
    fn carry(
        &self,
        from: Range<usize>,
        to: [Range<usize>; 2],
        first: usize,
        change: &Mat<f32>,
        gradient: &mut Mat<f32>,
    ) {
        let moves = change.as_ref().subcols(from.start - first, from.len());
        for to in to {
            let matrix = self.form.matrix.as_ref().submatrix(from.start, to.start, from.len(), to.len());
            multiply(gradient.as_mut().subcols_mut(to.start, to.len()), Accum::Add, moves, matrix);
        }
    }

    /// Moves code `i` of every neuron to its best level; `moves` receives the
    /// changes of `e_i`. False if there were none.
    fn improve(
        &self,
        i: usize,
        rounded: &mut Rounded,
        gradient: &[f32],
        own: f32,
        scales: &PanelScales,
        moves: &mut [f32],
    ) -> bool {
        let weights = self.weights.col_as_slice(i);
        let (own_codes, rooms) = self.split(i, self.partner(i), &mut rounded.codes);
        let errors = rounded.errors.col_as_slice_mut(i);
        let mut any = false;
        let rows = own_codes.iter_mut().zip(errors).zip(weights.iter().zip(gradient)).zip(moves).zip(scales.at(i));
        for (p, ((((code, error), (w, g)), step), affine)) in rows.enumerate() {
            *step = 0.0;
            let best = rooms.cut(p, affine.quantize(w - *error + g / own, self.grid));
            if best == *code {
                continue;
            }
            let moved = w - affine.dequantize(best) - *error;
            // Rounding of the target must not make it worse.
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
    pub(crate) fn gradient(&self, rounded: &Rounded) -> Mat<f32> {
        self.image(rounded.errors.as_ref())
    }

    /// `V A` for P x K vectors.
    pub(crate) fn image(&self, vectors: MatRef<'_, f32>) -> Mat<f32> {
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
                *energy += f64::from(*g) * f64::from(*e);
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
