//! Several partial solutions side by side instead of error feedback's one.
//!
//! # Problem
//!
//! Error feedback takes the nearest level at every input and never looks back. A level that is a little worse now can
//! be cheaper in the end.
//!
//! # Method
//!
//! From the last input to the first, as in [`crate::lattice::panel`]: each partial solution is continued by the three levels
//! nearest to its `t_i`, at the cost `L_ii^2 (t_i - q_i)^2`, and the cheapest are kept (K-best). In blocks of inputs:
//! which solution came from which is applied to earlier blocks when a block is done.
//!
//! # Guarantee
//!
//! With one partial solution, error feedback. Results are returned only where they cost less than that.
//!
//! # Cost
//!
//! As many passes of error feedback as there are partial solutions, and as much again to sort them.
//!
//! # References
//!
//! Z. Guo, P. Nilsson, Algorithm and implementation of the K-best sphere decoding for MIMO detection, IEEE JSAC 24 (2006).

use crate::lattice::panel::{BLOCK, Panel, PanelScales, Rounded, add_scaled, multiply};
use crate::layer::grid::{Affine, Grid};
use crate::layer::pairs::PairRule;
use faer::{Accum, Mat};

/// Codes of every neuron and what they cost.
pub(crate) fn search(panel: &Panel<'_>, scales: &PanelScales, beam: usize) -> (Rounded, Vec<f64>) {
    let (mut best, mut costs) = panel.feed_back(scales);
    let mut search = Search::new(panel, beam);
    search.run(panel, scales);
    let inputs = panel.weights.ncols();
    for (p, least) in costs.iter_mut().enumerate() {
        // Rows of a neuron are in rising order of cost.
        let row = p * beam;
        if search.costs[row] < *least {
            *least = search.costs[row];
            for i in 0..inputs {
                best.codes[i * panel.weights.nrows() + p] = search.codes[i * search.costs.len() + row];
                best.errors[(p, i)] = search.errors[(row, i)];
            }
        }
    }
    (best, costs)
}

/// Rows `p * beam..(p + 1) * beam` are the partial solutions of neuron p.
struct Search {
    beam: usize,
    codes: Vec<i16>,
    errors: Mat<f32>,
    /// Infinite for rows that are not in use yet.
    costs: Vec<f64>,
}

/// One way to go on.
#[derive(Clone, Copy)]
struct Branch {
    cost: f64,
    parent: usize,
    code: i16,
}

impl Search {
    fn new(panel: &Panel<'_>, beam: usize) -> Search {
        let (rows, inputs) = (panel.weights.nrows() * beam, panel.weights.ncols());
        let costs = (0..rows).map(|row| if row % beam == 0 { 0.0 } else { f64::INFINITY }).collect();
        Search { beam, codes: vec![0; rows * inputs], errors: Mat::zeros(rows, inputs), costs }
    }

    fn run(&mut self, panel: &Panel<'_>, scales: &PanelScales) {
        let (rows, inputs) = (self.costs.len(), panel.weights.ncols());
        let mut carried = Mat::<f32>::zeros(rows, BLOCK);
        let mut end = inputs;
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            multiply(
                carried.as_mut().subcols_mut(0, end - start),
                Accum::Replace,
                self.errors.as_ref().subcols(end, inputs - end),
                panel.lower.submatrix(end, start, inputs - end, end - start),
            );
            let mut origins: Vec<usize> = (0..rows).collect();
            for i in (start..end).rev() {
                let beside = panel.partner(i).filter(|j| *j > i).map(|j| self.codes_of(j, end, &origins));
                let parents = self.extend(panel, i, carried.col_as_slice(i - start), scales.at(i), beside.as_deref());
                for column in start..i {
                    follow(carried.col_as_slice_mut(column - start), &parents);
                }
                self.reorder(i + 1..end, &parents);
                follow(&mut origins, &parents);
                for earlier in start..i {
                    let factor = panel.lower[(i, earlier)];
                    add_scaled(carried.col_as_slice_mut(earlier - start), factor, self.errors.col_as_slice(i));
                }
            }
            self.reorder(end..inputs, &origins);
            end = start;
        }
    }

    /// The codes of input j, by the row as it is now; inputs from `end` on are in the order of `origins`.
    fn codes_of(&self, j: usize, end: usize, origins: &[usize]) -> Vec<i16> {
        let codes = &self.codes[j * origins.len()..][..origins.len()];
        if j < end { codes.to_vec() } else { origins.iter().map(|row| codes[*row]).collect() }
    }

    /// Chooses input i of every row, and says from which row each came.
    fn extend(
        &mut self,
        panel: &Panel<'_>,
        i: usize,
        carried: &[f32],
        affine: &[Affine],
        beside: Option<&[i16]>,
    ) -> Vec<usize> {
        let (rows, pivot) = (self.costs.len(), panel.lower[(i, i)]);
        let mut parents: Vec<usize> = (0..rows).collect();
        let mut branches = Vec::new();
        for (p, affine) in affine.iter().enumerate() {
            let w = panel.weights[(p, i)];
            branches.clear();
            let own = p * self.beam..(p + 1) * self.beam;
            for (parent, (carried, paid)) in own.clone().zip(carried[own.clone()].iter().zip(&self.costs[own.clone()]))
            {
                if paid.is_finite() {
                    let target = w + carried / pivot;
                    let cost = |code| paid + f64::from(pivot * (target - affine.dequantize(code))).powi(2);
                    let room = beside.map_or((i16::MIN, i16::MAX), |codes| PairRule::room(codes[parent]));
                    let codes = nearest(target, *affine, panel.grid, room).into_iter().flatten();
                    branches.extend(codes.map(|code| Branch { cost: cost(code), parent, code }));
                }
            }
            branches.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.parent.cmp(&b.parent)).then(a.code.cmp(&b.code)));
            for (row, branch) in own.zip(&branches) {
                parents[row] = branch.parent;
                self.costs[row] = branch.cost;
                self.codes[i * rows + row] = branch.code;
                self.errors[(row, i)] = w - affine.dequantize(branch.code);
            }
        }
        parents
    }

    fn reorder(&mut self, columns: std::ops::Range<usize>, parents: &[usize]) {
        let rows = parents.len();
        for i in columns {
            follow(self.errors.col_as_slice_mut(i), parents);
            follow(&mut self.codes[i * rows..][..rows], parents);
        }
    }
}

/// The nearest level and its neighbours, of those whose codes lie in `room`.
fn nearest(target: f32, affine: Affine, grid: &Grid, (least, greatest): (i16, i16)) -> [Option<i16>; 3] {
    let code = affine.quantize(target, grid).clamp(least, greatest);
    let allowed = |code: &i16| grid.contains(*code) && (least..=greatest).contains(code);
    let [below, above] = grid.neighbours(code);
    [Some(code), below, above].map(|code| code.filter(allowed))
}

/// Every row takes the value of the row that it came from.
fn follow<T: Copy>(values: &mut [T], parents: &[usize]) {
    let before = values.to_vec();
    for (value, parent) in values.iter_mut().zip(parents) {
        *value = before[*parent];
    }
}

#[cfg(test)]
#[path = "beam_tests.rs"]
mod tests;
