//! The inverse of a basis, kept up to date while columns are exchanged.
//!
//! # Method
//!
//! The basis starts as the identity, so only the columns of `B^-1` whose slots were
//! exchanged differ from it and only those are kept. Replacing column `slot` of
//! `B` by `v` turns `B^-1` into `E B^-1` with `E` the identity but for column
//! `slot`; with `y = B^-1 v`
//!
//! ```text
//! (E u)[slot] = u[slot] / y[slot],      (E u)[i] = u[i] - y[i] (E u)[slot]
//! ```
//!
//! Up to [`BLOCK`] of these factors wait in product form, O(r) each; then they are
//! multiplied into the columns in one matrix product. Vectors known in advance
//! can be multiplied with the columns together ([`Inverse::prepare`]); what came
//! since then is the waiting factors.
//!
//! # Cost
//!
//! With c distinct slots exchanged so far: O(r c) for a product and, as part of
//! a matrix product, for an exchange; O(c^3 + r c^2) for [`Inverse::refactor`];
//! `8 r c` bytes.
//!
//! # Failure
//!
//! [`Inverse::refactor`] says so if the new basis is singular. Callers avoid
//! small pivots and refactor now and then; both are theirs to decide.

use crate::linalg;
use faer::linalg::matmul::matmul;
use faer::traits::pulp::{Arch, Simd, WithSimd};
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// Factors that may wait in product form.
pub(crate) const BLOCK: usize = 32;

/// `B^-1`, r x r.
#[derive(Clone, Debug)]
pub(crate) struct Inverse {
    rank: usize,
    /// The slots that were exchanged, in order of their first exchange.
    slots: Vec<usize>,
    /// Where a slot stands in `slots`.
    places: Vec<Option<usize>>,
    /// Columns `slots` of the product without the waiting factors, r numbers each.
    columns: Vec<f64>,
    /// Waiting factors, the earliest first.
    waiting: Vec<Factor>,
    exchanges: usize,
    generation: usize,
}

#[derive(Clone, Debug)]
struct Factor {
    slot: usize,
    y: Vec<f64>,
}

impl Factor {
    fn apply(&self, u: &mut [f64]) {
        if u[self.slot] == 0.0 {
            return;
        }
        let own = u[self.slot] / self.y[self.slot];
        Arch::new().dispatch(Subtract { from: u, y: &self.y, factor: own });
        u[self.slot] = own;
    }

    /// `row = row E`, which changes one element only.
    fn apply_left(&self, row: &mut [f64]) {
        let all: f64 = row.iter().zip(&self.y).map(|(row, y)| row * y).sum();
        let pivot = self.y[self.slot];
        row[self.slot] = (row[self.slot] - (all - row[self.slot] * pivot)) / pivot;
    }
}

/// Subtracts a multiple of `y`.
struct Subtract<'a> {
    from: &'a mut [f64],
    y: &'a [f64],
    factor: f64,
}

impl WithSimd for Subtract<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (u, y) in self.from.iter_mut().zip(self.y) {
            *u -= self.factor * y;
        }
    }
}

/// Vectors multiplied by the columns of an [`Inverse`] ahead of time.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    products: Mat<f64>,
    generation: usize,
}

impl Inverse {
    /// Of the identity.
    pub(crate) fn identity(rank: usize) -> Inverse {
        Inverse {
            rank,
            slots: Vec::new(),
            places: vec![None; rank],
            columns: Vec::new(),
            waiting: Vec::new(),
            exchanges: 0,
            generation: 0,
        }
    }

    /// `target = B^-1 v`.
    pub(crate) fn apply(&self, v: &[f64], target: &mut [f64]) {
        self.multiply(&[v], MatMut::from_column_major_slice_mut(target, self.rank, 1));
        self.waiting.iter().for_each(|factor| factor.apply(target));
    }

    /// Multiplies in the waiting factors and starts on `B^-1 v` for several v.
    pub(crate) fn prepare(&mut self, vectors: &[&[f64]]) -> Prepared {
        self.absorb();
        let mut products = Mat::zeros(self.rank, vectors.len());
        self.multiply(vectors, products.as_mut());
        Prepared { products, generation: self.generation }
    }

    /// `target = B^-1 v` for vector `index` of `prepared`; false, and nothing done,
    /// if too much has changed since it was prepared.
    pub(crate) fn finish(&self, prepared: &Prepared, index: usize, target: &mut [f64]) -> bool {
        let current = prepared.generation == self.generation;
        if current {
            target.copy_from_slice(prepared.products.col_as_slice(index));
            self.waiting.iter().for_each(|factor| factor.apply(target));
        }
        current
    }

    /// `target = row slot of B^-1`.
    pub(crate) fn copy_row(&self, slot: usize, target: &mut [f64]) {
        target.fill(0.0);
        target[slot] = 1.0;
        self.waiting.iter().rev().for_each(|factor| factor.apply_left(target));
        let mut products = vec![0.0; self.slots.len()];
        matmul(
            MatMut::from_row_major_slice_mut(&mut products, 1, self.slots.len()),
            Accum::Replace,
            MatRef::from_row_major_slice(target, 1, self.rank),
            self.columns(),
            1.0,
            Par::Seq,
        );
        for (slot, product) in self.slots.iter().zip(products) {
            target[*slot] = product;
        }
    }

    /// Replaces column `slot` of the basis by the `v` of which `y = B^-1 v`.
    pub(crate) fn exchange(&mut self, slot: usize, y: &[f64]) {
        if self.waiting.len() == BLOCK {
            self.absorb();
        }
        self.waiting.push(Factor { slot, y: y.to_vec() });
        self.exchanges += 1;
    }

    /// Exchanges since the last factorization.
    pub(crate) fn exchanges(&self) -> usize {
        self.exchanges
    }

    /// Starts anew from the basis; `entry(i, slot)` is asked for exchanged slots
    /// only. False, and no change, if it is singular to working precision.
    pub(crate) fn refactor(&mut self, entry: impl Fn(usize, usize) -> f64) -> bool {
        let mut slots = self.slots.clone();
        let mut places = self.places.clone();
        for factor in &self.waiting {
            if places[factor.slot].is_none() {
                places[factor.slot] = Some(slots.len());
                slots.push(factor.slot);
            }
        }
        // B is the identity but for these columns: rows `slots` of them are inverted,
        // the other rows follow.
        let count = slots.len();
        let Some(square) = linalg::invert(Mat::from_fn(count, count, |i, j| entry(slots[i], slots[j]))) else {
            return false;
        };
        let others = Mat::from_fn(self.rank, count, |i, j| if places[i].is_some() { 0.0 } else { entry(i, slots[j]) });
        self.columns = vec![0.0; self.rank * count];
        let mut columns = MatMut::from_column_major_slice_mut(&mut self.columns, self.rank, count);
        matmul(columns.as_mut(), Accum::Replace, others.as_ref(), square.as_ref(), -1.0, Par::Seq);
        for (i, slot) in slots.iter().enumerate() {
            for j in 0..count {
                columns[(*slot, j)] = square[(i, j)];
            }
        }
        (self.slots, self.places) = (slots, places);
        self.waiting.clear();
        self.exchanges = 0;
        self.generation += 1;
        true
    }

    fn columns(&self) -> MatRef<'_, f64> {
        MatRef::from_column_major_slice(&self.columns, self.rank, self.slots.len())
    }

    /// Products with everything but the waiting factors.
    fn multiply(&self, vectors: &[&[f64]], mut target: MatMut<'_, f64>) {
        let selected = Mat::from_fn(self.slots.len(), vectors.len(), |i, j| vectors[j][self.slots[i]]);
        for (j, vector) in vectors.iter().enumerate() {
            for (i, value) in vector.iter().enumerate() {
                target[(i, j)] = if self.places[i].is_some() { 0.0 } else { *value };
            }
        }
        matmul(target, Accum::Add, self.columns(), selected.as_ref(), 1.0, Par::Seq);
    }

    /// Multiplies the waiting factors into the columns.
    fn absorb(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let mut slots: Vec<usize> = waiting.iter().map(|factor| factor.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        // Column j: what the factors make of unit vector `slots[j]`.
        let mut product = Mat::<f64>::zeros(self.rank, slots.len());
        for (j, slot) in slots.iter().enumerate() {
            let column = product.col_as_slice_mut(j);
            column[*slot] = 1.0;
            waiting.iter().for_each(|factor| factor.apply(column));
        }
        // Rows `slots` are replaced, the others changed by a product.
        let count = self.slots.len();
        let selected = Mat::from_fn(slots.len(), count, |i, j| self.columns[j * self.rank + slots[i]]);
        let mut columns = MatMut::from_column_major_slice_mut(&mut self.columns, self.rank, count);
        for j in 0..count {
            for slot in &slots {
                columns[(*slot, j)] = 0.0;
            }
        }
        matmul(columns, Accum::Add, product.as_ref(), selected.as_ref(), 1.0, Par::Seq);
        for (j, slot) in slots.into_iter().enumerate() {
            if self.places[slot].is_none() {
                self.places[slot] = Some(self.slots.len());
                self.slots.push(slot);
                self.columns.extend_from_slice(product.col_as_slice(j));
            }
        }
        self.generation += 1;
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
        let product = Mat::from_fn(rank, rank, |i, j| {
            let mut column = vec![0.0; rank];
            inverse.apply(basis.col_as_slice(j), &mut column);
            column[i] - f64::from(u8::from(i == j))
        });
        assert!(product.norm_max() < 1e-8, "{}", product.norm_max());
        let mut fresh = inverse.clone();
        assert!(fresh.refactor(|i, slot| basis[(i, slot)]));
        let (mut old, mut new) = (vec![0.0; rank], vec![0.0; rank]);
        for slot in 0..rank {
            inverse.copy_row(slot, &mut old);
            fresh.copy_row(slot, &mut new);
            assert!(old.iter().zip(&new).all(|(old, new)| (old - new).abs() < 1e-8), "{old:?} {new:?}");
        }
        assert!(!fresh.refactor(|_, _| 0.0));
    }

    #[test]
    fn prepared_products_follow_exchanges_until_they_are_absorbed() {
        let mut gaussian = Gaussian::new(4);
        let rank = 50;
        let vectors: Vec<Vec<f64>> = (0..3 * BLOCK).map(|_| (0..rank).map(|_| gaussian.sample()).collect()).collect();
        let mut inverse = Inverse::identity(rank);
        let (mut y, mut direct) = (vec![0.0; rank], vec![0.0; rank]);
        for block in vectors.chunks(BLOCK) {
            let prepared = inverse.prepare(&block.iter().map(Vec::as_slice).collect::<Vec<_>>());
            for (index, v) in block.iter().enumerate() {
                assert!(inverse.finish(&prepared, index, &mut y));
                inverse.apply(v, &mut direct);
                assert!(y.iter().zip(&direct).all(|(a, b)| (a - b).abs() < 1e-7 * (1.0 + b.abs())));
                let slot = (0..rank).max_by(|i, j| y[*i].abs().total_cmp(&y[*j].abs())).unwrap();
                inverse.exchange(slot, &y);
            }
            inverse.prepare(&[]);
            assert!(!inverse.finish(&prepared, 0, &mut y));
        }
    }
}
