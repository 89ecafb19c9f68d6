//! Reads the beginning of `.wav` files: integers of 8 to 32 bits, or floats of 32.

use std::io::BufReader;

use hound::{SampleFormat, WavReader};

use crate::data::part::{Part, Section};
use crate::error::{CalibError, FormatError};
use crate::tensor::narrow;

/// Rates that are read.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;
/// More channels are refused.
const MOST_CHANNELS: u16 = 64;

/// An open file.
pub(crate) struct Wav {
    part: Part,
    reader: WavReader<BufReader<Section>>,
}

impl Wav {
    /// Reads its header.
    pub(crate) fn open(part: &Part) -> Result<Self, CalibError> {
        let malformed = |source| CalibError::Malformed { path: part.label().into(), source };
        let reader = WavReader::new(part.open()?).map_err(|error| malformed(FormatError::Wav(error)))?;
        let spec = reader.spec();
        let frames = reader.duration();
        match RATES.contains(&spec.sample_rate) && (1..=MOST_CHANNELS).contains(&spec.channels) && frames > 0 {
            true => Ok(Self { part: part.clone(), reader }),
            false => Err(malformed(FormatError::Sound { rate: spec.sample_rate, channels: spec.channels, frames })),
        }
    }

    /// Samples a second.
    pub(crate) fn rate(&self) -> u32 {
        self.reader.spec().sample_rate
    }

    /// Samples a channel.
    pub(crate) fn frames(&self) -> usize {
        self.reader.duration() as usize
    }

    /// The mean over the channels of the first samples, from -1 to 1.
    pub(crate) fn read(mut self, frames: usize) -> Result<Vec<f32>, CalibError> {
        let spec = self.reader.spec();
        let channels = usize::from(spec.channels);
        let count = frames.saturating_mul(channels);
        let samples: Result<Vec<f32>, hound::Error> = match spec.sample_format {
            SampleFormat::Float => self.reader.samples::<f32>().take(count).collect(),
            SampleFormat::Int => {
                let full = f64::from(spec.bits_per_sample.saturating_sub(1)).exp2();
                let samples = self.reader.samples::<i32>().take(count);
                samples.map(|sample| sample.map(|sample| narrow(f64::from(sample) / full))).collect()
            }
        };
        let malformed = |source| CalibError::Malformed { path: self.part.label().into(), source };
        let samples = samples.map_err(|error| malformed(FormatError::Wav(error)))?;
        if samples.len() < count {
            return Err(malformed(FormatError::EndsEarly));
        }
        Ok(samples.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect())
    }
}
