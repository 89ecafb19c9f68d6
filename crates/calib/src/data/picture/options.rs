//! Who says what is done to pictures.
//!
//! | said by | where |
//! |---|---|
//! | a preset | [`IMAGE_PRESETS`](super::IMAGE_PRESETS) |
//! | `preprocessor_config.json`, named, or found beside the model or the pictures | `processor` |
//! | nobody | values of 0 to 1, red first, stretched |
//!
//! Single options change parts of it.

use std::path::{Path, PathBuf};

use super::processor;
use super::recipe::{ChannelOrder, ImageLayout, ImagePreset, Recipe};
use crate::data::DataOptions;
use crate::error::CalibError;

/// How pictures become tensors. What is `None` is as `base` says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageOptions {
    /// What the other options change.
    pub base: ImageBase,
    /// Height and width; by default those of the graph input, else those of the base.
    pub size: Option<(u32, u32)>,
    /// Axis order; by default found from where the graph input has 1 or 3 channels.
    pub layout: Option<ImageLayout>,
    /// Colour order.
    pub channel_order: Option<ChannelOrder>,
    /// Subtracted after scaling, by channel in the chosen order.
    pub mean: Option<[f32; 3]>,
    /// Divides after subtraction, by channel in the chosen order.
    pub std: Option<[f32; 3]>,
}

/// Where the preprocessing of pictures is written.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ImageBase {
    /// In `preprocessor_config.json` beside the model or the pictures; without one, pixels become 0 to 1.
    #[default]
    Found,
    /// In this program.
    Preset(&'static ImagePreset),
    /// In this file, as Hugging Face's transformers writes it.
    Processor(PathBuf),
}

impl ImageOptions {
    /// Whether nothing is said but where the configuration lies.
    pub(crate) fn is_only_of(&self, processor: &Path) -> bool {
        *self == Self { base: ImageBase::Processor(processor.to_owned()), ..Self::default() }
    }

    /// What is done to pictures in `data`, and who says so.
    pub(super) fn recipe(&self, data: &Path, options: &DataOptions) -> Result<(Recipe, String), CalibError> {
        let (base, origin) = match &self.base {
            ImageBase::Preset(preset) => (preset.recipe, format!("preset {}", preset.name)),
            ImageBase::Processor(path) => (processor::read(path)?, path.display().to_string()),
            ImageBase::Found => match options.found_processor(data) {
                Some(path) => (processor::read(&path)?, path.display().to_string()),
                None => (Recipe::UNIT, String::new()),
            },
        };
        let fit = if self.size.is_some() { base.fit.without_pixels() } else { base.fit };
        let recipe = Recipe {
            fit,
            channel_order: self.channel_order.unwrap_or(base.channel_order),
            mean: self.mean.unwrap_or(base.mean),
            std: self.std.unwrap_or(base.std),
            ..base
        };
        Ok((recipe, origin))
    }
}
