//! Pins the weights of a neuron that lie beyond its grid to the ends, and moves the others along: see
//! [`crate::lattice::saturate`].

use crate::lattice::panel::{Panel, PanelScales, Rounded};
use crate::lattice::quadratic::Factor;
use crate::linalg;
use faer::Mat;
use rayon::prelude::*;

/// More pinned weights of one neuron would cost more than they gain.
const MOST_PINNED: usize = 600;
/// Columns of the inverse that are solved for together.
const CHUNK: usize = 64;

/// `A^-1`.
pub(crate) struct Inverse(Mat<f32>);

impl Inverse {
    pub(crate) fn new(factor: &Factor) -> Inverse {
        let n = factor.lower.nrows();
        let mut inverse = Mat::<f32>::identity(n, n);
        let columns = inverse.par_col_chunks_mut(CHUNK);
        columns.for_each(|columns| linalg::solve_factored_in_place(factor.lower.as_ref(), columns));
        Inverse(inverse)
    }
}

/// The better of error feedback from `z` and from `w*`, and what it costs.
pub(crate) fn start(panel: &Panel<'_>, inverse: &Inverse, scales: &PanelScales) -> (Rounded, Vec<f64>) {
    let (mut best, mut costs) = panel.feed_back(scales);
    let Some(pinned) = pinned(panel, inverse, scales) else {
        return (best, costs);
    };
    let moved = &panel.weights - &pinned;
    let (mut rounded, _) = Panel { weights: pinned, ..*panel }.feed_back(scales);
    rounded.errors += moved;
    for (p, cost) in panel.energies(&rounded).into_iter().enumerate() {
        if cost < costs[p] {
            best.take(p, &rounded);
            costs[p] = cost;
        }
    }
    (best, costs)
}

/// `z` of every neuron, unless no weight lies beyond its grid.
fn pinned(panel: &Panel<'_>, Inverse(inverse): &Inverse, scales: &PanelScales) -> Option<Mat<f32>> {
    let (width, inputs) = (panel.weights.nrows(), panel.weights.ncols());
    let mut pinned = panel.weights.clone();
    let mut any = false;
    for p in 0..width {
        let beyond = |i: usize| {
            let (least, greatest) = scales.at(i)[p].ends(panel.grid);
            let w = panel.weights[(p, i)];
            let change = w.clamp(least, greatest) - w;
            (change != 0.0).then_some((i, f64::from(change)))
        };
        let (rows, changes): (Vec<usize>, Vec<f64>) = (0..inputs).filter_map(beyond).unzip();
        if rows.is_empty() || rows.len() > MOST_PINNED {
            continue;
        }
        let part = Mat::from_fn(rows.len(), rows.len(), |i, j| f64::from(inverse[(rows[i], rows[j])]));
        let Some(factor) = linalg::cholesky(part) else { continue };
        let forces = linalg::solve_factored(factor.as_ref(), changes.clone());
        for (row, force) in rows.iter().zip(forces) {
            for (i, v) in inverse.col_as_slice(*row).iter().enumerate() {
                pinned[(p, i)] += v * force as f32;
            }
        }
        for (row, change) in rows.iter().zip(changes) {
            pinned[(p, *row)] = panel.weights[(p, *row)] + change as f32;
        }
        any = true;
    }
    any.then_some(pinned)
}

#[cfg(test)]
#[path = "pin_tests.rs"]
mod tests;
