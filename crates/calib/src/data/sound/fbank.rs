//! The logarithm of a sound's power in bands, as Kaldi computes it, for extractors of Hugging Face's transformers.
//!
//! # Method
//! Frames of 25 ms, 10 ms apart, the first at the first sample; what is left at the end is left out. Of each frame `x` of `n`
//! samples the mean is taken off, then
//!
//! ```text
//! y_i = x_i - 0.97 x_(i-1),   y_0 = 0.03 x_0
//! ```
//!
//! and it is multiplied by a symmetric Hann window `w` (`w^0.85` is Povey's) and filled up with zeros to a power of two. Powers
//! of frequencies are summed in bands that are triangles on the mel scale `1127 ln(1 + f / 700)`, from 20 Hz to half the rate.
//! Values are `ln(max(power, 2^-23))`. No noise (dither) is added.
//!
//! Then they are scaled: by a mean and a deviation that the model has, or by those of each band of the sound.
//!
//! # Failure
//! A sound that is shorter than a frame is filled up with zeros. A band that is the same in all frames of a sound has no
//! deviation: it stays 0, where transformers makes it no number.
//!
//! # References
//! `fbank` of Kaldi with its default options, `torchaudio.compliance.kaldi.fbank`, and `spectrogram` of
//! `transformers.audio_utils`, which agree at 16 kHz.

use super::spectrum::{Bands, Spectrum};
use crate::tensor::narrow;

const PREEMPHASIS: f64 = 0.97;
const POVEY: f64 = 0.85;
const LOWEST_HERTZ: f64 = 20.0;
/// Smaller powers count as this: 2^-23.
const LEAST_POWER: f64 = 1.192_092_955_078_125e-07;
/// Frames in a second, and windows.
const HOPS: usize = 100;
const WINDOWS: usize = 40;

/// How values are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FbankSettings {
    pub(crate) bands: usize,
    pub(crate) window: Window,
    /// What the largest sample is: 1, or that of 16 bits.
    pub(crate) full_scale: f64,
    /// Frames of every sound, where all have as many: others are cut off, or filled up with zeros.
    pub(crate) frames: Option<usize>,
    pub(crate) scaling: Scaling,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    Hann,
    Povey,
}

/// What is done to values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// `(x - mean) / (2 deviation)`, of the zeros behind a sound, too.
    Model {
        mean: f64,
        deviation: f64,
    },
    /// Each band of a sound gets the mean 0, the deviation 1, or both; the zeros behind it stay.
    Sound {
        means: bool,
        deviations: bool,
    },
}

/// What turns sounds into bands.
#[derive(Debug)]
pub(crate) struct Fbank {
    settings: FbankSettings,
    /// Samples of a frame.
    window: usize,
    /// Samples from one frame to the next.
    hop: usize,
    spectrum: Spectrum,
    bands: Bands,
}

impl Fbank {
    /// For sounds of this rate.
    pub(crate) fn new(settings: &FbankSettings, rate: u32) -> Self {
        let (window, hop) = (rate as usize / WINDOWS, rate as usize / HOPS);
        let length = window.next_power_of_two();
        let hann = |at: usize| 0.5 - 0.5 * (at as f64 / (window - 1) as f64 * std::f64::consts::TAU).cos();
        let weight = |at: usize| match settings.window {
            Window::Hann => hann(at),
            Window::Povey => hann(at).powf(POVEY),
        };
        let (lowest, highest) = (mels(LOWEST_HERTZ), mels(f64::from(rate) / 2.0));
        let step = (highest - lowest) / (settings.bands + 1) as f64;
        let edges: Vec<f64> = (0..settings.bands + 2).map(|number| lowest + step * number as f64).collect();
        let place = |number: usize| mels(f64::from(rate) * number as f64 / length as f64);
        let places: Vec<f64> = (0..=length / 2).map(place).collect();
        Self {
            settings: *settings,
            window,
            hop,
            spectrum: Spectrum::new((0..window).map(weight).collect(), length),
            bands: Bands::new(&edges, &places, |_| 1.0),
        }
    }

    pub(crate) fn bands(&self) -> usize {
        self.settings.bands
    }

    /// Frames of a tensor for a sound of so many samples.
    pub(crate) fn frames(&self, samples: usize) -> usize {
        self.settings.frames.unwrap_or_else(|| self.own_frames(samples))
    }

    /// Frames of these that hold sound.
    pub(crate) fn own_frames(&self, samples: usize) -> usize {
        let whole = 1 + samples.saturating_sub(self.window) / self.hop;
        self.settings.frames.map_or(whole, |frames| frames.min(whole))
    }

    /// Samples of so many frames.
    pub(crate) fn samples(&self, frames: usize) -> usize {
        frames.saturating_sub(1).saturating_mul(self.hop).saturating_add(self.window)
    }

    /// What is done to values, in words.
    pub(crate) fn scaling(&self) -> &'static str {
        match self.settings.scaling {
            Scaling::None | Scaling::Sound { means: false, deviations: false } => "",
            Scaling::Model { .. } => ", scaled by the model's mean and deviation",
            Scaling::Sound { means: true, deviations: true } => ", mean 0 and deviation 1 in each sound",
            Scaling::Sound { means: true, .. } => ", mean 0 in each sound",
            Scaling::Sound { .. } => ", deviation 1 in each sound",
        }
    }

    /// Values `[frames, bands]` of a sound.
    pub(crate) fn of(&self, sound: &[f32]) -> Vec<f32> {
        let bands = self.settings.bands;
        let mut values: Vec<f64> = Vec::new();
        for frame in 0..self.own_frames(sound.len()) {
            let powers = self.spectrum.powers(self.frame(sound, frame).into_iter());
            values.extend(self.bands.sums(&powers).map(|power| power.max(LEAST_POWER).ln()));
        }
        if let Scaling::Sound { means, deviations } = self.settings.scaling {
            (0..bands).for_each(|band| scale(&mut values, band, bands, (means, deviations)));
        }
        values.resize(self.frames(sound.len()) * bands, 0.0);
        if let Scaling::Model { mean, deviation } = self.settings.scaling {
            values.iter_mut().for_each(|value| *value = (*value - mean) / (2.0 * deviation));
        }
        values.into_iter().map(narrow).collect()
    }

    /// The samples of a frame without their mean, each less most of the one before.
    fn frame(&self, sound: &[f32], number: usize) -> Vec<f64> {
        let sample = |at: usize| sound.get(number * self.hop + at).map_or(0.0, |&sample| f64::from(sample));
        let samples: Vec<f64> = (0..self.window).map(|at| sample(at) * self.settings.full_scale).collect();
        let mean = samples.iter().sum::<f64>() / self.window as f64;
        let before = samples.first().into_iter().chain(&samples);
        samples.iter().zip(before).map(|(sample, before)| sample - mean - PREEMPHASIS * (before - mean)).collect()
    }
}

/// Gives one band of values `[frames, bands]` the mean 0, the deviation 1, or both.
fn scale(values: &mut [f64], band: usize, bands: usize, (means, deviations): (bool, bool)) {
    let own = || values.iter().skip(band).step_by(bands);
    let count = own().count().max(1) as f64;
    let mean = own().sum::<f64>() / count;
    let deviation = (own().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    let (mean, deviation) =
        (if means { mean } else { 0.0 }, if deviations && deviation > 0.0 { deviation } else { 1.0 });
    values.iter_mut().skip(band).step_by(bands).for_each(|value| *value = (*value - mean) / deviation);
}

fn mels(hertz: f64) -> f64 {
    1127.0 * (1.0 + hertz / 700.0).ln()
}

#[cfg(test)]
#[path = "fbank_tests.rs"]
mod tests;
