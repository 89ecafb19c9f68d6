//! Reads `preprocessor_config.json` of a feature extractor of Hugging Face's transformers.

use std::path::Path;

use serde::Deserialize;

use super::fbank::{FbankSettings, Scaling, Window};
use crate::data::{Dim, json};
use crate::error::CalibError;

/// What is done to sounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extractor {
    /// Samples a second.
    pub(crate) rate: u32,
    pub(crate) features: Features,
}

/// What the model hears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Features {
    /// Samples, perhaps of mean 0 and deviation 1.
    Raw {
        normalizes: bool,
    },
    LogMel(LogMelSettings),
    Fbank(FbankSettings),
}

/// Those of Whisper's extractor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogMelSettings {
    pub(crate) bands: usize,
    /// Samples that one spectrum is made of.
    pub(crate) window: usize,
    /// Samples from one spectrum to the next.
    pub(crate) hop: usize,
    /// Samples of every sound, filled up with zeros.
    pub(crate) samples: usize,
}

/// The rate of models that do not tell; nearly all take it.
const RATE: u32 = 16_000;
/// Bands by which an input shows that it takes them.
const BANDS: [usize; 2] = [80, 128];
/// Mean and deviation of values of AudioSet, for models that do not tell.
const AUDIO_SET: [f64; 2] = [-4.267_739_3, 4.568_997_4];
/// Frames of five minutes.
const MOST_FRAMES: usize = 30_000;
const WHISPER: LogMelSettings = LogMelSettings { bands: 80, window: 400, hop: 160, samples: 480_000 };

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    feature_extractor_type: Option<String>,
    sampling_rate: Option<u32>,
    feature_size: Option<usize>,
    n_fft: Option<usize>,
    hop_length: Option<usize>,
    chunk_length: Option<usize>,
    do_normalize: Option<bool>,
    padding_value: Option<f32>,
    num_mel_bins: Option<usize>,
    max_length: Option<usize>,
    mean: Option<f64>,
    std: Option<f64>,
    dither: Option<f64>,
    #[serde(rename = "do_ceptral_normalize")]
    do_cepstral_normalize: Option<bool>,
    normalize_means: Option<bool>,
    normalize_vars: Option<bool>,
}

impl Extractor {
    /// By the axes of an input, where nothing else tells.
    pub(crate) fn for_input(dims: &[Dim]) -> Self {
        let features = match dims {
            [_, Dim::Fixed(bands), _] if BANDS.contains(bands) => {
                Features::LogMel(LogMelSettings { bands: *bands, ..WHISPER })
            }
            _ => Features::Raw { normalizes: false },
        };
        Self { rate: RATE, features }
    }
}

/// The extractor in a file.
pub(crate) fn read(path: &Path) -> Result<Extractor, CalibError> {
    let config: Config = json::read(path)?;
    config.extractor().map_err(|problem| CalibError::Extractor { path: path.into(), problem })
}

impl Config {
    fn extractor(&self) -> Result<Extractor, String> {
        let rate = match self.sampling_rate {
            Some(rate @ 1_000..=384_000) => rate,
            Some(rate) => return Err(format!("`sampling_rate` is {rate}, expected 1000 to 384000")),
            None => return Err("it has no `sampling_rate`, so that it is for no sounds".to_owned()),
        };
        if self.padding_value.is_some_and(|value| value != 0.0) {
            return Err("`padding_value` is not zero".to_owned());
        }
        let name = self.feature_extractor_type.as_deref().unwrap_or_default();
        let features = match name {
            _ if name.starts_with("Whisper") => Features::LogMel(self.whisper(rate)?),
            "ASTFeatureExtractor" => Features::Fbank(self.spectrogram_transformer()?),
            "Speech2TextFeatureExtractor" => Features::Fbank(self.speech_to_text()?),
            _ if name.starts_with("Wav2Vec2") || self.feature_size == Some(1) => {
                Features::Raw { normalizes: self.do_normalize.unwrap_or(true) }
            }
            _ => return Err(format!("what `{name}` does is not done here; give .npy or .npz files of features")),
        };
        Ok(Extractor { rate, features })
    }

    fn whisper(&self, rate: u32) -> Result<LogMelSettings, String> {
        if self.do_normalize == Some(true) {
            return Err("`do_normalize` of log-mel features is not done here".to_owned());
        }
        let seconds = within("chunk_length", self.chunk_length.unwrap_or(30), 300)?;
        Ok(LogMelSettings {
            bands: within("feature_size", self.feature_size.unwrap_or(WHISPER.bands), 1024)?,
            window: within("n_fft", self.n_fft.unwrap_or(WHISPER.window), 1 << 16)?,
            hop: within("hop_length", self.hop_length.unwrap_or(WHISPER.hop), 1 << 16)?,
            samples: seconds * rate as usize,
        })
    }

    fn spectrogram_transformer(&self) -> Result<FbankSettings, String> {
        let (mean, deviation) = (self.mean.unwrap_or(AUDIO_SET[0]), self.std.unwrap_or(AUDIO_SET[1]));
        if !mean.is_finite() || !deviation.is_finite() || deviation <= 0.0 {
            return Err(format!("`mean` is {mean} and `std` {deviation}, expected numbers, the second one above 0"));
        }
        let scales = self.do_normalize.unwrap_or(true);
        Ok(FbankSettings {
            bands: within("num_mel_bins", self.num_mel_bins.unwrap_or(128), 1024)?,
            window: Window::Hann,
            full_scale: 1.0,
            frames: Some(within("max_length", self.max_length.unwrap_or(1024), MOST_FRAMES)?),
            scaling: if scales { Scaling::Model { mean, deviation } } else { Scaling::None },
        })
    }

    fn speech_to_text(&self) -> Result<FbankSettings, String> {
        if self.dither.is_some_and(|dither| dither != 0.0) {
            return Err("`dither` is not zero: no noise is added to samples here".to_owned());
        }
        let scales = |own: Option<bool>| self.do_cepstral_normalize.unwrap_or(true) && own.unwrap_or(true);
        let (means, deviations) = (scales(self.normalize_means), scales(self.normalize_vars));
        Ok(FbankSettings {
            bands: within("num_mel_bins", self.num_mel_bins.unwrap_or(80), 1024)?,
            window: Window::Povey,
            full_scale: 32_768.0,
            frames: None,
            scaling: Scaling::Sound { means, deviations },
        })
    }
}

fn within(name: &str, found: usize, most: usize) -> Result<usize, String> {
    match (1..=most).contains(&found) {
        true => Ok(found),
        false => Err(format!("`{name}` is {found}, expected 1 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Extractor, String> {
        let config: Config = serde_json::from_str(text).map_err(|error| error.to_string())?;
        config.extractor()
    }

    #[test]
    fn configurations_of_known_models_are_understood() {
        let whisper = r#"{"chunk_length": 30, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128,
            "hop_length": 160, "n_fft": 400, "n_samples": 480000, "nb_max_frames": 3000, "padding_side": "right",
            "padding_value": 0.0, "processor_class": "WhisperProcessor", "sampling_rate": 16000}"#;
        let found = read_text(whisper).unwrap();
        assert_eq!(
            found,
            Extractor { rate: 16_000, features: Features::LogMel(LogMelSettings { bands: 128, ..WHISPER }) }
        );
        let raw = r#"{"do_normalize": true, "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1,
            "padding_value": 0.0, "return_attention_mask": false, "sampling_rate": 16000}"#;
        assert_eq!(read_text(raw).unwrap(), Extractor { rate: 16_000, features: Features::Raw { normalizes: true } });
    }

    #[test]
    fn what_is_not_done_is_named() {
        let rows = [
            (r#"{"feature_extractor_type": "ClapFeatureExtractor", "sampling_rate": 16000}"#, "`ClapFeatureExtractor`"),
            (
                r#"{"feature_extractor_type": "Speech2TextFeatureExtractor", "sampling_rate": 16000, "dither": 1.0}"#,
                "`dither` is not zero",
            ),
            (r#"{"feature_extractor_type": "ASTFeatureExtractor", "sampling_rate": 16000, "std": 0.0}"#, "`std` 0"),
            (
                r#"{"feature_extractor_type": "ASTFeatureExtractor", "sampling_rate": 16000, "max_length": 0}"#,
                "`max_length` is 0",
            ),
            (r#"{"image_mean": [0.5]}"#, "no `sampling_rate`"),
            (r#"{"feature_size": 1, "sampling_rate": 3}"#, "`sampling_rate` is 3"),
            (
                r#"{"feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 16000, "n_fft": 0}"#,
                "`n_fft` is 0",
            ),
            (r#"{"feature_size": 1, "sampling_rate": 16000, "padding_value": 1.0}"#, "`padding_value`"),
        ];
        for (text, expected) in rows {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn without_a_configuration_the_input_tells() {
        let dims = |dims: &[usize]| {
            dims.iter().map(|&n| if n == 0 { Dim::Unknown } else { Dim::Fixed(n) }).collect::<Vec<_>>()
        };
        assert!(matches!(Extractor::for_input(&dims(&[1, 80, 3000])).features, Features::LogMel(_)));
        assert_eq!(Extractor::for_input(&dims(&[0, 0])).features, Features::Raw { normalizes: false });
    }
}
