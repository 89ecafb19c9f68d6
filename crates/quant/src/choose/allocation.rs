//! Divides a budget among layers, each of which can be had at several widths.
//!
//! # Problem
//!
//! Layer `l` at width `w` costs `c[l][w]` (bytes, or bits) and does the harm `e[l][w]`. Choose a width for every layer so
//! that the harm of all together is least and the cost within a budget ([`least_error`]), or the cost least and the harm
//! within a limit ([`cheapest`]): a multiple-choice knapsack.
//!
//! # Shapes and units
//!
//! `[layer][width]`, in any order of widths, as many as each layer has. Harm is additive: energies of errors, not their
//! roots.
//!
//! # Method
//!
//! For a multiplier `m` every layer alone minimizes `e + m c` (Everett). As `m` falls from infinity, a layer climbs the
//! lower convex hull of its points, from the cheapest to the most exact. The steps of all hulls, sorted by harm saved for
//! the cost, are the whole path of solutions, so that no multiplier has to be searched for: steps are taken from the first
//! on. Where the next does not fit into what is left of the budget, it is passed over, and with it the layer; smaller steps
//! of other layers may still fit. At last every layer is offered what is left, points off its hull included.
//!
//! For the least cost within a limit of harm, steps are taken until the limit holds; then every layer, the one with most
//! to save first, falls back to its cheapest point with which it still holds.
//!
//! # Guarantee
//!
//! The budget, or the limit, is kept. The harm exceeds the optimum's by at most what the first step that was passed over
//! would have saved; the path up to it is optimal for the cost it has.
//!
//! # Numerics
//!
//! Costs are integers. Ties are broken by the order of layers: the result is a function of the numbers.
//!
//! # Cost
//!
//! Sorting: `n log n` for `n` points.
//!
//! # Failure
//!
//! `None` where the cheapest points of all layers exceed the budget, or the most exact ones the limit; or where a harm is
//! not a number.
//!
//! # References
//!
//! H. Everett, "Generalized Lagrange multiplier method for solving problems of optimum allocation of resources", 1963.
//! Y. Shoham, A. Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988.

use std::cmp::Reverse;

/// A layer at one width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The harm done; finite.
    pub error: f64,
    /// What it takes of the budget.
    pub cost: u64,
}

/// The width of every layer, by its place, with which the error is least and the cost at most `budget`.
pub fn least_error(layers: &[Vec<Choice>], budget: u64) -> Option<Vec<usize>> {
    let mut path = Path::new(layers)?;
    let mut left = i128::from(budget) - path.cost();
    if left < 0 {
        return None;
    }
    let mut stopped = vec![false; layers.len()];
    for step in path.steps() {
        let needed = path.extra(step.layer, step.to);
        stopped[step.layer] |= needed > left;
        if !stopped[step.layer] {
            path.chosen[step.layer] = step.to;
            left -= needed;
        }
    }
    for (layer, choices) in layers.iter().enumerate() {
        let fits = (0..choices.len()).filter(|&to| path.extra(layer, to) <= left);
        if let Some(best) = fits.min_by(|&a, &b| choices[a].error.total_cmp(&choices[b].error)) {
            left -= path.extra(layer, best);
            path.chosen[layer] = best;
        }
    }
    Some(path.chosen)
}

/// The width of every layer, by its place, with which the cost is least and the error at most `limit`.
pub fn cheapest(layers: &[Vec<Choice>], limit: f64) -> Option<Vec<usize>> {
    let mut path = Path::new(layers)?;
    for step in path.steps() {
        if path.error() <= limit {
            break;
        }
        path.chosen[step.layer] = step.to;
    }
    if path.error() > limit {
        return None;
    }
    let saved = |path: &Path<'_>, layer: usize| -path.extra(layer, cheapest_of(&layers[layer]));
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by_key(|&layer| Reverse(saved(&path, layer)));
    for layer in order {
        let mut cheaper: Vec<usize> = (0..layers[layer].len()).filter(|&to| path.extra(layer, to) < 0).collect();
        cheaper.sort_by_key(|&to| layers[layer][to].cost);
        let before = path.chosen[layer];
        for to in cheaper {
            path.chosen[layer] = to;
            if path.error() <= limit {
                break;
            }
            path.chosen[layer] = before;
        }
    }
    Some(path.chosen)
}

/// Every layer at one of its widths.
struct Path<'a> {
    layers: &'a [Vec<Choice>],
    chosen: Vec<usize>,
}

/// A layer climbs its hull.
struct Step {
    layer: usize,
    to: usize,
    /// Error saved for the cost.
    slope: f64,
}

impl<'a> Path<'a> {
    /// All layers at their cheapest.
    fn new(layers: &'a [Vec<Choice>]) -> Option<Self> {
        let usable = |choices: &Vec<Choice>| !choices.is_empty() && choices.iter().all(|c| c.error.is_finite());
        layers.iter().all(usable).then(|| Self { layers, chosen: layers.iter().map(|l| cheapest_of(l)).collect() })
    }

    /// The steps of all hulls, in the order in which they are to be taken.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (layer, choices) in self.layers.iter().enumerate() {
            let hull = hull(choices);
            let pairs = hull.windows(2);
            steps.extend(pairs.map(|pair| Step {
                layer,
                to: pair[1],
                slope: slope(choices[pair[0]], choices[pair[1]]),
            }));
        }
        // Stable: the steps of a layer stay in order, whose slopes fall.
        steps.sort_by(|a, b| b.slope.total_cmp(&a.slope));
        steps
    }

    fn cost(&self) -> i128 {
        self.now().map(|choice| i128::from(choice.cost)).sum()
    }

    fn error(&self) -> f64 {
        self.now().map(|choice| choice.error).sum()
    }

    fn now(&self) -> impl Iterator<Item = Choice> {
        self.layers.iter().zip(&self.chosen).map(|(choices, &at)| choices[at])
    }

    /// What it costs to move a layer.
    fn extra(&self, layer: usize, to: usize) -> i128 {
        let choices = &self.layers[layer];
        i128::from(choices[to].cost) - i128::from(choices[self.chosen[layer]].cost)
    }
}

/// The cheapest point; of equals the one with less error.
fn cheapest_of(choices: &[Choice]) -> usize {
    let order = |&a: &usize, &b: &usize| {
        choices[a].cost.cmp(&choices[b].cost).then(choices[a].error.total_cmp(&choices[b].error))
    };
    (0..choices.len()).min_by(order).unwrap_or(0)
}

/// The lower convex hull of a layer's points, from the cheapest to the most exact.
fn hull(choices: &[Choice]) -> Vec<usize> {
    let mut hull = vec![cheapest_of(choices)];
    loop {
        let at = choices[hull[hull.len() - 1]];
        let better = (0..choices.len()).filter(|&to| choices[to].cost > at.cost && choices[to].error < at.error);
        // Of equal slopes the nearest: smaller steps fit more budgets.
        let order = |&a: &usize, &b: &usize| {
            slope(at, choices[a]).total_cmp(&slope(at, choices[b])).then(choices[b].cost.cmp(&choices[a].cost))
        };
        match better.max_by(order) {
            Some(next) => hull.push(next),
            None => return hull,
        }
    }
}

/// Error saved for the cost; `to` costs more.
fn slope(from: Choice, to: Choice) -> f64 {
    (from.error - to.error) / (to.cost - from.cost) as f64
}

#[cfg(test)]
#[path = "allocation_tests.rs"]
mod tests;
