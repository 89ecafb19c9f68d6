//! One slow algorithm with switches, of which error feedback and the kernel walk are two settings.
//!
//! A pivot moves along the direction of least energy `u = V_:p / V_pp`, `V = (A_alive)^-1`, either until it stands on its
//! level (then only the pivot is fixed), or until any live weight hits a wall (then that one is); at random, it is the
//! Gram-Schmidt walk.

use crate::lattice::effective_dimension::MeanError;
use crate::lattice::panel::PanelScales;
use crate::lattice::recipe::Forms;
use crate::layer::grid::Grid;
use crate::layer::method::Method;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use crate::linalg;
use crate::testing::{Gaussian, correlated_rows, gaussian_rows, gaussian_weights, panel, stats};
use faer::{Mat, MatRef};
use std::cell::RefCell;

enum Stop<'a> {
    /// Where the pivot stands on the nearest level.
    Pivot(Box<dyn Fn(usize, f64) -> f64 + 'a>),
    /// Where a live weight hits one of its walls, up or down as `goes_up` says of the lengths of both ways.
    FirstWall { walls: &'a dyn Fn(usize) -> (f64, f64), goes_up: &'a dyn Fn(f64, f64) -> bool },
}

/// Fixes `steps` weights, pivots from the last to the first; every step inverts anew.
fn walk(form: MatRef<'_, f64>, start: &[f64], stop: &Stop<'_>, steps: usize) -> Vec<f64> {
    let mut z = start.to_vec();
    let mut alive: Vec<usize> = (0..z.len()).collect();
    for _ in 0..steps {
        let p = alive[alive.len() - 1];
        let part = Mat::from_fn(alive.len(), alive.len(), |i, j| form[(alive[i], alive[j])]);
        let inverse = linalg::invert(part).unwrap();
        let last = alive.len() - 1;
        let direction: Vec<f64> = (0..alive.len()).map(|i| inverse[(i, last)] / inverse[(last, last)]).collect();
        let mut fixed = last;
        let step = match stop {
            Stop::Pivot(level) => level(p, z[p]) - z[p],
            Stop::FirstWall { walls, goes_up } => {
                let reach = |sign: f64| {
                    let gaps = direction.iter().zip(&alive).enumerate();
                    let wall = |u: f64, a: usize| if u > 0.0 { walls(a).1 - z[a] } else { z[a] - walls(a).0 };
                    let gaps = gaps.map(|(i, (u, a))| (wall(sign * u, *a) / u.abs(), i));
                    gaps.fold((f64::INFINITY, 0), |least, gap| if gap.0 < least.0 { gap } else { least })
                };
                let (up, down) = (reach(1.0), reach(-1.0));
                let (sign, (length, hit)) = if goes_up(up.0, down.0) { (1.0, up) } else { (-1.0, down) };
                fixed = hit;
                sign * length
            }
        };
        for (u, a) in direction.iter().zip(&alive) {
            z[*a] += step * u;
        }
        alive.remove(fixed);
    }
    z
}

#[test]
fn stopping_at_the_pivot_is_error_feedback() {
    let (k, m) = (40, 5);
    let weights = gaussian_weights(1, k, m, 1);
    let stats = stats(&correlated_rows(100, k, 2));
    let spec = QuantSpec::new(Grid::symmetric(3).unwrap(), Granularity::Channel, ScaleRule::Max).unwrap();
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    let forms = Forms::new(Method::Optq, &problem, 0.01).unwrap();
    let panel = panel(&problem, &forms);
    let table = ScaleTable::fit(&problem, ScaleRule::Max);
    let scales = PanelScales::new(&table, 0, 0, m, &panel.form.inputs);
    let (fed, _) = panel.feed_back(&scales);
    let damped =
        Mat::from_fn(k, k, |i, j| f64::from(panel.form.matrix[(i, j)] + if i == j { panel.added } else { 0.0 }));
    for p in 0..m {
        let start: Vec<f64> = (0..k).map(|i| f64::from(panel.weights[(p, i)])).collect();
        let level = |i: usize, x: f64| {
            let affine = scales.at(i)[p];
            f64::from(affine.dequantize(affine.quantize(x as f32, panel.grid)))
        };
        let walked = walk(damped.as_ref(), &start, &Stop::Pivot(Box::new(level)), k);
        for (i, walked) in walked.iter().enumerate() {
            let fed = start[i] - f64::from(fed.errors[(p, i)]);
            assert!((walked - fed).abs() < 1e-6, "{p} {i}: {walked} {fed}");
        }
    }
}

#[test]
fn stopping_at_the_first_wall_without_damping_is_the_kernel_walk() {
    let (n, k, c) = (5, 24, 1.0);
    let rows = gaussian_rows(n, k, 3).mapv(f64::from);
    let x = Mat::from_fn(n, k, |i, j| rows[[i, j]]);
    let form = x.transpose() * &x + Mat::<f64>::identity(k, k) * faer::Scale(1e-10);
    let weights = gaussian_weights(1, k, 4, 2);
    for p in 0..4 {
        let start: Vec<f64> = (0..k).map(|i| f64::from(weights[[0, i, p]]).clamp(-0.9, 0.9)).collect();
        let moved = |steps: usize| {
            let walked = walk(
                form.as_ref(),
                &start,
                &Stop::FirstWall { walls: &|_| (-c, c), goes_up: &|up, down| up <= down },
                steps,
            );
            let at_wall = walked.iter().filter(|z| (z.abs() - c).abs() < 1e-9).count();
            let change = Mat::from_fn(k, 1, |i, _| walked[i] - start[i]);
            (at_wall, (&x * change).norm_l2())
        };
        // As long as the live columns are dependent it is free; then it is not.
        let (saturated, lost) = moved(k - n);
        assert!(saturated == k - n && lost < 1e-4, "{saturated} {lost}");
        let (saturated, lost) = moved(k);
        assert!(saturated == k && lost > 0.1, "{saturated} {lost}");
    }
}

#[test]
fn between_the_levels_and_at_random_it_keeps_to_the_effective_dimension() {
    let (k, m, walks) = (24, 3, 150);
    let weights = gaussian_weights(1, k, m, 5);
    let stats = stats(&correlated_rows(200, k, 6));
    let spec = QuantSpec::new(Grid::symmetric(4).unwrap(), Granularity::Channel, ScaleRule::Max).unwrap();
    let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
    for damping in [0.3, 0.01] {
        let forms = Forms::new(Method::Optq, &problem, damping).unwrap();
        let panel = panel(&problem, &forms);
        let table = ScaleTable::fit(&problem, ScaleRule::Max);
        let scales = PanelScales::new(&table, 0, 0, m, &panel.form.inputs);
        let matrix = Mat::from_fn(k, k, |i, j| f64::from(panel.form.matrix[(i, j)]));
        let damped = &matrix + Mat::<f64>::identity(k, k) * faer::Scale(f64::from(panel.added));
        let bound = MeanError::new(panel.form, &forms.factors[0]);
        for (p, cell) in panel.widest_cells(&scales).into_iter().enumerate() {
            let start: Vec<f64> = (0..k).map(|i| f64::from(panel.weights[(p, i)])).collect();
            let step = |i: usize| f64::from(scales.at(i)[p].scale());
            let walls = |i: usize| ((start[i] / step(i)).floor() * step(i), (start[i] / step(i)).ceil() * step(i));
            let chance = RefCell::new(Gaussian::new(p as u64));
            let goes_up = |up: f64, down: f64| chance.borrow_mut().uniform() * (up + down) < down;
            let mut mean = 0.0;
            for _ in 0..walks {
                let walked = walk(damped.as_ref(), &start, &Stop::FirstWall { walls: &walls, goes_up: &goes_up }, k);
                let errors = Mat::from_fn(k, 1, |i, _| walked[i] - start[i]);
                mean += (errors.transpose() * &matrix * &errors)[(0, 0)] / f64::from(walks);
            }
            let bound = bound.of(cell);
            assert!(mean < bound && bound < 100.0 * mean, "{damping} {p}: {mean} {bound}");
        }
    }
}
