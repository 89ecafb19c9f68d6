//! What is done to pictures, whoever says so.
//!
//! | said by | where |
//! |---|---|
//! | a preset | [`IMAGE_PRESETS`] |
//! | `preprocessor_config.json`, named, or found beside the model or the pictures | `processor` |
//! | nobody | values of 0 to 1, red first, stretched |
//!
//! Single options change parts of it.

use std::path::{Path, PathBuf};

use super::fit::Fit;
use super::processor;
use super::resample::{Filter, Kernel};
use crate::data::DataOptions;
use crate::error::CalibError;

/// Order of a picture tensor's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageLayout {
    /// Channels before rows and columns.
    Nchw,
    /// Channels last.
    Nhwc,
}

/// Order of the colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first, as OpenCV loads pictures.
    Bgr,
}

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

/// The preprocessing of a family of models, by name.
#[derive(Debug, PartialEq)]
pub struct ImagePreset {
    /// Its name.
    pub name: &'static str,
    /// What it does and for which models, in words.
    pub about: &'static str,
    pub(crate) recipe: Recipe,
}

/// What is done to a picture:
///
/// ```text
/// value = (pixel * scale - mean[c]) / std[c]        pixel in 0..=255, c in the chosen order
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Recipe {
    pub(crate) fit: Fit,
    pub(crate) filter: Filter,
    pub(crate) channel_order: ChannelOrder,
    pub(crate) scale: f32,
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
}

impl Recipe {
    /// Values from 0 to 1, red first, stretched.
    pub(crate) const UNIT: Self = Self {
        fit: Fit::Stretch,
        filter: Filter::pillow(Kernel::Bilinear),
        channel_order: ChannelOrder::Rgb,
        scale: 1.0 / 255.0,
        mean: [0.0; 3],
        std: [1.0; 3],
    };
}

const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
const BICUBIC: Filter = Filter::pillow(Kernel::Bicubic);
/// OpenCV's `INTER_LINEAR`.
const OPENCV_LINEAR: Filter = Filter { kernel: Kernel::Bilinear, antialias: false };

/// Mean and deviation of processors, by the names that transformers gives them.
pub(crate) const STATISTICS: [([f32; 3], [f32; 3]); 3] =
    [([0.5; 3], [0.5; 3]), (IMAGENET_MEAN, IMAGENET_STD), (CLIP_MEAN, CLIP_STD)];

/// The presets, by name.
pub static IMAGE_PRESETS: [ImagePreset; 10] = [
    ImagePreset {
        name: "imagenet",
        about: "classifiers of torchvision: the centre 224 of 256, bilinear, ImageNet's mean and deviation",
        recipe: Recipe { fit: Fit::Cover(256.0 / 224.0), mean: IMAGENET_MEAN, std: IMAGENET_STD, ..Recipe::UNIT },
    },
    ImagePreset {
        name: "timm",
        about: "most classifiers of timm: the centre 224 of 256, bicubic, ImageNet's mean and deviation",
        recipe: Recipe {
            fit: Fit::Cover(256.0 / 224.0),
            filter: BICUBIC,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            ..Recipe::UNIT
        },
    },
    ImagePreset {
        name: "clip",
        about: "CLIP: the centre, bicubic, CLIP's mean and deviation",
        recipe: Recipe { fit: Fit::Cover(1.0), filter: BICUBIC, mean: CLIP_MEAN, std: CLIP_STD, ..Recipe::UNIT },
    },
    ImagePreset {
        name: "vit",
        about: "Hugging Face's ViT: stretched, bilinear, values of -1 to 1",
        recipe: Recipe { mean: [0.5; 3], std: [0.5; 3], ..Recipe::UNIT },
    },
    ImagePreset {
        name: "siglip",
        about: "SigLIP: stretched, bicubic, values of -1 to 1",
        recipe: Recipe { filter: BICUBIC, mean: [0.5; 3], std: [0.5; 3], ..Recipe::UNIT },
    },
    ImagePreset {
        name: "keras",
        about: "Keras' mode `tf`: stretched, nearest, values of -1 to 1",
        recipe: Recipe { filter: Filter::pillow(Kernel::Nearest), mean: [0.5; 3], std: [0.5; 3], ..Recipe::UNIT },
    },
    ImagePreset {
        name: "caffe",
        about: "Caffe's networks: stretched, blue first, pixels of 0 to 255 less ImageNet's mean",
        recipe: Recipe {
            channel_order: ChannelOrder::Bgr,
            scale: 1.0,
            mean: [103.939, 116.779, 123.68],
            ..Recipe::UNIT
        },
    },
    ImagePreset {
        name: "yolo",
        about: "Ultralytics' YOLO: within the size, grey (114) around it, values of 0 to 1",
        recipe: Recipe { fit: Fit::Letterbox { fill: 114, centred: true }, filter: OPENCV_LINEAR, ..Recipe::UNIT },
    },
    ImagePreset {
        name: "yolox",
        about: "YOLOX: within the size from the upper left, grey (114), blue first, pixels of 0 to 255",
        recipe: Recipe {
            fit: Fit::Letterbox { fill: 114, centred: false },
            filter: OPENCV_LINEAR,
            channel_order: ChannelOrder::Bgr,
            scale: 1.0,
            ..Recipe::UNIT
        },
    },
    ImagePreset { name: "unit", about: "stretched, bilinear, values of 0 to 1", recipe: Recipe::UNIT },
];

impl ImagePreset {
    /// The preset of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        IMAGE_PRESETS.iter().find(|preset| preset.name == name)
    }
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
