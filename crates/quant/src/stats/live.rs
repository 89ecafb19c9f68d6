//! Which inputs of a layer move at all.
//!
//! An input counts as dead if its diagonal is below `1e-12` of the largest, or below `4 f32::EPSILON` of its own mean
//! square: sums formed in `f32` cannot tell it from a constant.

use crate::stats::gram::GramStats;

/// A diagonal below this fraction of the largest means a dead input.
const DEAD: f64 = 1e-12;
/// A variance below this fraction of the mean square is rounding noise.
const CONSTANT: f64 = 4.0 * f32::EPSILON as f64;

/// The elements of `H`, less those of the means where the form is `centred`.
pub(crate) fn entries(stats: &GramStats, centred: bool) -> Option<impl Fn(usize, usize) -> f64> {
    let (gram, mean) = (stats.gram()?, stats.mean());
    Some(move |i: usize, j: usize| gram[[i, j]] - if centred { mean[i] * mean[j] } else { 0.0 })
}

/// Inputs with variance, by rising diagonal.
pub(crate) fn live_inputs(stats: &GramStats, centred: bool) -> Option<Vec<usize>> {
    let (entry, square) = (entries(stats, centred)?, entries(stats, false)?);
    let largest = (0..stats.k()).fold(0.0f64, |largest, k| largest.max(entry(k, k)));
    let live = |k: &usize| {
        let own = entry(*k, *k);
        own > DEAD * largest && own > CONSTANT * square(*k, *k)
    };
    let mut inputs: Vec<usize> = (0..stats.k()).filter(live).collect();
    inputs.sort_by(|a, b| entry(*a, *a).total_cmp(&entry(*b, *b)).then(b.cmp(a)));
    Some(inputs)
}

/// The inputs that a form leaves out, each with what is left of its size there.
pub(crate) fn dead_inputs(stats: &GramStats, centred: bool) -> Vec<(usize, f64)> {
    let Some((entry, live)) = entries(stats, centred).zip(live_inputs(stats, centred)) else { return Vec::new() };
    let mut is_live = vec![false; stats.k()];
    live.into_iter().for_each(|input| is_live[input] = true);
    let dead = (0..stats.k()).filter(|&input| !is_live[input]);
    dead.map(|input| (input, entry(input, input).max(0.0).sqrt())).filter(|(_, size)| *size > 0.0).collect()
}
