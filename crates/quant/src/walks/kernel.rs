//! The factorization that all neurons of a layer share before they walk.
//!
//! # Problem
//!
//! The walk moves weights inside the kernel of the data matrix `X` (n x K). It
//! needs the rank `r`, a set of `r` independent columns to start from, and every
//! column expressed in that basis.
//!
//! # Method
//!
//! Column-pivoted QR `X P = Q [R11 R12]`; the first `r` pivots are the starting
//! basis and `T = R11^-1 R12` the other columns in it. The kernel of `[I T]`
//! (permuted back) is that of `X`, so `X` and `Q` are not needed any more.
//!
//! If the rows were not kept (there were more than fit the buffer, hence n >= K)
//! the Gram matrix `H = X^T X / n` stands in: its eigenvectors with eigenvalue
//! above `2 * f32::EPSILON * sqrt(K) * mean(diag H)` give
//! `sqrt(L_r) V_r^T`, which has the kernel of `X` up to that threshold. The
//! threshold is the size of the rounding noise of sums formed in `f32`. Whether
//! there is any kernel at all is asked first, by a Cholesky factorization of `H`
//! minus the threshold: cheap, and for most real layers the end of the story.
//!
//! # Numerics
//!
//! All in `f64`. Rank of the rows: pivots above `8 max(n, K) f64::EPSILON` times
//! the first one.
//!
//! # Cost
//!
//! `O(n K min(n, K))` from rows; one Cholesky, `O(K^3 / 3)`, from a regular Gram
//! matrix; an eigen-decomposition, about `O(9 K^3)`, from a singular one.

use crate::error::QuantError;
use crate::linalg;
use crate::stats::gram::GramStats;
use faer::linalg::triangular_solve::solve_upper_triangular_in_place;
use faer::traits::pulp::{Arch, Simd, WithSimd};
use faer::{Mat, Par};
use ndarray::ArrayView2;

/// What the data say about the directions in which weights may move.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// No direction: the data determine every weight.
    Trivial {
        /// The rank, equal to the number of inputs.
        rank: usize,
    },
    /// `inputs - rank` directions.
    Walkable(Directions),
}

/// The columns of the data matrix in a basis chosen among them.
#[derive(Clone, Debug)]
pub struct Directions {
    /// `[I T]` in the original order of the columns, r x K.
    columns: Mat<f64>,
    /// `R` in the original order of the columns, r x K: `|R v| = |X v|`.
    factor: Mat<f64>,
    /// The Frobenius norm of `R`.
    size: f64,
    /// Indices of the unit columns, in their order.
    basis: Vec<usize>,
}

impl Kernel {
    /// About how many multiply-adds the search for the kernel takes.
    pub(crate) fn search_cost(stats: &GramStats) -> f64 {
        let k = stats.k() as f64;
        match stats.rows() {
            Some(rows) => rows.nrows() as f64 * k * k.min(rows.nrows() as f64),
            None => 9.0 * k.powi(3),
        }
    }

    /// About how many multiply-adds one neuron's walk takes at most.
    pub(crate) fn walk_cost(&self) -> f64 {
        match self {
            Kernel::Trivial { .. } => 0.0,
            Kernel::Walkable(directions) => {
                let rank = directions.rank() as f64;
                let steps = directions.inputs() as f64 - rank;
                2.0 * steps * rank * rank.min(steps)
            }
        }
    }

    /// From rows where they were kept, else from the Gram matrix; `None` if
    /// only the diagonal was gathered.
    pub fn new(stats: &GramStats) -> Result<Option<Kernel>, QuantError> {
        if let Some(rows) = stats.rows() {
            return Ok(Some(Kernel::of_rows(rows)));
        }
        stats.gram().map(Kernel::of_gram).transpose()
    }

    /// The rank of the data.
    pub fn rank(&self) -> usize {
        match self {
            Kernel::Trivial { rank } => *rank,
            Kernel::Walkable(directions) => directions.rank(),
        }
    }

    fn of_rows(rows: ArrayView2<'_, f32>) -> Kernel {
        let (n, k) = rows.dim();
        let x = Mat::from_fn(n, k, |i, j| f64::from(rows[[i, j]]));
        Kernel::of_matrix(x, 8.0 * n.max(k) as f64 * f64::EPSILON)
    }

    fn of_gram(gram: ArrayView2<'_, f64>) -> Result<Kernel, QuantError> {
        let k = gram.nrows();
        let mean_square = gram.diag().sum() / k as f64;
        let threshold = 2.0 * f64::from(f32::EPSILON) * (k as f64).sqrt() * mean_square;
        let shifted = Mat::from_fn(k, k, |i, j| gram[[i, j]] - if i == j { threshold } else { 0.0 });
        if linalg::is_positive_definite(shifted) {
            return Ok(Kernel::Trivial { rank: k });
        }
        let whole = Mat::from_fn(k, k, |i, j| gram[[i, j]]);
        let (values, vectors) = linalg::eigen(whole.as_ref(), true)?;
        let vectors = vectors.unwrap_or_else(Mat::new);
        let first = values.iter().take_while(|value| **value <= threshold).count();
        let root = Mat::from_fn(k - first, k, |i, j| values[first + i].sqrt() * vectors[(j, first + i)]);
        Ok(Kernel::of_matrix(root, f64::EPSILON))
    }

    fn of_matrix(x: Mat<f64>, tolerance: f64) -> Kernel {
        let k = x.ncols();
        let (r, order) = if x.norm_max() > 0.0 { linalg::pivoted_qr(x) } else { (Mat::zeros(0, k), (0..k).collect()) };
        let pivot = |i: usize| r[(i, i)].abs();
        let rank = (0..r.nrows()).take_while(|i| pivot(*i) > tolerance * pivot(0)).count();
        if rank == k {
            return Kernel::Trivial { rank };
        }
        let mut rest = r.submatrix(0, rank, rank, k - rank).to_owned();
        solve_upper_triangular_in_place(r.submatrix(0, 0, rank, rank), rest.as_mut(), Par::Seq);
        let mut columns = Mat::zeros(rank, k);
        let mut factor = Mat::zeros(rank, k);
        for (position, column) in order.iter().enumerate() {
            for i in 0..rank {
                factor[(i, *column)] = r[(i, position)];
                columns[(i, *column)] = match position.checked_sub(rank) {
                    Some(position) => rest[(i, position)],
                    None => f64::from(u8::from(i == position)),
                };
            }
        }
        let size = factor.norm_l2();
        Kernel::Walkable(Directions { columns, factor, size, basis: order[..rank].to_vec() })
    }
}

impl Directions {
    /// The rank r of the data.
    pub fn rank(&self) -> usize {
        self.basis.len()
    }

    /// K, the number of columns.
    pub fn inputs(&self) -> usize {
        self.columns.ncols()
    }

    /// The columns that form the starting basis.
    pub(crate) fn basis(&self) -> &[usize] {
        &self.basis
    }

    /// Column `j` of `[I T]`.
    pub(crate) fn column(&self, j: usize) -> &[f64] {
        self.columns.col_as_slice(j)
    }

    /// `[I T] v`.
    pub(crate) fn image(&self, v: &[f64]) -> Vec<f64> {
        image(&self.columns, v)
    }

    /// `|X v|`, up to the common factor `sqrt(n)` if it came from a Gram matrix.
    pub(crate) fn norm(&self, v: &[f64]) -> f64 {
        image(&self.factor, v).iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// The Frobenius norm of `X`, by which cancellation is judged.
    pub(crate) fn size(&self) -> f64 {
        self.size
    }
}

/// Columns that are added in one pass over the sums.
const TOGETHER: usize = 4;

fn image(matrix: &Mat<f64>, v: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; matrix.nrows()];
    Arch::new().dispatch(AddColumns { sums: &mut sums, matrix, v });
    sums
}

/// Adds the columns of a matrix, each with its factor, one after the other.
struct AddColumns<'a> {
    sums: &'a mut [f64],
    matrix: &'a Mat<f64>,
    v: &'a [f64],
}

impl WithSimd for AddColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mut columns = self.v.iter().enumerate().filter(|(_, factor)| **factor != 0.0);
        let mut next = || columns.next().map(|(j, factor)| (*factor, self.matrix.col_as_slice(j)));
        let mut together = Vec::with_capacity(TOGETHER);
        while let Some(column) = next() {
            together.push(column);
            if let [(fa, a), (fb, b), (fc, c), (fd, d)] = together[..] {
                for ((((sum, a), b), c), d) in self.sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    *sum = (((*sum + fa * a) + fb * b) + fc * c) + fd * d;
                }
                together.clear();
            }
        }
        for (factor, column) in together {
            for (sum, x) in self.sums.iter_mut().zip(column) {
                *sum += factor * x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gaussian_rows;
    use ndarray::Array2;

    fn rank_of(rows: &Array2<f32>) -> usize {
        Kernel::new(&GramStats::from_rows(rows.view()).unwrap()).unwrap().unwrap().rank()
    }

    #[test]
    fn rank_is_found_from_rows_and_from_the_gram_matrix() {
        for n in [5, 9, 300, 900] {
            let generic = gaussian_rows(n, 12, 1);
            assert_eq!(rank_of(&generic), n.min(12));
            let mut dead = generic.clone();
            dead.column_mut(3).fill(0.0);
            assert_eq!(rank_of(&dead), n.min(11));
            let mut twins = generic.clone();
            let twin = twins.column(0).to_owned();
            twins.column_mut(7).assign(&twin);
            twins.column_mut(8).assign(&twin);
            assert_eq!(rank_of(&twins), n.min(10));
            let low = gaussian_rows(n, 3, 2).dot(&gaussian_rows(3, 12, 3));
            assert!(n < 512 || rank_of(&low) == 3, "{}", rank_of(&low));
            assert_eq!(rank_of(&Array2::zeros((n, 12))), 0);
        }
    }

    #[test]
    fn directions_have_the_kernel_and_the_norm_of_the_data() {
        let rows = gaussian_rows(4, 10, 5);
        let Kernel::Walkable(directions) = Kernel::of_rows(rows.view()) else {
            panic!("4 rows of 10 inputs leave a kernel");
        };
        let outside = directions.basis().len();
        assert_eq!((outside, directions.rank(), directions.inputs()), (4, 4, 10));
        for j in (0..10).filter(|j| !directions.basis().contains(j)) {
            let mut v = vec![0.0; 10];
            v[j] = 1.0;
            for (slot, x) in directions.basis().iter().zip(directions.column(j)) {
                v[*slot] = -x;
            }
            let image = rows.mapv(f64::from).dot(&ndarray::arr1(&v));
            assert!(image.iter().all(|x| x.abs() < 1e-12));
            assert!(directions.norm(&v) < 1e-12);
        }
        let v: Vec<f64> = (0..10).map(|i| f64::from(i) - 4.0).collect();
        let image = rows.mapv(f64::from).dot(&ndarray::arr1(&v));
        assert!((directions.norm(&v) - image.dot(&image).sqrt()).abs() < 1e-10);
    }
}
