//! The power of a sound's frequencies, and its sums in bands.

use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

/// Takes the frequencies of frames.
pub(super) struct Spectrum {
    /// What samples are multiplied by.
    window: Vec<f64>,
    length: usize,
    fft: Arc<dyn Fft<f64>>,
}

impl std::fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spectrum").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Spectrum {
    /// Of frames as long as the window, which zeros fill up to `length` samples.
    pub(super) fn new(window: Vec<f64>, length: usize) -> Self {
        Self { window, length, fft: FftPlanner::new().plan_fft_forward(length) }
    }

    /// The power of each of `length / 2 + 1` frequencies in one frame.
    pub(super) fn powers(&self, frame: impl Iterator<Item = f64>) -> Vec<f64> {
        let windowed = frame.zip(&self.window).map(|(sample, weight)| Complex::new(sample * weight, 0.0));
        let mut values: Vec<Complex<f64>> = windowed.collect();
        values.resize(self.length, Complex::default());
        self.fft.process(&mut values);
        values.iter().take(self.length / 2 + 1).map(Complex::norm_sqr).collect()
    }
}

/// Triangular bands: of each the first frequency that counts, and the weights from there.
#[derive(Debug)]
pub(super) struct Bands(Vec<(usize, Vec<f64>)>);

impl Bands {
    /// Band `k` rises from edge `k` to edge `k + 1` and falls to edge `k + 2`; `places` are those of the frequencies between the
    /// edges. The weights are multiplied by `height` of the band's width.
    pub(super) fn new(edges: &[f64], places: &[f64], height: impl Fn(f64) -> f64) -> Self {
        let band = |edges: &[f64]| {
            let [low, middle, high] = edges else { return (0, Vec::new()) };
            let weight = |place: &f64| {
                let (rising, falling) = ((place - low) / (middle - low), (high - place) / (high - middle));
                rising.min(falling).max(0.0) * height(high - low)
            };
            let weights: Vec<f64> = places.iter().map(weight).collect();
            let first = weights.iter().position(|&weight| weight > 0.0).unwrap_or(0);
            let end = weights.iter().rposition(|&weight| weight > 0.0).map_or(first, |last| last + 1);
            (first, weights.get(first..end).unwrap_or_default().to_vec())
        };
        Self(edges.windows(3).map(band).collect())
    }

    /// The power in every band.
    pub(super) fn sums<'a>(&'a self, powers: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.0
            .iter()
            .map(|(first, weights)| powers.iter().skip(*first).zip(weights).map(|(power, weight)| power * weight).sum())
    }
}
