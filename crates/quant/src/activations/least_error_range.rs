//! The range of least expected squared error.
//!
//! # Problem
//!
//! Minimise the error of [`expected_square_error`] over the scale `s` and the zero point
//! `z`: rounding costs about `s^2 / 12` for a value inside the range, clipping the squared
//! distance to it. Both ends are free if the tensor has values of both signs and the codes
//! have a zero point; else there is one unknown.
//!
//! # Method
//!
//! With `s` given, the halves of the axis do not see each other: `z` of the levels are
//! below zero and `255 - z` above. One sweep over the levels of a half yields its error for
//! every number of levels, so that the best `z` for an `s` is found exactly, by comparing
//! all sums. What remains is a search over `s` alone: 97 scales from that of the whole
//! range down to its 4096th part, eight an octave, then two rounds of 16 around the best
//! one, each with an eighth of the spacing. Scales are rounded to `f32` before they are
//! judged.
//!
//! # Guarantee
//!
//! Never worse than the whole range, by the same measure.
//!
//! # Cost
//!
//! About 130 sweeps over at most 512 levels, together one to two milliseconds.
//!
//! # Failure
//!
//! None. Of ranges with equal errors the widest stays.
//!
//! [`expected_square_error`]: crate::expected_square_error

use crate::activations::density::Density;
use crate::activations::grid::{ActivationGrid, ActivationParams};
use crate::activations::histogram::Histogram;
use std::ops::RangeInclusive;

const OCTAVES: i32 = 12;
const STEPS_PER_OCTAVE: i32 = 8;
/// How much finer each round is.
const REFINEMENT: i32 = 8;
const ROUNDS: u32 = 2;

pub(crate) fn choose(histogram: &Histogram, grid: ActivationGrid) -> (f32, f32) {
    let search = Search::new(histogram, grid);
    let whole = (histogram.min(), histogram.max());
    let best = search.best(ActivationParams::from_range(whole.0, whole.1, grid).scale());
    let error = |(lower, upper)| search.density.square_error(ActivationParams::from_range(lower, upper, grid));
    let found = search.range(best);
    if error(found) < error(whole) { found } else { whole }
}

/// One scale with the best number of levels below zero.
#[derive(Clone, Copy)]
struct Candidate {
    error: f64,
    scale: f32,
    below: usize,
}

struct Search {
    density: Density,
    /// How many levels may be below zero.
    below: RangeInclusive<usize>,
    /// Levels below and above zero together.
    levels: usize,
}

impl Search {
    fn new(histogram: &Histogram, grid: ActivationGrid) -> Search {
        let density = Density::new(histogram);
        let levels = (grid.max_code() - grid.min_code()) as usize;
        let symmetric = grid.min_code().unsigned_abs() as usize;
        let below = match grid.is_symmetric() {
            true => symmetric..=symmetric,
            false if density.negative.is_empty() => 0..=0,
            false if density.positive.is_empty() => levels..=levels,
            false => 0..=levels,
        };
        Search { density, below, levels }
    }

    fn best(&self, widest: f32) -> Candidate {
        let shrunk = |base: f32, steps: i32, per_octave: i32| {
            let factor = (-f64::from(steps) / f64::from(per_octave)).exp2();
            self.at((f64::from(base) * factor).clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX)) as f32)
        };
        let mut best = self.at(widest);
        for steps in 1..=OCTAVES * STEPS_PER_OCTAVE {
            best = better(best, shrunk(widest, steps, STEPS_PER_OCTAVE));
        }
        for round in 1..=ROUNDS {
            let (center, per_octave) = (best.scale, STEPS_PER_OCTAVE * REFINEMENT.pow(round));
            for steps in -REFINEMENT..=REFINEMENT {
                best = better(best, shrunk(center, steps, per_octave));
            }
        }
        best
    }

    fn at(&self, scale: f32) -> Candidate {
        let (fewest, most) = (*self.below.start(), *self.below.end());
        let negative = self.density.negative.square_errors(f64::from(scale), most);
        let positive = self.density.positive.square_errors(f64::from(scale), self.levels - fewest);
        let candidates = self.below.clone().map(|below| {
            let error = negative[below] + positive[self.levels - below];
            Candidate { error, scale, below }
        });
        candidates.reduce(better).expect("at least one number of levels is allowed")
    }

    fn range(&self, found: Candidate) -> (f32, f32) {
        let real = |levels: usize| ((f64::from(found.scale) * levels as f64) as f32).min(f32::MAX);
        (-real(found.below), real(self.levels - found.below))
    }
}

/// The one with less error; of equals the first.
fn better(first: Candidate, second: Candidate) -> Candidate {
    if second.error < first.error { second } else { first }
}

#[cfg(test)]
#[path = "least_error_range_tests.rs"]
mod tests;
