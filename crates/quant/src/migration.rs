//! Moves the spread of activations into the weights, channel by channel.
//!
//! # Problem
//!
//! A layer computes `x W`. With one scale for all K channels of `x`, the widest channel sets the step of all. Since
//! `x W = (x / d) (diag(d) W)` for any positive `d`, wide channels can be made narrow at the price of larger weights
//! in their rows. Which `d` leaves the least error?
//!
//! # Shapes and units
//!
//! `d`: K factors, geometric mean 1. Ranges and weights in their own units.
//!
//! # Method
//!
//! For each exponent `a` of a grid, `d_k = range_k^a / weight_k^(1 - a)` with the largest magnitudes of the channel and
//! of its row of weights. Of all and of `d = 1` the one with the least expected squared error of the output,
//!
//! ```text
//! mean_s step_s^2 / 12 * sum_k d_k^2 |W_k|^2   +   sum_m step_m^2 / 12 * sum_k E[x_k^2] / d_k^2
//! ```
//!
//! where `step_s` is the range of sample `s` over all channels by 255 and `step_m` the largest weight of output `m` by
//! 127: rounding errors of activations and of weights, each uniform and independent.
//!
//! # Cost
//!
//! O((S K + K M) A) for S samples, M outputs and A exponents.
//!
//! # References
//!
//! Xiao et al., *SmoothQuant*, arXiv 2211.10438 (the form of `d`); Nagel et al., *Data-free quantization through weight
//! equalization and bias correction*, arXiv 1906.04721.

use ndarray::{ArrayD, ArrayView2, Axis};

/// The channels of one value over the calibration samples; a channel is an index of the last axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelRanges {
    /// Smallest value of each channel or 0, sample by sample.
    lowest: Vec<Vec<f32>>,
    /// Largest value of each channel or 0, sample by sample.
    highest: Vec<Vec<f32>>,
    /// Sum of squares of each channel.
    squares: Vec<f64>,
    rows: usize,
}

impl ChannelRanges {
    /// Takes in the values of one sample.
    pub fn push(&mut self, sample: &ArrayD<f32>) {
        let Some(last) = sample.ndim().checked_sub(1) else { return };
        let channels = sample.len_of(Axis(last));
        let (mut lowest, mut highest) = (vec![0.0f32; channels], vec![0.0f32; channels]);
        self.squares.resize(channels, 0.0);
        for row in sample.lanes(Axis(last)) {
            self.rows += 1;
            for (k, &x) in row.iter().enumerate() {
                lowest[k] = lowest[k].min(x);
                highest[k] = highest[k].max(x);
                self.squares[k] += f64::from(x) * f64::from(x);
            }
        }
        self.lowest.push(lowest);
        self.highest.push(highest);
    }

    /// The largest magnitude of each channel.
    fn magnitudes(&self) -> Vec<f64> {
        let of = |k: usize| {
            let largest = self.lowest.iter().zip(&self.highest).map(|(low, high)| high[k].max(-low[k]));
            f64::from(largest.fold(0.0, f32::max))
        };
        (0..self.squares.len()).map(of).collect()
    }

    /// The mean over samples of the squared step of one scale for all channels divided by `factors`.
    fn mean_square_step(&self, factors: &[f64]) -> f64 {
        let step = |low: &Vec<f32>, high: &Vec<f32>| {
            let end = |ends: &Vec<f32>, pick: fn(f64, f64) -> f64| {
                ends.iter().zip(factors).map(|(&x, d)| f64::from(x) / d).fold(0.0, pick)
            };
            (end(high, f64::max) - end(low, f64::min)) / 255.0
        };
        let steps = self.lowest.iter().zip(&self.highest).map(|(low, high)| step(low, high).powi(2));
        steps.sum::<f64>() / self.lowest.len().max(1) as f64
    }
}

/// Exponents that are tried.
const EXPONENTS: [f64; 9] = [0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0];
/// Factors must leave at most this part of the error: they may cost a multiplication at run time.
const WORTHWHILE: f64 = 0.6;

/// The factors `d` for the layers with these weights `[K, M]`, which all read the value; `None` where none is worth it.
pub fn migration_factors(ranges: &ChannelRanges, weights: &[ArrayView2<'_, f32>]) -> Option<Vec<f32>> {
    let k = ranges.squares.len();
    if k == 0 || weights.iter().any(|weights| weights.nrows() != k) {
        return None;
    }
    let magnitudes = ranges.magnitudes();
    let rows: Vec<f64> = (0..k).map(|k| largest(weights.iter().flat_map(|weights| weights.row(k)))).collect();
    let error = |factors: &[f64]| expected_error(ranges, weights, factors);
    let plain = error(&vec![1.0; k]);
    let tried = EXPONENTS.map(|exponent| {
        let factors = factors(&magnitudes, &rows, exponent);
        (error(&factors), factors)
    });
    let (least, factors) = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    (least < WORTHWHILE * plain).then(|| factors.into_iter().map(|d| d as f32).collect())
}

fn largest<'a>(numbers: impl Iterator<Item = &'a f32>) -> f64 {
    f64::from(numbers.fold(0.0f32, |largest, x| largest.max(x.abs())))
}

/// `range^a / weight^(1 - a)`, geometric mean 1; channels that are never used keep 1.
fn factors(magnitudes: &[f64], rows: &[f64], exponent: f64) -> Vec<f64> {
    let logarithm =
        |(x, w): (&f64, &f64)| (*x > 0.0 && *w > 0.0).then(|| exponent * x.ln() - (1.0 - exponent) * w.ln());
    let logarithms: Vec<Option<f64>> = magnitudes.iter().zip(rows).map(logarithm).collect();
    let used = logarithms.iter().flatten().count().max(1);
    let mean = logarithms.iter().flatten().sum::<f64>() / used as f64;
    // Far beyond what real channels need, and safe in f32.
    logarithms.iter().map(|log| log.map_or(1.0, |log| (log - mean).clamp(-12.0, 12.0).exp())).collect()
}

fn expected_error(ranges: &ChannelRanges, weights: &[ArrayView2<'_, f32>], factors: &[f64]) -> f64 {
    let mean_squares: f64 =
        ranges.squares.iter().zip(factors).map(|(square, d)| square / ranges.rows.max(1) as f64 / (d * d)).sum();
    let (mut gain, mut steps) = (0.0, 0.0);
    for weights in weights {
        let mut largest = vec![0.0f64; weights.ncols()];
        for (row, d) in weights.rows().into_iter().zip(factors) {
            for (largest, &w) in largest.iter_mut().zip(row) {
                let scaled = f64::from(w) * d;
                gain += scaled * scaled;
                *largest = largest.max(scaled.abs());
            }
        }
        steps += largest.iter().map(|largest| (largest / 127.0).powi(2)).sum::<f64>();
    }
    (ranges.mean_square_step(factors) * gain + steps * mean_squares) / 12.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gaussian_rows;
    use ndarray::Array2;

    fn ranges(rows: &Array2<f32>) -> ChannelRanges {
        let mut ranges = ChannelRanges::default();
        rows.axis_chunks_iter(Axis(0), 10).for_each(|sample| ranges.push(&sample.to_owned().into_dyn()));
        ranges
    }

    /// Squared error of `x W` with 8-bit codes for x (per sample of 10 rows) and W (per output).
    fn measured(rows: &Array2<f32>, weights: &Array2<f32>, factors: &[f32]) -> f64 {
        let round = |values: &mut [f32], step: f32| values.iter_mut().for_each(|x| *x = (*x / step).round() * step);
        let mut scaled = Array2::from_shape_fn(weights.dim(), |(k, m)| weights[[k, m]] * factors[k]);
        for mut column in scaled.columns_mut() {
            let step = column.iter().fold(0.0f32, |largest, w| largest.max(w.abs())) / 127.0;
            column.mapv_inplace(|w| (w / step).round() * step);
        }
        let mut error = 0.0;
        for sample in rows.axis_chunks_iter(Axis(0), 10) {
            let mut x = Array2::from_shape_fn(sample.dim(), |(i, k)| sample[[i, k]] / factors[k]);
            let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), x| (low.min(*x), high.max(*x)));
            round(x.as_slice_mut().unwrap(), (high - low) / 255.0);
            error += (x.dot(&scaled) - sample.dot(weights)).iter().map(|e| f64::from(*e).powi(2)).sum::<f64>();
        }
        error
    }

    #[test]
    fn an_outlier_channel_is_moved_into_the_weights() {
        let mut rows = gaussian_rows(200, 24, 1);
        rows.column_mut(5).mapv_inplace(|x| 60.0 * x);
        let weights = gaussian_rows(24, 16, 2);
        let factors = migration_factors(&ranges(&rows), &[weights.view()]).unwrap();
        let product: f64 = factors.iter().map(|d| f64::from(d.ln())).sum();
        assert!(product.abs() < 1e-3 && factors[5] > 4.0 * factors[4]);
        let (before, after) = (measured(&rows, &weights, &[1.0; 24]), measured(&rows, &weights, &factors));
        assert!(after < 0.3 * before, "{after} {before}");
    }

    #[test]
    fn the_expected_error_is_the_measured_one() {
        let rows = gaussian_rows(400, 32, 3);
        let weights = gaussian_rows(32, 20, 4);
        let expected = expected_error(&ranges(&rows), &[weights.view()], &[1.0; 32]) * 400.0;
        let ratio = measured(&rows, &weights, &[1.0; 32]) / expected;
        assert!((0.8..1.25).contains(&ratio), "{ratio}");
    }

    #[test]
    fn even_channels_dead_channels_and_no_data_are_left_alone() {
        let weights = gaussian_rows(12, 8, 6);
        assert!(migration_factors(&ranges(&gaussian_rows(100, 12, 5)), &[weights.view()]).is_none());
        assert!(migration_factors(&ranges(&Array2::zeros((20, 12))), &[weights.view()]).is_none());
        assert!(migration_factors(&ChannelRanges::default(), &[weights.view()]).is_none());
    }
}
