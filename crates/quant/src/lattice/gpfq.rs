//! Greedy path following quantization (`gpfq`).
//!
//! # Problem
//!
//! Round the inputs of a neuron one after another so that the running error of its output,
//! `u_t = sum_{j <= t} (w_j X_j - q_j X~_j)`, stays small: its weights lead along X, its codes follow along X~.
//!
//! # Method
//!
//! ```text
//! q_t = nearest level of  <X~_t, u_{t-1} + w_t X_t> / |X~_t|^2
//!     = nearest level of  w_t + (sum_{j < t} H_tj (w_j - q_j) + sum_{j <= t} B_tj w_j) / H_tt
//! ```
//!
//! which needs the moments of [`crate::stats::paired`] only (less those of the means where the bias takes these off). It is the
//! recursion of [`crate::lattice::panel`] with H in the place of its factor. Inputs go in falling order of `H_tt`; scales come
//! from the specification's rule.
//!
//! | paper | here |
//! |---|---|
//! | `u_t`, an n-vector | not formed |
//! | order of the inputs | falling `H_tt` |
//! | alphabet `{-B..B} * delta`, one step a layer | the specification's grid and granularity |
//!
//! # Guarantee
//!
//! None beyond the paper's: for random data the squared relative error is O(m log N / N).
//!
//! # Cost
//!
//! `K^2` multiply-adds a neuron.
//!
//! # Failure
//!
//! Without the Gram matrix of every group an error.
//!
//! # References
//!
//! E. Lybrand, R. Saab, *A greedy algorithm for quantizing neural networks*, JMLR 22 (2021), arXiv 2010.15979;
//! J. Zhang, Y. Zhou, R. Saab, arXiv 2201.11113.

use crate::error::QuantError;
use crate::lattice::panel::{Panel, multiply};
use crate::lattice::quadratic::Quadratic;
use crate::lattice::recipe::{Forms, Lattice};
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::solution::LayerSolution;
use crate::stats::gram::GramStats;
use faer::{Accum, Mat};

pub(crate) fn solve(problem: &LayerProblem<'_>, forms: &Forms) -> Result<LayerSolution, QuantError> {
    let table = ScaleTable::fit(problem, problem.spec().scale_rule());
    let stats = problem.stats().unwrap_or_default();
    let leads: Vec<Option<Mat<f32>>> =
        forms.forms.iter().zip(stats).map(|(form, stats)| lead(form, stats, problem.corrects_bias())).collect();
    let lattice = Lattice::new(problem, &forms.forms, &forms.factors);
    let (solution, _) = lattice.solve_panels(&table, |panel, place, scales| {
        let mut starts = panel.weights.clone();
        if let Some(lead) = &leads[place.group] {
            multiply(starts.as_mut(), Accum::Add, panel.weights.as_ref(), lead.as_ref());
        }
        let follower = Panel { lower: panel.form.matrix.as_ref(), weights: panel.weights.clone(), ..*panel };
        follower.feed_back_from(&starts, scales)
    });
    Ok(solution)
}

/// `B_tj / H_tt` at `(j, t)` where j is not rounded after t.
fn lead(form: &Quadratic, stats: &GramStats, centred: bool) -> Option<Mat<f32>> {
    let drift = stats.drift()?;
    let n = form.inputs.len();
    let entry = |j: usize, t: usize| {
        let (row, column) = (form.inputs[t], form.inputs[j]);
        let means = if centred { stats.mean()[row] * drift.mean()[column] } else { 0.0 };
        (drift.cross()[[row, column]] - means as f32) / form.matrix[(t, t)]
    };
    Some(Mat::from_fn(n, n, |j, t| if j >= t { entry(j, t) } else { 0.0 }))
}

#[cfg(test)]
#[path = "gpfq_tests.rs"]
mod tests;
