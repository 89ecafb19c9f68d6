//! What is done to pictures, and the presets of it.

use super::fit::Fit;
use super::resample::{Filter, Kernel};

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
