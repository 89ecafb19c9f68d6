//! Decides whether samples of different shapes share one plan.
//!
//! A plan for concrete shapes takes about 0.1 s to prepare and runs fastest. One with symbolic
//! dimensions is prepared once but does not exist for every model; it runs a transformer a third
//! slower and convolutions so much slower (30 -> 150 ms) that preparing a plan for every single
//! sample is no worse.

use std::collections::{BTreeSet, HashMap};

use crate::engine::contract::Shapes;

/// How plans are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// A plan for every distinct set of shapes.
    Concrete,
    /// One plan; by input and axis, the number of a symbol or nothing for a fixed axis.
    Symbolic(Vec<Vec<Option<usize>>>),
}

/// Up to this many plans are kept.
pub(crate) const KEPT_PLANS: usize = 4;
/// Samples that every shape must have on average for plans of their own to pay off where there
/// are no convolutions: preparing costs as much as symbolic dimensions add to some 16 runs.
const PAYS: usize = 16;

/// Chooses for a data set. The choice depends on the shapes alone, not on time measured, so
/// that results are the same every time.
pub(crate) fn choose(samples: &[Shapes], has_convolutions: bool) -> Strategy {
    let distinct = distinct(samples).len();
    if has_convolutions || distinct <= KEPT_PLANS || distinct * PAYS <= samples.len() {
        return Strategy::Concrete;
    }
    symbols(samples).map_or(Strategy::Concrete, Strategy::Symbolic)
}

/// The distinct shapes, in order.
pub(crate) fn distinct(samples: &[Shapes]) -> BTreeSet<&Shapes> {
    samples.iter().collect()
}

/// Gives the axes that vary a symbol; axes that are equal in all samples share one. `None` if
/// ranks vary.
fn symbols(samples: &[Shapes]) -> Option<Vec<Vec<Option<usize>>>> {
    let first = samples.first()?;
    let mut by_lengths: HashMap<Vec<usize>, usize> = HashMap::new();
    let mut inputs = Vec::with_capacity(first.len());
    for (input, shape) in first.iter().enumerate() {
        if samples.iter().any(|s| s[input].len() != shape.len()) {
            return None;
        }
        let mut axes = Vec::with_capacity(shape.len());
        for axis in 0..shape.len() {
            let lengths: Vec<usize> = samples.iter().map(|s| s[input][axis]).collect();
            let varies = lengths.iter().any(|&n| n != lengths[0]);
            let next = by_lengths.len();
            axes.push(varies.then(|| *by_lengths.entry(lengths).or_insert(next)));
        }
        inputs.push(axes);
    }
    Some(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_shapes_get_plans_of_their_own() {
        let samples: Vec<Shapes> = (0..100).map(|i| vec![vec![1, i % 4]]).collect();
        assert_eq!(choose(&samples, false), Strategy::Concrete);
        let samples: Vec<Shapes> = (0..100).map(|i| vec![vec![1, i % 20]]).collect();
        assert_eq!(choose(&samples, true), Strategy::Concrete, "convolutions");
        assert_eq!(choose(&samples, false), Strategy::Symbolic(vec![vec![None, Some(0)]]));
    }

    #[test]
    fn axes_that_vary_together_share_a_symbol() {
        let samples: Vec<Shapes> = (1..9).map(|n| vec![vec![1, n], vec![1, n, 2 * n]]).collect();
        let expected = vec![vec![None, Some(0)], vec![None, Some(0), Some(1)]];
        assert_eq!(choose(&samples, false), Strategy::Symbolic(expected));
    }

    #[test]
    fn varying_ranks_have_no_symbolic_plan() {
        let samples: Vec<Shapes> = (1..9).map(|n| vec![vec![1; n]]).collect();
        assert_eq!(choose(&samples, false), Strategy::Concrete);
    }
}
