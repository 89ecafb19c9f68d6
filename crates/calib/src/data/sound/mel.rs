//! The logarithm of a sound's power in bands, as Whisper's extractor of Hugging Face's transformers computes it.
//!
//! # Method
//! Spectra of `window` samples under a periodic Hann window, `hop` samples apart, the first centred on the first sample
//! (the sound is mirrored at its ends). Powers are summed in triangular bands of equal area on Slaney's mel scale, from 0
//! to half the rate (8 kHz at most). Then
//!
//! ```text
//! x = log10(max(power, 1e-10));  x = max(x, largest x - 8);  value = (x + 4) / 4
//! ```
//!
//! A sound of `n` samples has `n / hop` spectra; the one behind is left out.

use super::extractor::LogMelSettings;
use super::spectrum::{Bands, Spectrum};
use crate::tensor::narrow;

/// Whisper's bands end here.
const HIGHEST_HERTZ: f64 = 8_000.0;
/// Smaller powers count as this.
const LEAST_POWER: f64 = 1e-10;
/// Values so far below the largest, in powers of ten, count as this.
const DEPTH: f64 = 8.0;
/// The mel scale is linear up to here, and logarithmic behind.
const LINEAR_HERTZ: f64 = 1_000.0;
/// Mels of [`LINEAR_HERTZ`].
const LINEAR_MELS: f64 = 15.0;
/// Mels from [`LINEAR_HERTZ`] to 6.4 times that.
const LOG_MELS: f64 = 27.0;
const LOG_RATIO: f64 = 6.4;

/// What turns sounds into bands.
#[derive(Debug)]
pub(crate) struct LogMel {
    settings: LogMelSettings,
    spectrum: Spectrum,
    bands: Bands,
}

impl LogMel {
    /// For sounds of this rate.
    pub(crate) fn new(settings: &LogMelSettings, rate: u32) -> Result<Self, String> {
        if settings.samples <= settings.window {
            return Err("a sound has no more samples than one spectrum".to_owned());
        }
        let angle = |at: usize| at as f64 / settings.window as f64 * std::f64::consts::TAU;
        let window = (0..settings.window).map(|at| 0.5 - 0.5 * angle(at).cos()).collect();
        let spectrum = Spectrum::new(window, settings.window);
        Ok(Self { settings: *settings, spectrum, bands: bands(settings, rate) })
    }

    /// How many bands there are.
    pub(crate) fn bands(&self) -> usize {
        self.settings.bands
    }

    /// Samples from one spectrum to the next.
    pub(crate) fn hop(&self) -> usize {
        self.settings.hop
    }

    /// Values `[bands, frames]` of a sound.
    pub(crate) fn of(&self, sound: &[f32]) -> Vec<f32> {
        let frames = sound.len() / self.settings.hop;
        let mut values = vec![0.0; self.settings.bands * frames];
        for frame in 0..frames {
            let powers = self.spectrum.powers(self.frame(sound, frame));
            for (band, power) in self.bands.sums(&powers).enumerate() {
                values[band * frames + frame] = power.max(LEAST_POWER).log10();
            }
        }
        let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        values.into_iter().map(|value| narrow((value.max(largest - DEPTH) + 4.0) / 4.0)).collect()
    }

    /// The samples of one frame.
    fn frame(&self, sound: &[f32], number: usize) -> impl Iterator<Item = f64> {
        let (first, before) = (number * self.settings.hop, self.settings.window / 2);
        (0..self.settings.window).map(move |at| {
            let sample = mirrored(first + at, before, sound.len());
            sound.get(sample).map_or(0.0, |&sample| f64::from(sample))
        })
    }
}

/// The sample at a place of a sound that is mirrored `before` samples before its beginning and at its end.
fn mirrored(place: usize, before: usize, length: usize) -> usize {
    let at = place.abs_diff(before);
    if at < length { at } else { (2 * length).saturating_sub(at + 2) }
}

/// Bands of equal area.
fn bands(settings: &LogMelSettings, rate: u32) -> Bands {
    let half = f64::from(rate / 2);
    let highest = mels(HIGHEST_HERTZ.min(half));
    let edge = |number: usize| hertz(highest * number as f64 / (settings.bands + 1) as f64);
    let frequencies = settings.window / 2 + 1;
    let frequency = |number: usize| half * number as f64 / (frequencies - 1).max(1) as f64;
    let edges: Vec<f64> = (0..settings.bands + 2).map(edge).collect();
    let places: Vec<f64> = (0..frequencies).map(frequency).collect();
    Bands::new(&edges, &places, |width| 2.0 / width)
}

fn mels(hertz: f64) -> f64 {
    match hertz < LINEAR_HERTZ {
        true => hertz * LINEAR_MELS / LINEAR_HERTZ,
        false => LINEAR_MELS + (hertz / LINEAR_HERTZ).ln() * LOG_MELS / LOG_RATIO.ln(),
    }
}

fn hertz(mels: f64) -> f64 {
    match mels < LINEAR_MELS {
        true => mels * LINEAR_HERTZ / LINEAR_MELS,
        false => LINEAR_HERTZ * ((mels - LINEAR_MELS) * LOG_RATIO.ln() / LOG_MELS).exp(),
    }
}
