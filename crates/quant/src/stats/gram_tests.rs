use super::diagonal::DiagonalAccumulator;
use super::*;
use crate::testing::gaussian_rows;

fn pushed(rows: &Array2<f32>, chunk: usize) -> GramStats {
    let mut accumulator = GramAccumulator::new(rows.ncols()).unwrap();
    for part in rows.axis_chunks_iter(Axis(0), chunk) {
        accumulator.push(part).unwrap();
    }
    accumulator.finish().unwrap()
}

#[test]
fn gram_equals_the_plain_product() {
    for (n, k) in [(1, 1), (3, 7), (128, 5), (129, 5), (300, 32), (512, 33), (1500, 40), (3000, 300)] {
        let rows = gaussian_rows(n, k, 3);
        let stats = pushed(&rows, 100);
        let x = rows.mapv(f64::from);
        let wanted = x.t().dot(&x) / n as f64;
        for (found, wanted) in stats.gram().unwrap().iter().zip(&wanted) {
            assert!((found - wanted).abs() < 1e-5, "{n} {k}: {found} {wanted}");
        }
        assert_eq!(stats.rows().is_some(), n <= GramAccumulator::new(k).unwrap().capacity());
        assert_eq!((stats.n_rows(), stats.k()), (n, k));
        assert!(stats.rows().is_none_or(|kept| kept == rows));
    }
}

#[test]
fn any_split_and_any_layout_give_the_same_bits() {
    for (n, k) in [(1300, 1), (1300, 9), (1300, 24), (1300, 25), (1300, 32), (1300, 70), (3000, 530)] {
        let rows = gaussian_rows(n, k, 4);
        let whole = pushed(&rows, n);
        let mut columns = Array2::zeros((k, n)).reversed_axes();
        columns.assign(&rows);
        let wider = Array2::from_shape_fn((2 * n, k), |(i, j)| rows[[i / 2, j]]);
        let strided = wider.slice_axis(Axis(0), Slice::new(0, None, 2));
        let same = |rows: ArrayView2<'_, f32>, chunk| {
            let mut accumulator = GramAccumulator::new(k).unwrap();
            rows.axis_chunks_iter(Axis(0), chunk).for_each(|part| accumulator.push(part).unwrap());
            let split = accumulator.finish().unwrap();
            assert_eq!((split.gram(), split.mean()), (whole.gram(), whole.mean()), "{n} {k} {chunk}");
        };
        for chunk in [1, 7, 49, 512, 600, n] {
            same(rows.view(), chunk);
            same(columns.view(), chunk);
            same(strided, chunk);
        }
    }
}

#[test]
fn the_mean_is_that_of_all_rows() {
    for (n, k) in [(5, 3), (700, 9), (2003, 40)] {
        let rows = gaussian_rows(n, k, 8).mapv(|x| x + 3.0);
        let wanted = rows.mapv(f64::from).mean_axis(Axis(0)).unwrap();
        assert!((&pushed(&rows, 64).mean() - &wanted).iter().all(|d| d.abs() < 1e-6), "{n} {k}");
    }
}

#[test]
fn diagonal_statistics_equal_the_diagonal_of_the_gram_matrix() {
    let rows = gaussian_rows(700, 6, 5);
    let full = pushed(&rows, 64);
    let mut accumulator = DiagonalAccumulator::new(6).unwrap();
    accumulator.push(rows.view()).unwrap();
    let diagonal = accumulator.finish().unwrap();
    assert!(diagonal.gram().is_none());
    for (a, b) in diagonal.mean_square().iter().zip(full.mean_square()) {
        assert!((a - b).abs() < 1e-5 * b);
    }
}

#[test]
fn statistics_of_two_readers_are_those_of_all_rows() {
    for (n, m, k) in [(3, 5, 4), (100, 40, 4), (600, 900, 33), (200, 100, 40)] {
        let rows = gaussian_rows(n + m, k, 9).mapv(|x| x + 0.5);
        let part = |from, to| pushed(&rows.slice_axis(Axis(0), Slice::from(from..to)).to_owned(), 64);
        let (merged, whole) = (part(0, n).with(&part(n, n + m)).unwrap(), pushed(&rows, 64));
        assert_eq!((merged.n_rows(), merged.n_samples()), (n + m, n.max(m)));
        assert_eq!(merged.rows(), whole.rows());
        let near = |a: &f64, b: &f64| (a - b).abs() < 1e-5;
        assert!(merged.gram().unwrap().iter().zip(whole.gram().unwrap()).all(|(a, b)| near(a, b)), "{n} {m} {k}");
        assert!(merged.mean().iter().zip(whole.mean()).all(|(a, b)| near(a, b)));
    }
    let mut diagonal = DiagonalAccumulator::new(3).unwrap();
    diagonal.push(gaussian_rows(5, 3, 1).view()).unwrap();
    let diagonal = diagonal.finish().unwrap();
    let full = pushed(&gaussian_rows(5, 3, 1), 64);
    for merged in [full.clone().with(&diagonal).unwrap(), diagonal.clone().with(&full).unwrap()] {
        assert!(merged.gram().is_none());
        assert!(merged.mean_square().iter().zip(full.mean_square()).all(|(a, b)| (a - b).abs() < 1e-6));
    }
    assert!(full.with(&pushed(&gaussian_rows(5, 4, 1), 64)).is_err());
}

#[test]
fn bad_rows_are_refused_with_their_index_and_change_nothing() {
    let mut accumulator = GramAccumulator::new(3).unwrap();
    accumulator.push(gaussian_rows(4, 3, 6).view()).unwrap();
    let mut bad = gaussian_rows(2, 3, 7);
    bad[[1, 2]] = f32::NAN;
    let error = accumulator.push(bad.view()).unwrap_err().to_string();
    assert!(error.contains("[5, 2]"), "{error}");
    assert!(accumulator.push(gaussian_rows(2, 4, 8).view()).is_err());
    let stats = accumulator.finish().unwrap();
    assert_eq!(stats.gram(), pushed(&gaussian_rows(4, 3, 6), 9).gram());
}

#[test]
fn no_rows_no_inputs_and_overflow_are_errors() {
    assert!(GramAccumulator::new(0).is_err());
    let empty = GramAccumulator::new(3).unwrap().finish();
    assert!(matches!(empty, Err(QuantError::NoRows)));
    let huge = Array2::from_elem((600, 2), 1e30f32);
    let error = GramStats::from_rows(huge.view()).unwrap_err();
    assert!(error.to_string().contains("second moments"));
}

#[test]
fn the_buffer_stays_bounded_for_narrow_and_wide_layers() {
    for (k, first, later) in
        [(3, 128, 128), (33, 512, 512), (1536, 1536, 1024), (9216, 1820, 1024), (1 << 20, 512, 512)]
    {
        assert_eq!((buffer_rows(k), later_rows(k)), (first, later), "{k}");
    }
}
