use super::*;
use crate::linalg;
use crate::stats::gram::GramStats;
use crate::testing::{Gaussian, gaussian_rows};
use crate::walks::kernel::Kernel;
use faer::Mat;
use ndarray::{Array2, ArrayView2, Axis, arr1};
use proptest::prelude::*;

fn directions_of(rows: &Array2<f32>) -> Option<Directions> {
    let stats = GramStats::from_rows(rows.view()).unwrap();
    match Kernel::new(&stats).unwrap().unwrap() {
        Kernel::Walkable(directions) => Some(directions),
        Kernel::Trivial { .. } => None,
    }
}

fn weights(k: usize, seed: u64) -> Vec<f64> {
    let mut gaussian = Gaussian::new(seed);
    (0..k).map(|_| gaussian.sample()).collect()
}

fn box_around(weights: &[f64]) -> Walls {
    let end = weights.iter().fold(0.0f64, |end, w| end.max(w.abs()));
    Walls::new(vec![-end; weights.len()], vec![end; weights.len()]).unwrap()
}

fn free(walls: &Walls, values: &[f64]) -> Vec<usize> {
    (0..values.len()).filter(|i| !walls.touched(*i, values[*i])).collect()
}

/// Independent columns: the least singular value of the free columns is not 0.
fn is_vertex(rows: ArrayView2<'_, f32>, free: &[usize]) -> bool {
    let columns = rows.select(Axis(1), free).mapv(f64::from);
    let gram = columns.t().dot(&columns);
    let gram = Mat::from_fn(free.len(), free.len(), |i, j| gram[[i, j]]);
    let (values, _) = linalg::eigen(gram.as_ref(), false).unwrap();
    free.is_empty() || values[0] > 1e-14 * values[free.len() - 1]
}

/// All that must hold at the end of a walk.
fn check(rows: &Array2<f32>, start: &[f64], walls: &Walls) {
    let Some(directions) = directions_of(rows) else {
        return;
    };
    let walked = directions.walk(start, walls, WalkOptions::default()).unwrap();
    let x = rows.mapv(f64::from);
    let (before, after) = (x.dot(&arr1(start)), x.dot(&arr1(&walked.values)));
    let moved = &after - &before;
    let size = before.dot(&before).sqrt().max(1e-6 * x.iter().fold(0.0, |s: f64, v| s.max(v.abs())));
    assert!(moved.dot(&moved).sqrt() <= 1e-8 * size, "{moved}");
    for (i, z) in walked.values.iter().enumerate() {
        assert!(walls.lower()[i] <= *z && *z <= walls.upper()[i]);
    }
    let free = free(walls, &walked.values);
    assert!(free.len() <= directions.rank(), "{} free, rank {}", free.len(), directions.rank());
    assert!(free.iter().all(|i| walked.members.contains(i)));
    assert!(is_vertex(rows.view(), &free));
}

/// Generic, dead, duplicated and low-rank data, fewer and more rows than inputs.
fn data() -> impl Strategy<Value = Array2<f32>> {
    (1usize..14, 2usize..24, 0u64..1000, 0usize..4).prop_map(|(n, k, seed, kind)| {
        let mut rows = gaussian_rows(n, k, seed);
        match kind {
            1 => rows.columns_mut().into_iter().step_by(3).for_each(|mut column| column.fill(0.0)),
            2 => (1..k).step_by(2).for_each(|j| {
                let twin = rows.column(j - 1).to_owned();
                rows.column_mut(j).assign(&twin);
            }),
            3 => (1..n).for_each(|i| {
                let twin = rows.row(i / 2).to_owned();
                rows.row_mut(i).assign(&twin);
            }),
            _ => (),
        }
        rows
    })
}

proptest! {
    #[test]
    fn the_walk_keeps_its_promises_in_the_box(rows in data(), seed in 0u64..1000) {
        let start = weights(rows.ncols(), seed);
        check(&rows, &start, &box_around(&start));
    }

    #[test]
    fn the_walk_keeps_its_promises_in_cells(rows in data(), seed in 0u64..1000, step in 0.05f64..2.0) {
        let start = weights(rows.ncols(), seed);
        let floor = |w: &f64| (w / step).floor() * step;
        let lower: Vec<f64> = start.iter().map(floor).collect();
        let upper: Vec<f64> = start.iter().map(|w| floor(w) + step).collect();
        check(&rows, &start, &Walls::new(lower, upper).unwrap());
    }

    #[test]
    fn starts_on_walls_and_fixed_coordinates_are_no_obstacle(rows in data(), seed in 0u64..1000) {
        let start: Vec<f64> =
            weights(rows.ncols(), seed).iter().map(|w| w.clamp(-0.5, 0.5)).collect();
        check(&rows, &start, &box_around(&start));
        let fixed = |sign: f64| {
            let wall = |(i, w): (usize, &f64)| if i % 4 == 0 { *w } else { sign };
            start.iter().enumerate().map(wall).collect::<Vec<_>>()
        };
        check(&rows, &start, &Walls::new(fixed(-1.0), fixed(1.0)).unwrap());
    }
}

#[test]
fn long_walks_stay_exact() {
    let rows = gaussian_rows(100, 1500, 3);
    let start = weights(1500, 4);
    check(&rows, &start, &box_around(&start));
    let mut decaying = gaussian_rows(80, 900, 5);
    for (i, mut row) in decaying.rows_mut().into_iter().enumerate() {
        row *= (-(i as f32) / 8.0).exp();
    }
    let start = weights(900, 6);
    check(&decaying, &start, &box_around(&start));
}

#[test]
fn refactoring_every_time_ends_at_the_same_point() {
    let rows = gaussian_rows(20, 200, 7);
    let start = weights(200, 8);
    let walls = box_around(&start);
    let directions = directions_of(&rows).unwrap();
    let walk = |refactor_every| directions.walk(&start, &walls, WalkOptions { refactor_every }).unwrap().values;
    for (a, b) in walk(1).iter().zip(walk(256)) {
        assert!((a - b).abs() < 1e-9);
    }
}

#[test]
fn without_data_everything_saturates() {
    let rows = Array2::zeros((3, 6));
    let start = weights(6, 9);
    let walls = box_around(&start);
    let walked = directions_of(&rows).unwrap().walk(&start, &walls, WalkOptions::default()).unwrap();
    assert!(free(&walls, &walked.values).is_empty());
}

#[test]
fn wrong_sizes_and_crossed_walls_are_errors() {
    let directions = directions_of(&gaussian_rows(2, 5, 1)).unwrap();
    let walls = box_around(&[1.0; 4]);
    assert!(directions.walk(&[0.0; 5], &walls, WalkOptions::default()).is_err());
    assert!(Walls::new(vec![1.0], vec![0.0]).is_err());
    assert!(Walls::new(vec![0.0], vec![f64::NAN]).is_err());
}
