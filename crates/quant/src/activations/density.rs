//! What rounding to a grid is expected to cost, from a histogram alone.
//!
//! # Problem
//!
//! The mean of `(x - q(x))^2` over all values of a tensor, for any scale and zero point,
//! without the values: `q(x) = scale * (clamp(round(x / scale) + zero_point) - zero_point)`.
//!
//! # Method
//!
//! The values of a bin are taken as spread evenly over it; the outermost bins end at the
//! least and the greatest value. Zeros cost nothing. Each half of the axis is cut where
//! the nearest level changes, at odd multiples of `scale / 2`; the cell around the level
//! `l` costs
//!
//! ```text
//! S2 - 2 l S1 + l^2 S0,        S_p = sum of |x|^p over the cell,
//! ```
//!
//! and the last cell reaches to infinity, which makes the cost of clipping a part of the
//! same sum. `S_p` is the difference of two values of a cumulated sum, which is known at
//! every bin's edge and has a closed form inside a bin.
//!
//! # Guarantee
//!
//! Exact for the even spread. The true error differs from it by what the values inside a
//! bin differ from even; a bin is between a quarter and an eighth of a step where the
//! grid covers the range of a one-sided tensor.
//!
//! # Numerics
//!
//! Cumulated sums start at zero, in `f64`: a cell at the level `l` loses a fraction
//! `l^2 / scale^2 < 2^16` of the precision, which leaves more than ten digits.
//!
//! # Cost
//!
//! O(bins) once, then O(levels) for each scale: some microseconds.
//!
//! # Failure
//!
//! None. Without values everything is 0.

use crate::activations::grid::ActivationParams;
use crate::activations::histogram::Histogram;
use std::ops::Sub;

/// Mean squared difference between a value and what its code stands for, as far as the
/// histogram tells: see the module `density`.
pub fn expected_square_error(histogram: &Histogram, params: ActivationParams) -> f64 {
    Density::new(histogram).square_error(params)
}

/// Mean square of the values, as far as the histogram tells. Divided by
/// [`expected_square_error`] it is the ratio of signal to rounding noise.
pub fn signal_power(histogram: &Histogram) -> f64 {
    Density::new(histogram).power()
}

/// Both halves of a distribution.
pub(crate) struct Density {
    /// Magnitudes of the negative values.
    pub(crate) negative: Half,
    pub(crate) positive: Half,
    /// Of all values, zeros too; at least 1.
    count: f64,
}

impl Density {
    pub(crate) fn new(histogram: &Histogram) -> Density {
        let width = f64::from(histogram.bin_width());
        Density {
            negative: Half::new(width, -f64::from(histogram.min()), histogram.negative()),
            positive: Half::new(width, f64::from(histogram.max()), histogram.positive()),
            count: histogram.count().max(1) as f64,
        }
    }

    pub(crate) fn square_error(&self, params: ActivationParams) -> f64 {
        let (below, above) = params.levels_around_zero();
        let scale = f64::from(params.scale());
        let sum = self.negative.square_error(scale, below) + self.positive.square_error(scale, above);
        sum / self.count
    }

    fn power(&self) -> f64 {
        (self.negative.total().square + self.positive.total().square) / self.count
    }
}

/// Count, sum and sum of squares of some magnitudes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moments {
    pub(crate) count: f64,
    sum: f64,
    square: f64,
}

impl Moments {
    /// Of `count` magnitudes spread evenly over `from..to`.
    fn even(count: f64, from: f64, to: f64) -> Moments {
        let square = (from * from + from * to + to * to) / 3.0;
        Moments { count, sum: count * (from + to) / 2.0, square: count * square }
    }

    fn add(self, other: Moments) -> Moments {
        Moments { count: self.count + other.count, sum: self.sum + other.sum, square: self.square + other.square }
    }

    /// Sum of squared distances from `level`.
    fn around(self, level: f64) -> f64 {
        (self.square - 2.0 * level * self.sum + level * level * self.count).max(0.0)
    }
}

impl Sub for Moments {
    type Output = Moments;

    fn sub(self, other: Moments) -> Moments {
        Moments { count: self.count - other.count, sum: self.sum - other.sum, square: self.square - other.square }
    }
}

/// The magnitudes on one side of zero.
pub(crate) struct Half {
    width: f64,
    /// The greatest magnitude.
    end: f64,
    counts: Vec<f64>,
    /// Of the bins before each bin, and of all.
    cumulated: Vec<Moments>,
}

impl Half {
    fn new(width: f64, end: f64, counts: &[u64]) -> Half {
        let counts: Vec<f64> = counts.iter().map(|count| *count as f64).collect();
        let mut half = Half { width, end, cumulated: vec![Moments::default(); counts.len() + 1], counts };
        for i in 0..half.counts.len() {
            let (from, to) = half.edges(i);
            half.cumulated[i + 1] = half.cumulated[i].add(Moments::even(half.counts[i], from, to));
        }
        half
    }

    /// Whether no value is on this side.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(crate) fn total(&self) -> Moments {
        self.cumulated[self.counts.len()]
    }

    fn edges(&self, bin: usize) -> (f64, f64) {
        let from = bin as f64 * self.width;
        (from, (from + self.width).min(self.end))
    }

    /// Of the magnitudes below `limit`.
    fn below(&self, limit: f64) -> Moments {
        if limit >= self.end {
            return self.total();
        }
        let bin = (limit / self.width) as usize;
        let (from, to) = self.edges(bin);
        let count = self.counts[bin] * ((limit - from) / (to - from));
        self.cumulated[bin].add(Moments::even(count, from, limit))
    }

    /// The limit above which `tail` values are; 0 if there are not so many.
    pub(crate) fn limit_of_tail(&self, tail: f64) -> f64 {
        let below = self.total().count - tail;
        if tail <= 0.0 || below <= 0.0 {
            return if below > 0.0 { self.end } else { 0.0 };
        }
        let bin = self.cumulated.partition_point(|moments| moments.count < below).saturating_sub(1);
        let (from, to) = self.edges(bin);
        from + (to - from) * (below - self.cumulated[bin].count) / self.counts[bin]
    }

    /// Sum of squared errors with the levels `0, scale, ..., levels * scale`.
    fn square_error(&self, scale: f64, levels: usize) -> f64 {
        self.square_errors(scale, levels).last().copied().unwrap_or(0.0)
    }

    /// The same for every number of levels from 0 to `most_levels`.
    pub(crate) fn square_errors(&self, scale: f64, most_levels: usize) -> Vec<f64> {
        let mut errors = Vec::with_capacity(most_levels + 1);
        let (mut inner, mut inner_error) = (Moments::default(), 0.0);
        for level in 0..=most_levels {
            let real = level as f64 * scale;
            errors.push(inner_error + (self.total() - inner).around(real));
            let limit = real + scale / 2.0;
            if limit >= self.end {
                break; // All further levels are beyond the last value.
            }
            let outer = self.below(limit);
            inner_error += (outer - inner).around(real);
            inner = outer;
        }
        let last = errors.last().copied().unwrap_or(0.0);
        errors.resize(most_levels + 1, last);
        errors
    }
}
