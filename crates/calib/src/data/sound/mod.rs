//! Turns sounds into tensors.
//!
//! A sound is read, its channels averaged and brought to the rate that the model hears. Then it is given as it is
//! (`[batch, samples]`), or as the logarithm of its power in bands that a mel scale spaces: as Whisper has it
//! (`[batch, bands, frames]`), or Kaldi (`[batch, frames, bands]`). Which of these, and how, `preprocessor_config.json`
//! tells ([`extractor`]); without one, the shape of the input does.

mod extractor;
mod fbank;
mod mel;
mod resample;
mod spectrum;
mod wav;

use std::path::Path;

use half::f16;
use ndarray::{ArrayD, IxDyn};

use super::check::wrong_shape;
use super::masks::{Filled, Shown};
use super::part::Part;
use super::{DataOptions, Dim, InputSpec};
use crate::error::CalibError;
use crate::tensor::{ElementType, Tensor};
use extractor::{Extractor, Features};
use fbank::{Fbank, FbankSettings};
use mel::LogMel;
use resample::{resample, resampled_length};
use wav::Wav;

/// Longer sounds are cut off where the model takes any length.
const MOST_SECONDS: usize = 30;
/// Added to a variance before its root is taken, as Hugging Face's transformers does.
const LEAST_VARIANCE: f64 = 1e-7;

/// What is done to sounds for one graph input.
#[derive(Debug)]
pub(crate) struct SoundPreparation {
    spec: InputSpec,
    extractor: Extractor,
    /// Who says so; empty where nobody does.
    origin: String,
    hears: Hears,
    /// Samples at the model's rate, where every sound has so many.
    fixed: Option<usize>,
}

/// What a model hears.
#[derive(Debug)]
enum Hears {
    /// The sound as it is, perhaps with mean 0 and deviation 1.
    Samples {
        normalizes: bool,
    },
    LogMel(LogMel),
    Fbank(Fbank),
}

impl SoundPreparation {
    /// For an input; the sounds lie in `data`.
    pub(crate) fn new(spec: &InputSpec, data: &Path, options: &DataOptions) -> Result<Self, CalibError> {
        let fail =
            |reason: String| CalibError::SoundInput { name: spec.name.clone(), shape: spec.shape_text(), reason };
        if !spec.element.is_float() {
            return Err(fail(format!("it is {}, expected floats", spec.element)));
        }
        let dims = spec.dims.as_deref().ok_or_else(|| fail("its rank is not declared".to_owned()))?;
        let (extractor, origin) = match options.processor(data) {
            Some(path) => (extractor::read(&path)?, path.display().to_string()),
            None => (Extractor::for_input(dims), String::new()),
        };
        let length = |dim: Option<&Dim>| match dim {
            Some(Dim::Fixed(length)) => Some(*length),
            _ => None,
        };
        let (hears, fixed) = match (&extractor.features, dims.len()) {
            (Features::LogMel(settings), 3) => {
                let frames = length(dims.last());
                let samples = frames.map_or(settings.samples, |frames| frames.saturating_mul(settings.hop));
                (Hears::LogMel(LogMel::new(settings, extractor.rate).map_err(fail)?), Some(samples))
            }
            (Features::Fbank(settings), 3) => {
                let frames = length(dims.get(1)).or(settings.frames);
                let fbank = Fbank::new(&FbankSettings { frames, ..*settings }, extractor.rate);
                let samples = frames.map(|frames| fbank.samples(frames));
                (Hears::Fbank(fbank), samples)
            }
            (&Features::Raw { normalizes }, 1..=3) => (Hears::Samples { normalizes }, length(dims.last())),
            (Features::LogMel(_), _) => return Err(fail("expected the axes batch, bands and frames".to_owned())),
            (Features::Fbank(_), _) => return Err(fail("expected the axes batch, frames and bands".to_owned())),
            (Features::Raw { .. }, _) => return Err(fail("expected the axes batch and samples".to_owned())),
        };
        let made = Self { spec: spec.clone(), extractor, origin, hears, fixed };
        let most = MOST_SECONDS.saturating_mul(made.extractor.rate as usize).saturating_mul(10);
        if made.fixed.is_some_and(|samples| samples == 0 || samples > most) {
            return Err(fail(format!("expected 1 to {most} samples")));
        }
        let shape = made.shape(made.fixed.unwrap_or(1));
        match made.fixed.is_some() && !spec.accepts(&shape) {
            true => Err(fail(format!("sounds become tensors of shape {shape:?}"))),
            false => Ok(made),
        }
    }

    /// The shape of a tensor made of so many samples.
    fn shape(&self, samples: usize) -> Vec<usize> {
        match (&self.hears, self.spec.dims.as_ref().map_or(2, Vec::len)) {
            (Hears::LogMel(mel), _) => vec![1, mel.bands(), samples / mel.hop()],
            (Hears::Fbank(fbank), _) => vec![1, fbank.frames(samples), fbank.bands()],
            (Hears::Samples { .. }, 1) => vec![samples],
            (Hears::Samples { .. }, 2) => vec![1, samples],
            (Hears::Samples { .. }, _) => vec![1, 1, samples],
        }
    }

    /// How many samples of its own rate a sound gives, and how many of the model's rate these become.
    fn lengths(&self, wav: &Wav) -> (usize, usize) {
        let rate = self.extractor.rate;
        let most = self.fixed.unwrap_or(MOST_SECONDS * rate as usize);
        // One more than needed, so that the last sample has a neighbour.
        let needed = resampled_length(most, rate, wav.rate()).saturating_add(1);
        let taken = wav.frames().min(needed);
        let kept = resampled_length(taken, wav.rate(), rate).min(most);
        (taken, kept)
    }

    /// What sounds become, in words.
    pub(crate) fn describe(&self) -> String {
        let mut parts = vec!["mono".to_owned(), format!("{} Hz", self.extractor.rate)];
        parts.extend(self.fixed.map(|samples| format!("{} s", samples as f64 / f64::from(self.extractor.rate))));
        parts.push(match &self.hears {
            Hears::LogMel(mel) => format!("log-mel of {} bands", mel.bands()),
            Hears::Fbank(fbank) => format!("Kaldi's log-mel of {} bands{}", fbank.bands(), fbank.scaling()),
            Hears::Samples { normalizes: true } => "mean 0, deviation 1".to_owned(),
            Hears::Samples { normalizes: false } => "raw".to_owned(),
        });
        if !self.origin.is_empty() {
            parts.push(format!("after {}", self.origin));
        }
        parts.join(", ")
    }
}

impl Shown for SoundPreparation {
    fn scan(&self, part: &Part) -> Result<Vec<usize>, CalibError> {
        let (_, kept) = self.lengths(&Wav::open(part)?);
        let shape = self.shape(self.fixed.unwrap_or(kept));
        if self.spec.accepts(&shape) { Ok(shape) } else { Err(wrong_shape(part.label(), &self.spec, &shape, "")) }
    }

    fn load(&self, part: &Part) -> Result<Tensor, CalibError> {
        let wav = Wav::open(part)?;
        let ((taken, kept), rate) = (self.lengths(&wav), wav.rate());
        let mut sound = resample(&wav.read(taken)?, rate, self.extractor.rate);
        sound.truncate(kept);
        if matches!(self.hears, Hears::Samples { normalizes: true }) {
            normalize(&mut sound);
        }
        let filled = |mut sound: Vec<f32>| {
            sound.resize(self.fixed.unwrap_or(kept), 0.0);
            sound
        };
        let values = match &self.hears {
            Hears::LogMel(mel) => mel.of(&filled(sound)),
            Hears::Fbank(fbank) => fbank.of(&sound),
            Hears::Samples { .. } => filled(sound),
        };
        let shape = self.shape(self.fixed.unwrap_or(kept));
        let values = ArrayD::from_shape_vec(IxDyn(&shape), values).expect("as many values as the shape has");
        Ok(match self.spec.element {
            ElementType::F64 => Tensor::F64(values.mapv(f64::from)),
            ElementType::F16 => Tensor::F16(values.mapv(f16::from_f32)),
            _ => Tensor::F32(values),
        })
    }

    fn filled(&self, part: &Part) -> Result<Filled, CalibError> {
        let (_, kept) = self.lengths(&Wav::open(part)?);
        let samples = self.fixed.unwrap_or(kept);
        let (length, given) = match &self.hears {
            Hears::LogMel(mel) => (samples / mel.hop(), kept.div_ceil(mel.hop())),
            Hears::Fbank(fbank) => (fbank.frames(samples), fbank.own_frames(kept)),
            Hears::Samples { .. } => (samples, kept),
        };
        let given = 0..given.min(length);
        Ok(Filled { lengths: vec![length], given: Vec::from([given]) })
    }
}

/// A mean of 0 and a deviation of 1.
fn normalize(sound: &mut [f32]) {
    let count = sound.len().max(1) as f64;
    let mean = sound.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let variance = sound.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    let deviation = (variance + LEAST_VARIANCE).sqrt();
    sound.iter_mut().for_each(|x| *x = crate::tensor::narrow((f64::from(*x) - mean) / deviation));
}

#[cfg(test)]
mod tests;
