//! The few dense factorizations this crate needs, nearly all on one thread.
//!
//! faer's eigen-decomposition and QR differ in the last bits between thread
//! counts, its Gram products and Cholesky do not: of these, what is made of a
//! large matrix, for which all neurons of a layer wait, takes all threads, and the rest
//! is `Par::Seq`, and callers run layers and neurons in parallel instead. So the
//! results are the same on any machine load.

use crate::error::QuantError;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::evd::{self, ComputeEigenvectors};
use faer::linalg::lu::partial_pivoting as lu;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular_matmul};
use faer::linalg::qr::col_pivoting as qr;
use faer::linalg::triangular_solve;
use faer::prelude::{Reborrow, ReborrowMut, default};
use faer::traits::{ComplexField, RealField};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Adds (or writes) the lower triangle of `x^T x`.
pub(crate) fn gram_lower<T: ComplexField + faer::traits::Conjugate<Canonical = T>>(
    target: MatMut<'_, T>,
    accum: Accum,
    x: MatRef<'_, T>,
) {
    triangular_matmul(
        target,
        BlockStructure::TriangularLower,
        accum,
        x.transpose(),
        BlockStructure::Rectangular,
        x,
        BlockStructure::Rectangular,
        T::one_impl(),
        if x.ncols() < SHARED_PRODUCT { Par::Seq } else { Par::rayon(0) },
    );
}

/// Columns from which a Gram product takes all threads.
const SHARED_PRODUCT: usize = 512;

/// Columns of a panel: wide enough for the product to run at full speed.
const PANEL: usize = 256;

/// Adds the lower triangle of `x^T x`, formed in `f32`, to `f64` sums: the columns of a panel
/// at a time, which stay in the cache until they are added. Panels are formed in parallel.
pub(crate) fn add_gram_lower(sums: MatMut<'_, f64>, x: MatRef<'_, f32>) {
    let k = x.ncols();
    sums.par_col_chunks_mut(PANEL).enumerate().for_each(|(index, mut sums)| {
        let (first, width) = (index * PANEL, sums.ncols());
        let below = first + width;
        let own = x.subcols(first, width);
        let mut panel = Mat::zeros(k - first, width);
        gram_lower(panel.rb_mut().subrows_mut(0, width), Accum::Replace, own);
        let rest = x.subcols(below, k - below);
        matmul(panel.rb_mut().subrows_mut(width, k - below), Accum::Replace, rest.transpose(), own, 1.0, Par::Seq);
        for j in 0..width {
            let rows = k - first - j;
            add_column(sums.rb_mut().submatrix_mut(first + j, j, rows, 1), panel.rb().submatrix(j, j, rows, 1));
        }
    });
}

/// Adds `x^T y`, formed in `f32`, to `f64` sums, likewise.
pub(crate) fn add_product(sums: MatMut<'_, f64>, x: MatRef<'_, f32>, y: MatRef<'_, f32>) {
    sums.par_col_chunks_mut(PANEL).enumerate().for_each(|(index, mut sums)| {
        let (first, width) = (index * PANEL, sums.ncols());
        let mut panel = Mat::zeros(x.ncols(), width);
        matmul(panel.rb_mut(), Accum::Replace, x.transpose(), y.subcols(first, width), 1.0, Par::Seq);
        for j in 0..width {
            add_column(sums.rb_mut().subcols_mut(j, 1), panel.rb().subcols(j, 1));
        }
    });
}

/// `product = a b`.
pub(crate) fn multiply<T: RealField>(product: MatMut<'_, T>, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    matmul(product, Accum::Replace, a, b, T::one_impl(), Par::Seq);
}

/// Adds a column of an `f32` chunk to one of the `f64` sums.
fn add_column(sums: MatMut<'_, f64>, chunk: MatRef<'_, f32>) {
    let source = chunk.col(0).try_as_col_major().expect("the panel is column-major");
    let target = sums.col_mut(0).try_as_col_major_mut().expect("so are the sums");
    for (sum, chunk) in target.as_slice_mut().iter_mut().zip(source.as_slice()) {
        *sum += f64::from(*chunk);
    }
}

/// Whether a symmetric matrix (lower triangle read) is positive definite.
pub(crate) fn is_positive_definite(a: Mat<f64>) -> bool {
    cholesky(a).is_some()
}

/// Rows from which a factorization takes all threads.
const SHARED: usize = 1024;

/// The factor `L` of `a = L L^T` (lower triangles; the upper ones mean nothing),
/// or `None` if `a` is not positive definite.
pub(crate) fn cholesky(mut a: Mat<f64>) -> Option<Mat<f64>> {
    let par = if a.nrows() < SHARED { Par::Seq } else { Par::rayon(0) };
    let scratch = llt::factor::cholesky_in_place_scratch::<f64>(a.nrows(), par, default());
    llt::factor::cholesky_in_place(a.as_mut(), default(), par, MemStack::new(&mut MemBuffer::new(scratch)), default())
        .ok()?;
    Some(a)
}

/// Solves `L x = b` for many right sides.
pub(crate) fn solve_lower_in_place<T: RealField>(lower: MatRef<'_, T>, b: MatMut<'_, T>) {
    triangular_solve::solve_lower_triangular_in_place(lower, b, Par::Seq);
}

/// Solves `L L^T x = b`.
pub(crate) fn solve_factored(lower: MatRef<'_, f64>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    solve_factored_in_place(lower, MatMut::from_column_major_slice_mut(&mut b, n, 1));
    b
}

/// The same for many right sides.
pub(crate) fn solve_factored_in_place<T: RealField>(lower: MatRef<'_, T>, mut b: MatMut<'_, T>) {
    solve_lower_in_place(lower, b.rb_mut());
    triangular_solve::solve_upper_triangular_in_place(lower.transpose(), b, Par::Seq);
}

/// Eigenvalues in ascending order and, if wanted, eigenvectors as columns.
pub(crate) fn eigen(a: MatRef<'_, f64>, vectors: bool) -> Result<(Vec<f64>, Option<Mat<f64>>), QuantError> {
    let n = a.nrows();
    let wanted = if vectors { ComputeEigenvectors::Yes } else { ComputeEigenvectors::No };
    let mut values = faer::diag::Diag::zeros(n);
    let mut u = vectors.then(|| Mat::<f64>::zeros(n, n));
    let scratch = evd::self_adjoint_evd_scratch::<f64>(n, wanted, Par::Seq, default());
    evd::self_adjoint_evd(
        a,
        values.as_mut(),
        u.as_mut().map(|u| u.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        default(),
    )
    .map_err(|error| QuantError::Factorization {
        matrix: "Gram matrix",
        reason: format!("its eigenvalues did not converge ({error:?})"),
    })?;
    Ok((values.column_vector().iter().copied().collect(), u))
}

/// Column-pivoted QR: the upper trapezoidal factor (columns in pivot order) and
/// the original index of every column.
pub(crate) fn pivoted_qr(mut a: Mat<f64>) -> (Mat<f64>, Vec<usize>) {
    let (rows, columns) = (a.nrows(), a.ncols());
    let size = rows.min(columns);
    let block = faer::linalg::qr::no_pivoting::factor::recommended_block_size::<f64>(rows, columns);
    let mut coefficients = Mat::zeros(block, size);
    let mut order = vec![0usize; columns];
    let mut inverse = vec![0usize; columns];
    let scratch = qr::factor::qr_in_place_scratch::<usize, f64>(rows, columns, block, Par::Seq, default());
    qr::factor::qr_in_place(
        a.as_mut(),
        coefficients.as_mut(),
        &mut order,
        &mut inverse,
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        default(),
    );
    let factor = Mat::from_fn(size, columns, |i, j| if i <= j { a[(i, j)] } else { 0.0 });
    (factor, order)
}

/// The inverse of a square matrix, or `None` if it is singular to working precision.
pub(crate) fn invert(mut a: Mat<f64>) -> Option<Mat<f64>> {
    let n = a.nrows();
    let mut order = vec![0usize; n];
    let mut reverse = vec![0usize; n];
    let scratch = lu::factor::lu_in_place_scratch::<usize, f64>(n, n, Par::Seq, default());
    let (_, permutation) = lu::factor::lu_in_place(
        a.as_mut(),
        &mut order,
        &mut reverse,
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        default(),
    );
    let mut inverse = Mat::zeros(n, n);
    let scratch = lu::inverse::inverse_scratch::<usize, f64>(n, Par::Seq);
    lu::inverse::inverse(
        inverse.as_mut(),
        a.as_ref(),
        a.as_ref(),
        permutation,
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
    );
    let finite = (0..n).all(|j| inverse.col(j).iter().all(|value| value.is_finite()));
    finite.then_some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: usize, columns: usize) -> Mat<f64> {
        let mut state = 7u64;
        Mat::from_fn(rows, columns, |_, _| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
        })
    }

    #[test]
    fn pivoted_factor_reproduces_the_gram_matrix() {
        for (rows, columns) in [(4, 9), (9, 4), (1, 3), (5, 5)] {
            let a = sample(rows, columns);
            let (factor, order) = pivoted_qr(a.clone());
            let permuted = Mat::from_fn(rows, columns, |i, j| a[(i, order[j])]);
            let difference = permuted.transpose() * &permuted - factor.transpose() * &factor;
            assert!(difference.norm_max() < 1e-12);
        }
    }

    #[test]
    fn a_large_factor_is_the_same_with_any_number_of_threads() {
        let n = SHARED + 76;
        let near = |i: usize, j: usize| 1.0 / (1.0 + i.abs_diff(j) as f64) + if i == j { 1.0 } else { 0.0 };
        let factor = |threads| {
            let lower = crate::testing::with_threads(threads, || cholesky(Mat::from_fn(n, n, near)).unwrap());
            Mat::from_fn(n, n, |i, j| if i >= j { lower[(i, j)] } else { 0.0 })
        };
        let one = factor(1);
        assert!([2, 3, 5].into_iter().all(|threads| factor(threads) == one));
    }

    #[test]
    fn large_products_are_the_same_with_any_number_of_threads() {
        let x = sample(700, 2 * SHARED_PRODUCT + 76);
        let single = Mat::from_fn(x.nrows(), x.ncols(), |i, j| x[(i, j)] as f32);
        let products = |threads| {
            crate::testing::with_threads(threads, || {
                let k = x.ncols();
                let (mut wide, mut own, mut cross) = (Mat::zeros(k, k), Mat::zeros(k, k), Mat::zeros(k, k));
                gram_lower(wide.as_mut(), Accum::Replace, x.as_ref());
                add_gram_lower(own.as_mut(), single.as_ref());
                add_product(cross.as_mut(), single.as_ref(), single.as_ref());
                (wide, own, cross)
            })
        };
        let one = products(1);
        assert!([2, 3, 5].into_iter().all(|threads| products(threads) == one));
        let mut alone = Mat::zeros(x.ncols(), x.ncols());
        triangular_matmul(
            alone.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Replace,
            x.transpose(),
            BlockStructure::Rectangular,
            x.as_ref(),
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
        assert!(alone == one.0);
    }

    #[test]
    fn inverse_times_matrix_is_the_identity_and_singular_is_none() {
        let a = sample(6, 6);
        let product = invert(a.clone()).unwrap() * &a;
        assert!((product - Mat::<f64>::identity(6, 6)).norm_max() < 1e-10);
        assert!(invert(Mat::zeros(3, 3)).is_none());
    }

    #[test]
    fn definiteness_follows_the_least_eigenvalue() {
        let a = sample(8, 5);
        let gram = a.transpose() * &a;
        let (values, vectors) = eigen(gram.as_ref(), true).unwrap();
        let u = vectors.unwrap();
        let scaled = Mat::from_fn(5, 5, |i, j| u[(i, j)] * values[j]);
        assert!((&gram - scaled * u.transpose()).norm_max() < 1e-12);
        for (shift, definite) in [(values[0] * 0.99, true), (values[0] * 1.01, false)] {
            let shifted = Mat::from_fn(5, 5, |i, j| gram[(i, j)] - if i == j { shift } else { 0.0 });
            assert_eq!(is_positive_definite(shifted), definite);
        }
    }
}
