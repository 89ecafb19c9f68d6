//! One pass over rows: are they finite, and what are their column sums.
//!
//! Both run at the speed of memory: comparisons and additions in lanes, compiled
//! for the widest vectors the machine has, with the same results on all machines.

use faer::traits::pulp::{Arch, Simd, WithSimd};
use ndarray::{ArrayView2, Axis};

/// Partial sums of one column.
const LANES: usize = 8;

/// Whether all numbers are finite.
pub(crate) fn all_finite(rows: &ArrayView2<'_, f32>) -> bool {
    let in_columns = !rows.is_standard_layout();
    let contiguous = if in_columns { rows.reversed_axes().to_slice() } else { rows.to_slice() };
    match contiguous {
        Some(numbers) => finite_slice(numbers),
        None => rows.axis_iter(Axis(usize::from(in_columns))).all(|lane| match lane.to_slice() {
            Some(numbers) => finite_slice(numbers),
            None => lane.iter().all(|x| x.is_finite()),
        }),
    }
}

fn finite_slice(numbers: &[f32]) -> bool {
    Arch::new().dispatch(Finite(numbers))
}

struct Finite<'a>(&'a [f32]);

impl WithSimd for Finite<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        const EXPONENT: u32 = f32::INFINITY.to_bits();
        // Without a way out inside a piece, so that it is done in vectors.
        let bad = |piece: &[f32]| piece.iter().fold(0, |bad, x| bad | u32::from(x.to_bits() & EXPONENT == EXPONENT));
        self.0.chunks(1024).all(|piece| bad(piece) == 0)
    }
}

/// Adds the column sums of `[n, K]` rows: the rows `r` with one `r % 8` are added up in
/// order, in `f32`, then the eight sums, for every memory layout.
pub(crate) fn add_columns(rows: &ArrayView2<'_, f32>, sums: &mut [f64]) {
    match rows.to_slice() {
        Some(elements) if rows.ncols() > 1 => Arch::new().dispatch(ByRow { elements, sums }),
        _ => {
            for (sum, column) in sums.iter_mut().zip(rows.columns()) {
                *sum += match column.to_slice() {
                    Some(column) => Arch::new().dispatch(Column(column)),
                    None => column_sum(column.iter().copied()),
                };
            }
        }
    }
}

struct ByRow<'a> {
    elements: &'a [f32],
    sums: &'a mut [f64],
}

impl WithSimd for ByRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let k = self.sums.len();
        let mut lanes = vec![0.0; LANES * k];
        for rows in self.elements.chunks(LANES * k) {
            for (lane, x) in lanes.iter_mut().zip(rows) {
                *lane += *x;
            }
        }
        for (j, sum) in self.sums.iter_mut().enumerate() {
            *sum += together(&std::array::from_fn(|lane| lanes[lane * k + j]));
        }
    }
}

struct Column<'a>(&'a [f32]);

impl WithSimd for Column<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = self.0.as_chunks::<LANES>();
        for piece in whole {
            for (lane, x) in lanes.iter_mut().zip(piece) {
                *lane += *x;
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += *x;
        }
        together(&lanes)
    }
}

fn column_sum(column: impl Iterator<Item = f32>) -> f64 {
    let mut lanes = [0.0; LANES];
    for (row, x) in column.enumerate() {
        lanes[row % LANES] += x;
    }
    together(&lanes)
}

#[inline(always)]
fn together(lanes: &[f32; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes.map(f64::from);
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
