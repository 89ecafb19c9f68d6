//! Evens out the channels of an activation that is stored on one fixed scale.
//!
//! # Problem
//!
//! As in `migration.rs`: divide channel k of a value by `d_k > 0`, multiply the weights that read it. Here the scale of
//! the value is fixed, the layers may be convolutions, and what makes the value takes the division, which costs
//! nothing: each of its outputs has a weight scale of its own. In a depthwise layer, whose outputs read one channel
//! each, the multiplication costs nothing either.
//!
//! # Shapes and units
//!
//! `d`: one factor an input channel, geometric mean 1.
//!
//! # Method
//!
//! Factors of the form `range_k^a / weight_k^(1 - a)`, the exponent `a` of least expected squared error of the outputs,
//! at one position and up to what all exponents share:
//!
//! ```text
//! step^2 * sum_k d_k^2 |W_k|^2   +   sum_m step_m^2 * sum_(k read by m) P E[x_k^2] / d_k^2
//! ```
//!
//! with `step` the range of all samples and channels by 255, `step_m` the largest weight of output `m` by 127 and `P`
//! kernel positions.
//!
//! The smaller channels are taken for larger than they were seen ([`HEADROOM`], [`MOST_GAIN`]): one that the calibration
//! samples hardly excite would else be clipped by the first input that does.
//!
//! # Cost
//!
//! O(weights) once, O(M K A) for M outputs, K channels and A exponents.
//!
//! # References
//!
//! Nagel et al., *Data-free quantization through weight equalization and bias correction*, arXiv 1906.04721.

use crate::activations::migration::{ChannelRanges, factors};
use crate::layer::view::MatrixView;

/// Exponents that are tried.
const EXPONENTS: [f64; 6] = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Factors must leave at most this part of the expected error.
const WORTHWHILE: f64 = 0.8;
/// A channel that is made larger must have room for values so many times as large as those seen.
const HEADROOM: f64 = 4.0;
/// No channel is made more than so many times as large beside the largest: what a nearly silent one can hold was hardly
/// seen.
const MOST_GAIN: f64 = 2.0;

/// Factors for a value, and what they leave of the expected error of its readers.
#[derive(Clone, Debug, PartialEq)]
pub struct Equalization {
    /// By channel.
    pub factors: Vec<f32>,
    /// The expected squared error over that without factors.
    pub error_left: f64,
}

/// What the error of a layer depends on.
struct Layer {
    /// By output and channel that it reads: the largest magnitude of a weight.
    peaks: Vec<Vec<(usize, f64)>>,
    /// By channel: sum of squared weights.
    gains: Vec<f64>,
    positions: f64,
}

impl Layer {
    fn new(view: &MatrixView, weights: &[f32]) -> Layer {
        let (channels, positions) = (view.in_channels(), view.positions());
        let outputs = view.groups() * view.outputs();
        let mut layer =
            Layer { peaks: vec![Vec::new(); outputs], gains: vec![0.0; channels], positions: positions as f64 };
        let mut peaks = vec![std::collections::BTreeMap::<usize, f64>::new(); outputs];
        for (index, &weight) in weights.iter().enumerate() {
            let (channel, output) = view.channel_and_output(index);
            let magnitude = f64::from(weight).abs();
            layer.gains[channel] += magnitude * magnitude;
            let peak = peaks[output].entry(channel).or_insert(0.0);
            *peak = peak.max(magnitude);
        }
        layer.peaks = peaks.into_iter().map(|peaks| peaks.into_iter().collect()).collect();
        layer
    }

    /// Up to a common factor.
    fn expected_error(&self, square_step: f64, mean_squares: &[f64], factors: &[f64]) -> f64 {
        let activations: f64 = self.gains.iter().zip(factors).map(|(gain, d)| gain * d * d).sum();
        let of_output = |peaks: &Vec<(usize, f64)>| {
            let largest = peaks.iter().map(|(k, peak)| peak * factors[*k]).fold(0.0, f64::max);
            let signal: f64 = peaks.iter().map(|(k, _)| mean_squares[*k] / (factors[*k] * factors[*k])).sum();
            (largest / 127.0).powi(2) * signal * self.positions
        };
        square_step * activations + self.peaks.iter().map(of_output).sum::<f64>()
    }
}

/// The factors for a value that only these layers, with weights as their operators have them, read; `None` where none
/// is worth it.
pub fn equalization_factors(ranges: &ChannelRanges, layers: &[(&MatrixView, &[f32])]) -> Option<Equalization> {
    let channels = ranges.channels();
    let layers: Vec<Layer> = layers.iter().map(|(view, weights)| Layer::new(view, weights)).collect();
    if channels == 0 || layers.is_empty() || layers.iter().any(|layer| layer.gains.len() != channels) {
        return None;
    }
    let mut rows = vec![0.0f64; channels];
    for (channel, peak) in layers.iter().flat_map(|layer| layer.peaks.iter().flatten()) {
        rows[*channel] = rows[*channel].max(*peak);
    }
    let mean_squares = ranges.mean_squares();
    let error = |factors: &[f64]| {
        let square_step = ranges.step(factors).powi(2);
        layers.iter().map(|layer| layer.expected_error(square_step, &mean_squares, factors)).sum::<f64>()
    };
    let plain = error(&vec![1.0; channels]);
    let magnitudes = with_headroom(&ranges.magnitudes());
    let tried = EXPONENTS.map(|exponent| {
        let factors = factors(&magnitudes, &rows, exponent);
        (error(&factors), factors)
    });
    let (least, factors) = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    let factors = factors.into_iter().map(|d| d as f32).collect();
    (least < WORTHWHILE * plain).then_some(Equalization { factors, error_left: least / plain })
}

/// The magnitudes that channels are taken to have: those of the smaller ones with room for values not seen.
fn with_headroom(magnitudes: &[f64]) -> Vec<f64> {
    let largest = magnitudes.iter().copied().fold(0.0, f64::max);
    magnitudes.iter().map(|own| (HEADROOM * own).max(largest / MOST_GAIN).min(largest)).collect()
}

#[cfg(test)]
#[path = "equalization_tests.rs"]
mod tests;
