//! Moments of a layer's inputs in two networks: the float one and the one whose earlier layers are quantized.
//!
//! # Problem
//!
//! The inputs `X~` of a layer in the partly quantized network differ from those in the float network, `X`. What the
//! layer's codes Q should do is `X~ Q = X W`, and the error of that can be told from second moments alone:
//!
//! ```text
//! |X W - X~ Q|_F^2 / n  =  tr(E^T H E) + 2 tr(E^T B W) + tr(W^T S W),      E = W - Q,  D = X - X~
//! H = X~^T X~ / n,    B = X~^T D / n,    S = D^T D / n
//! ```
//!
//! # Shapes and units
//!
//! Rows are pushed in pairs, `[n, K]` `f32` each. `H`, `B` and `S` are K x K, in squared units of the input; `H` is `f64`.
//! `B` and `S` are summed in `f64` and kept as `f32`: what is formed from them is as small as D, and need not be exact to
//! more digits than that.
//!
//! # Method
//!
//! Where data select the rows, the two networks may select others. Rows without a counterpart
//! ([`PairedAccumulator::push_unpaired`]) count in `H` and as if they had not moved (`D = 0`): there is nothing better to
//! fit them to than what the layer's own weights make of them. Of rows that were selected one by one
//! ([`PairedAccumulator::push_selected`]) those are taken for pairs whose difference has at most [`MOST_MOVED`] of their
//! power.
//!
//! [`GramAccumulator`] gathers `H`. `D` is formed row by row: a difference of Gram matrices would lose what it is about.
//! Pairs with `D = 0` add nothing to `B` and `S` and are passed over; the others fill a buffer of at most 1024 rows
//! (128 up to K = 32), whose products faer forms in `f32` and which are added to `f64` sums.
//!
//! # Guarantee
//!
//! The same bits for any split into pushes and any memory layout. Where `D` vanishes throughout there is no
//! [`Drift`], and all else is what [`GramAccumulator`] gives for the rows.
//!
//! # Cost
//!
//! `2 n K^2` multiply-adds where rows differ, `n K^2 / 2` where they do not. Memory: see [`PairedAccumulator::bytes`].
//!
//! # Failure
//!
//! As [`GramAccumulator`]; the numbers of both networks are checked.

pub(crate) mod part;

use crate::error::QuantError;
use crate::error::shape_error;
use crate::linalg;
use crate::stats::column_sums::add_columns;
use crate::stats::drift::Drift;
use crate::stats::gram::{
    self, GramAccumulator, GramStats, check_moments, check_rows, divide_and_mirror, later_rows, make_room,
};
use faer::{MatMut, MatRef};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Slice};

/// The part of a row's power that its difference from the float network's row has at most, where rows were selected: more
/// than layers of few bits do to a row, and less than two rows differ that have nothing to do with each other.
const MOST_MOVED: f64 = 0.25;

/// Gathers the moments of pairs of rows.
#[derive(Debug)]
pub struct PairedAccumulator {
    seen: GramAccumulator,
    pairs: Pairs,
    n_unpaired: usize,
}

/// `n B`, the upper triangle of `n S`, and the sum of `D`.
#[derive(Debug)]
struct Sums {
    cross: Array2<f64>,
    own: Array2<f64>,
    mean: Array1<f64>,
}

/// The pairs that differ.
#[derive(Debug)]
struct Pairs {
    /// `[rows, K]`, in the memory order of the first pairs that differ; empty before them.
    seen: Array2<f32>,
    /// `D`, likewise.
    change: Array2<f32>,
    filled: usize,
    sums: Option<Sums>,
}

impl PairedAccumulator {
    /// For rows of `k` inputs.
    pub fn new(k: usize) -> Result<PairedAccumulator, QuantError> {
        let empty = Array2::zeros((0, k));
        let pairs = Pairs { seen: empty.clone(), change: empty, filled: 0, sums: None };
        Ok(PairedAccumulator { seen: GramAccumulator::new(k)?, pairs, n_unpaired: 0 })
    }

    /// Bytes that gathering the moments of `k` inputs takes at most.
    pub fn bytes(k: usize) -> u64 {
        let wide = k as u64;
        let buffers = (2 * 4 * later_rows(k) as u64).saturating_mul(wide);
        let sums = wide.saturating_mul(wide).saturating_mul(2).saturating_add(wide).saturating_mul(8);
        GramAccumulator::bytes(k).saturating_add(buffers).saturating_add(sums)
    }

    /// Adds rows `[n, K]` of the partly quantized network and the same rows of the float network.
    /// After an error the accumulator is as before the call.
    pub fn push(&mut self, seen: ArrayView2<'_, f32>, reference: ArrayView2<'_, f32>) -> Result<(), QuantError> {
        self.push_seen(seen, reference)?;
        self.pairs.push(seen, reference);
        Ok(())
    }

    /// The same for rows that data selected in each network: those that can hardly be the same ones are no pairs.
    pub fn push_selected(
        &mut self,
        seen: ArrayView2<'_, f32>,
        reference: ArrayView2<'_, f32>,
    ) -> Result<(), QuantError> {
        self.push_seen(seen, reference)?;
        for (at, (one, other)) in seen.outer_iter().zip(reference.outer_iter()).enumerate() {
            if is_pair(one, other) {
                let row = Slice::from(at..=at);
                self.pairs.push(seen.slice_axis(Axis(0), row), reference.slice_axis(Axis(0), row));
            } else {
                self.n_unpaired += 1;
            }
        }
        Ok(())
    }

    /// Adds rows `[n, K]` of one network, where the other one is not asked.
    pub fn push_alone(&mut self, seen: ArrayView2<'_, f32>) -> Result<(), QuantError> {
        self.seen.push(seen)
    }

    /// Adds rows `[n, K]` of the partly quantized network that have no counterpart in the float network.
    pub fn push_unpaired(&mut self, seen: ArrayView2<'_, f32>) -> Result<(), QuantError> {
        self.seen.push(seen)?;
        self.n_unpaired += seen.nrows();
        Ok(())
    }

    fn push_seen(&mut self, seen: ArrayView2<'_, f32>, reference: ArrayView2<'_, f32>) -> Result<(), QuantError> {
        if seen.dim() != reference.dim() {
            return Err(shape_error("reference rows", reference.shape(), format!("{:?}", seen.shape())));
        }
        check_rows(&reference, self.seen.k(), self.seen.n_rows())?;
        self.seen.push(seen)
    }

    /// Closes the sums.
    pub fn finish(mut self) -> Result<GramStats, QuantError> {
        self.pairs.flush();
        let n_rows = self.seen.n_rows();
        let stats = self.seen.finish()?.with_unpaired(self.n_unpaired);
        let Some(Sums { cross, mut own, mean }) = self.pairs.sums else {
            return Ok(stats);
        };
        let n = n_rows as f64;
        divide_and_mirror(&mut own, n_rows);
        let drift = Drift { cross: cross.mapv(|sum| (sum / n) as f32), own: own.mapv(|s| s as f32), mean: mean / n };
        check_moments(&[drift.cross.view(), drift.own.view()])?;
        Ok(stats.with_drift(drift))
    }
}

impl Pairs {
    fn push(&mut self, seen: ArrayView2<'_, f32>, reference: ArrayView2<'_, f32>) {
        let differs = differing(&seen, &reference);
        let mut done = 0;
        while let Some(same) = differs[done..].iter().position(|differs| *differs) {
            let first = done + same;
            let length = differs[first..].iter().position(|differs| !differs).unwrap_or(differs.len() - first);
            done = first;
            while done < first + length {
                let taken = self.make_room(first + length - done, !seen.is_standard_layout());
                let rows = Slice::from(done..done + taken);
                self.take(seen.slice_axis(Axis(0), rows), reference.slice_axis(Axis(0), rows));
                done += taken;
            }
        }
    }

    /// Makes room for `n` pairs, or as many as the buffer may have yet; how many.
    fn make_room(&mut self, n: usize, by_columns: bool) -> usize {
        let most = later_rows(self.change.ncols());
        let taken = n.min(most - self.filled);
        for buffer in [&mut self.seen, &mut self.change] {
            make_room(buffer, self.filled + taken, most, by_columns);
        }
        taken
    }

    /// Whether the buffer is full.
    fn is_full(&self) -> bool {
        self.filled == later_rows(self.change.ncols())
    }

    /// Takes in pairs for which there is room.
    fn take(&mut self, seen: ArrayView2<'_, f32>, reference: ArrayView2<'_, f32>) {
        let end = self.filled + seen.nrows();
        let rows = Slice::from(self.filled..end);
        // Along the longer pieces of memory.
        let axis = Axis(usize::from(!self.change.is_standard_layout()));
        let mut kept = self.seen.slice_axis_mut(Axis(0), rows);
        let mut change = self.change.slice_axis_mut(Axis(0), rows);
        let targets = kept.axis_iter_mut(axis).zip(change.axis_iter_mut(axis));
        for ((mut kept, mut change), (seen, reference)) in
            targets.zip(seen.axis_iter(axis).zip(reference.axis_iter(axis)))
        {
            match ((kept.as_slice_mut(), change.as_slice_mut()), (seen.to_slice(), reference.to_slice())) {
                ((Some(kept), Some(change)), (Some(seen), Some(reference))) => {
                    kept.copy_from_slice(seen);
                    for ((change, seen), reference) in change.iter_mut().zip(seen).zip(reference) {
                        *change = reference - seen;
                    }
                }
                _ => {
                    kept.assign(&seen);
                    ndarray::Zip::from(change).and(seen).and(reference).for_each(|change, seen, reference| {
                        *change = reference - seen;
                    });
                }
            }
        }
        self.filled = end;
        if self.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.filled == 0 {
            return;
        }
        let k = self.change.ncols();
        let zeros = || Array2::zeros((k, k));
        let sums = self.sums.get_or_insert_with(|| Sums { cross: zeros(), own: zeros(), mean: Array1::zeros(k) });
        let rows = self.change.slice_axis(Axis(0), Slice::from(..self.filled));
        add_columns(&rows, sums.mean.as_slice_mut().expect("a vector is in one piece"));
        let (seen, change) = (memory(&self.seen, self.filled), memory(&self.change, self.filled));
        linalg::add_gram_lower(square(&mut sums.own), change);
        // Column-major, the sums are the transposed of `B`.
        linalg::add_product(square(&mut sums.cross), change, seen);
        self.filled = 0;
    }
}

/// Whether these may be one row in both networks.
fn is_pair(seen: ArrayView1<'_, f32>, reference: ArrayView1<'_, f32>) -> bool {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let moved: f64 = seen.iter().zip(reference).map(|(a, b)| square(a - b)).sum();
    moved <= MOST_MOVED * reference.iter().map(|x| square(*x)).sum::<f64>()
}

/// Which rows differ; a zero is no other for its sign.
fn differing(seen: &ArrayView2<'_, f32>, reference: &ArrayView2<'_, f32>) -> Vec<bool> {
    if seen.is_standard_layout() {
        return seen.outer_iter().zip(reference.outer_iter()).map(|(seen, reference)| seen != reference).collect();
    }
    // Of the width of the numbers, so that it is done in vectors.
    let mut differs = vec![0_u32; seen.nrows()];
    for (seen, reference) in seen.columns().into_iter().zip(reference.columns()) {
        match (seen.to_slice(), reference.to_slice()) {
            (Some(seen), Some(reference)) => {
                for ((differs, seen), reference) in differs.iter_mut().zip(seen).zip(reference) {
                    *differs |= u32::from(seen != reference);
                }
            }
            _ => {
                differs.iter_mut().zip(seen).zip(reference).for_each(|((differs, a), b)| *differs |= u32::from(a != b))
            }
        }
    }
    differs.into_iter().map(|differs| differs != 0).collect()
}

/// The first rows as faer sees them.
fn memory(rows: &Array2<f32>, n: usize) -> MatRef<'_, f32> {
    gram::memory(&rows.view()).expect("the buffer was allocated in one piece").subrows(0, n)
}

fn square(sums: &mut Array2<f64>) -> MatMut<'_, f64> {
    let k = sums.ncols();
    MatMut::from_column_major_slice_mut(sums.as_slice_mut().expect("the sums are in standard layout"), k, k)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gaussian_rows;

    fn pushed(seen: &Array2<f32>, reference: &Array2<f32>, chunk: usize) -> GramStats {
        let mut accumulator = PairedAccumulator::new(seen.ncols()).unwrap();
        for (seen, reference) in seen.axis_chunks_iter(Axis(0), chunk).zip(reference.axis_chunks_iter(Axis(0), chunk)) {
            accumulator.push(seen, reference).unwrap();
        }
        accumulator.finish().unwrap()
    }

    /// Rows and the same rows a little moved, some of them not at all.
    fn pair(n: usize, k: usize) -> (Array2<f32>, Array2<f32>) {
        let seen = gaussian_rows(n, k, 1) + 0.3;
        let mut reference = &seen + &(gaussian_rows(n, k, 2) * 0.01 + 0.002);
        for i in (0..n).filter(|i| i % 3 == 0) {
            reference.row_mut(i).assign(&seen.row(i));
        }
        (seen, reference)
    }

    #[test]
    fn moments_are_those_of_the_rows() {
        for (n, k) in [(1, 1), (40, 7), (700, 30), (2500, 300)] {
            let (seen, mut reference) = pair(n, k);
            reference[[0, 0]] += 0.5;
            let stats = pushed(&seen, &reference, 100);
            let (x, d) = (seen.mapv(f64::from), (&reference - &seen).mapv(f64::from));
            let drift = stats.drift().unwrap();
            let close = |found: ArrayView2<'_, f32>, wanted: Array2<f64>, size: f64| {
                for (found, wanted) in found.iter().map(|found| f64::from(*found)).zip(&wanted) {
                    assert!((found - wanted).abs() < 1e-5 * size, "{n} {k}: {found} {wanted}");
                }
            };
            close(drift.cross(), x.t().dot(&d) / n as f64, 0.1);
            close(drift.own(), d.t().dot(&d) / n as f64, 0.1);
            let mean = d.mean_axis(Axis(0)).unwrap();
            assert!((&drift.mean() - &mean).iter().all(|difference| difference.abs() < 1e-7));
            assert_eq!(stats.gram(), GramStats::from_rows(seen.view()).unwrap().gram());
        }
    }

    #[test]
    fn any_split_and_any_layout_give_the_same_bits() {
        for (n, k) in [(400, 9), (1500, 70)] {
            let (seen, reference) = pair(n, k);
            let whole = pushed(&seen, &reference, n);
            let mut columns = Array2::zeros((k, n)).reversed_axes();
            columns.assign(&seen);
            for (seen, chunk) in [(&seen, 1), (&seen, 49), (&columns, 7), (&columns, 1030)] {
                let split = pushed(seen, &reference, chunk);
                let (one, other) = (whole.drift().unwrap(), split.drift().unwrap());
                assert_eq!((one.cross(), one.own(), one.mean()), (other.cross(), other.own(), other.mean()));
                assert_eq!((whole.gram(), whole.mean()), (split.gram(), split.mean()));
            }
        }
    }

    #[test]
    fn equal_rows_have_no_drift_and_other_statistics_are_those_of_the_rows() {
        let rows = gaussian_rows(700, 40, 3);
        let paired = pushed(&rows, &rows, 64);
        let single = GramStats::from_rows(rows.view()).unwrap();
        assert!(paired.drift().is_none());
        assert_eq!((paired.gram(), paired.mean(), paired.n_rows()), (single.gram(), single.mean(), 700));
    }

    #[test]
    fn rows_without_a_counterpart_count_as_if_they_had_not_moved() {
        let (seen, reference) = pair(40, 5);
        let more = gaussian_rows(10, 5, 9);
        let mut partly = PairedAccumulator::new(5).unwrap();
        partly.push(seen.view(), reference.view()).unwrap();
        partly.push_unpaired(more.view()).unwrap();
        let mut unmoved = PairedAccumulator::new(5).unwrap();
        unmoved.push(seen.view(), reference.view()).unwrap();
        unmoved.push(more.view(), more.view()).unwrap();
        let (partly, unmoved) = (partly.finish().unwrap(), unmoved.finish().unwrap());
        assert_eq!((partly.gram(), partly.n_rows()), (unmoved.gram(), 50));
        assert_eq!(partly.drift().unwrap().cross(), unmoved.drift().unwrap().cross());
        assert_eq!((partly.n_unpaired(), unmoved.n_unpaired()), (10, 0));
        assert_eq!(partly.clone().with(&partly).unwrap().n_unpaired(), 20);
    }

    #[test]
    fn of_selected_rows_those_are_paired_that_can_be_the_same() {
        let (seen, reference) = pair(40, 5);
        // The float network selects another tenth row, and what follows moves up.
        let shifted = reference.select(Axis(0), &(0..40).filter(|row| *row != 10).collect::<Vec<_>>());
        let kept = seen.slice_axis(Axis(0), Slice::from(..39));
        let mut selected = PairedAccumulator::new(5).unwrap();
        selected.push_selected(kept, shifted.view()).unwrap();
        let stats = selected.finish().unwrap();
        assert_eq!(stats.n_rows(), 39);
        assert!((20..=29).contains(&stats.n_unpaired()), "{}", stats.n_unpaired());
        let mut same = PairedAccumulator::new(5).unwrap();
        same.push_selected(seen.view(), reference.view()).unwrap();
        let (same, plain) = (same.finish().unwrap(), pushed(&seen, &reference, 40));
        assert_eq!((same.drift().unwrap().cross(), same.n_unpaired()), (plain.drift().unwrap().cross(), 0));
    }

    #[test]
    fn bad_rows_of_either_network_are_refused_and_change_nothing() {
        let mut accumulator = PairedAccumulator::new(3).unwrap();
        let (seen, reference) = pair(10, 3);
        accumulator.push(seen.view(), reference.view()).unwrap();
        let mut bad = gaussian_rows(2, 3, 7);
        bad[[1, 2]] = f32::NAN;
        let good = gaussian_rows(2, 3, 8);
        for (seen, reference) in [(&bad, &good), (&good, &bad)] {
            let error = accumulator.push(seen.view(), reference.view()).unwrap_err().to_string();
            assert!(error.contains("[11, 2]"), "{error}");
        }
        assert!(accumulator.push(good.view(), gaussian_rows(3, 3, 8).view()).is_err());
        let (stats, alone) = (accumulator.finish().unwrap(), pushed(&seen, &reference, 10));
        assert_eq!((stats.gram(), stats.drift().unwrap().own()), (alone.gram(), alone.drift().unwrap().own()));
        assert!(matches!(PairedAccumulator::new(3).unwrap().finish(), Err(QuantError::NoRows)));
    }
}
