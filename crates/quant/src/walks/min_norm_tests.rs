use super::*;
use crate::stats::gram::GramStats;
use crate::testing::{Gaussian, gaussian_rows};
use crate::walks::kernel::Kernel;
use faer::Mat;
use ndarray::Array2;

fn directions_of(rows: &Array2<f32>) -> Directions {
    let stats = GramStats::from_rows(rows.view()).unwrap();
    match Kernel::new(&stats).unwrap().unwrap() {
        Kernel::Walkable(directions) => directions,
        Kernel::Trivial { .. } => panic!("the data leave no kernel"),
    }
}

fn symmetric_walls(k: usize, end: f64) -> Walls {
    Walls::new(vec![-end; k], vec![end; k]).unwrap()
}

fn problem(n: usize, k: usize, seed: u64) -> (Directions, Vec<f64>, Walls) {
    let mut gaussian = Gaussian::new(seed + 100);
    let start: Vec<f64> = (0..k).map(|_| gaussian.sample()).collect();
    let end = start.iter().fold(0.0f64, |end, w| end.max(w.abs()));
    (directions_of(&gaussian_rows(n, k, seed)), start, symmetric_walls(k, end))
}

/// `max y^T X w` over `|X^T y|_1 <= 1`, at the multipliers of a given vertex:
/// by weak duality nothing below it is feasible.
fn dual_bound(directions: &Directions, start: &[f64], values: &[f64], end: f64) -> f64 {
    let off: Vec<usize> = (0..values.len()).filter(|i| values[*i].abs() < end * (1.0 - 1e-7)).collect();
    // Multipliers vanish on the free columns: the last right singular direction.
    let r = directions.rank();
    let gram =
        Mat::from_fn(r, r, |i, j| off.iter().map(|c| directions.column(*c)[i] * directions.column(*c)[j]).sum::<f64>());
    let (_, vectors) = crate::linalg::eigen(gram.as_ref(), true).unwrap();
    let y: Vec<f64> = (0..r).map(|i| vectors.as_ref().unwrap()[(i, 0)]).collect();
    let dot = |v: &[f64]| y.iter().zip(v).map(|(y, v)| y * v).sum::<f64>();
    let norm: f64 = (0..values.len()).map(|j| dot(directions.column(j)).abs()).sum();
    dot(&directions.image(start)).abs() / norm
}

#[test]
fn the_optimum_is_certified_by_weak_duality() {
    for (n, k, seed) in [(1, 5, 1), (2, 6, 2), (5, 20, 3), (24, 384, 4), (40, 100, 5), (9, 10, 6)] {
        let (directions, start, walls) = problem(n, k, seed);
        let (values, factor) = shrink(&directions, &start, &walls);
        let end = factor * walls.upper()[0];
        let bound = dual_bound(&directions, &start, &values, end);
        assert!((end - bound).abs() <= 1e-7 * end, "{n} {k}: {end} but at least {bound}");
    }
}

#[test]
fn the_solution_reproduces_the_data_with_rank_minus_one_free_weights() {
    for (n, k, seed) in [(3, 9, 11), (16, 64, 12), (60, 61, 13)] {
        let (directions, start, walls) = problem(n, k, seed);
        let (values, factor) = shrink(&directions, &start, &walls);
        let moved: Vec<f64> = values.iter().zip(&start).map(|(z, w)| z - w).collect();
        assert!(directions.norm(&moved) <= 1e-9 * directions.norm(&start));
        let end = factor * walls.upper()[0];
        assert!(values.iter().all(|z| z.abs() <= end * (1.0 + 1e-9)));
        let free = values.iter().filter(|z| z.abs() < end * (1.0 - 1e-9)).count();
        assert!(free < n, "{free} free of rank {n}");
    }
}

#[test]
fn boxes_of_different_and_lopsided_size_shrink_together() {
    let (directions, start, _) = problem(4, 24, 21);
    let lower = (0..24).map(|i| -3.0 - f64::from(i)).collect();
    let upper = (0..24).map(|i| 3.0 + f64::from(i % 5)).collect();
    let walls = Walls::new(lower, upper).unwrap();
    let (values, factor) = shrink(&directions, &start, &walls);
    assert!(factor < 0.5, "{factor}");
    for (i, z) in values.iter().enumerate() {
        let (lower, upper) = (factor * walls.lower()[i], factor * walls.upper()[i]);
        assert!(*z >= lower - 1e-9 && *z <= upper + 1e-9);
    }
}

#[test]
fn a_neuron_in_the_kernel_shrinks_to_nothing() {
    let rows = ndarray::arr2(&[[1.0f32, 1.0, 1.0, 1.0]]);
    let directions = directions_of(&rows);
    let start = [1.0, -1.0, 0.5, -0.5];
    let (values, factor) = shrink(&directions, &start, &symmetric_walls(4, 1.0));
    assert!(factor < 1e-9 && values.iter().all(|z| z.abs() < 1e-9), "{factor}");
}
