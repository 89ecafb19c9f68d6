//! Reads `preprocessor_config.json`, in which Hugging Face's transformers keeps what a processor of pictures does.
//!
//! What is not written there is as the processor's class has it. A step that is not done here is an error that names it.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::fit::{Fit, MAX_CANVAS, Pad, Resize, Size, Steps};
use super::recipe::{ChannelOrder, Recipe, STATISTICS};
use super::resample::{Filter, Kernel};
use crate::data::json;
use crate::error::CalibError;

/// Steps that change pixels and are not done here.
const NOT_DONE: [&str; 12] = [
    "do_thumbnail",
    "do_align_long_axis",
    "do_color_quantize",
    "do_grayscale",
    "do_image_splitting",
    "do_pan_and_scan",
    "do_split_image",
    "do_center_crop_resize",
    "keep_aspect_ratio",
    "ensure_multiple_of",
    "size_divisor",
    "crop_to_patches",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Processor {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Sides>,
    max_size: Option<u32>,
    resample: Option<Resample>,
    crop_pct: Option<f64>,
    do_center_crop: Option<bool>,
    crop_size: Option<Sides>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f32>,
    rescale_offset: Option<bool>,
    do_normalize: Option<bool>,
    image_mean: Option<Numbers>,
    image_std: Option<Numbers>,
    include_top: Option<bool>,
    do_pad: Option<bool>,
    pad_size: Option<Sides>,
    do_flip_channel_order: Option<bool>,
    sampling_rate: Option<Value>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Sides {
    Side(u32),
    Pair([u32; 2]),
    Named(NamedSides),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedSides {
    height: Option<u32>,
    width: Option<u32>,
    shortest_edge: Option<u32>,
    longest_edge: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Resample {
    Number(u64),
    Name(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Numbers {
    One(f32),
    Three([f32; 3]),
    Single([f32; 1]),
}

impl Numbers {
    fn three(&self) -> [f32; 3] {
        match self {
            Self::One(one) | Self::Single([one]) => [*one; 3],
            Self::Three(three) => *three,
        }
    }
}

/// What a class does where its configuration says nothing.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// The beginning of its name.
    name: &'static str,
    /// A size that is one number is that of the shorter side.
    by_shorter_side: bool,
    kernel: Kernel,
    /// In [`STATISTICS`].
    statistics: usize,
    /// Whether there is a centre to keep.
    crops: bool,
}

/// Classes by name; the last stands for all others.
const CLASSES: [Class; 16] = [
    class("ChineseCLIP", true, Kernel::Bicubic, 2, true),
    class("CLIP", true, Kernel::Bicubic, 2, true),
    class("BridgeTower", true, Kernel::Bicubic, 2, true),
    class("Bit", true, Kernel::Bicubic, 2, true),
    class("ConvNext", true, Kernel::Bilinear, 0, false),
    class("MobileNet", true, Kernel::Bilinear, 0, true),
    class("MobileViT", true, Kernel::Bilinear, 0, true),
    class("PoolFormer", true, Kernel::Bicubic, 1, true),
    class("Levit", true, Kernel::Bicubic, 1, true),
    class("Deit", false, Kernel::Bicubic, 0, true),
    class("Beit", false, Kernel::Bicubic, 0, true),
    class("Siglip", false, Kernel::Bicubic, 0, false),
    class("EfficientNet", false, Kernel::Nearest, 0, false),
    class("Segformer", false, Kernel::Bilinear, 1, false),
    class("Yolos", true, Kernel::Bilinear, 1, false),
    class("", false, Kernel::Bilinear, 0, false),
];

const fn class(name: &'static str, by_shorter_side: bool, kernel: Kernel, statistics: usize, crops: bool) -> Class {
    Class { name, by_shorter_side, kernel, statistics, crops }
}

/// The recipe in a file.
pub(crate) fn read(path: &Path) -> Result<Recipe, CalibError> {
    let processor: Processor = json::read(path)?;
    processor.recipe().map_err(|problem| CalibError::Processor { path: path.into(), problem })
}

impl Processor {
    fn recipe(&self) -> Result<Recipe, String> {
        if self.sampling_rate.is_some() {
            return Err("it is for sounds, and the samples are pictures".to_owned());
        }
        if let Some(step) = NOT_DONE.into_iter().find(|&step| is_asked(self.others.get(step))) {
            return Err(format!("`{step}` is not done here"));
        }
        let class = self.class();
        let (scale, mean, std) = self.arithmetic(class)?;
        let is_flipped = self.do_flip_channel_order.unwrap_or(class.name == "MobileViT");
        Ok(Recipe {
            fit: Fit::Steps(self.steps(class)?),
            filter: Filter::pillow(self.kernel(class)?),
            channel_order: if is_flipped { ChannelOrder::Bgr } else { ChannelOrder::Rgb },
            scale,
            mean,
            std,
        })
    }

    fn name(&self) -> &str {
        self.image_processor_type.as_deref().or(self.feature_extractor_type.as_deref()).unwrap_or_default()
    }

    fn class(&self) -> Class {
        let name = self.name().to_ascii_lowercase();
        let is_it = |class: &&Class| name.starts_with(&class.name.to_ascii_lowercase());
        CLASSES.iter().find(is_it).copied().unwrap_or(CLASSES[CLASSES.len() - 1])
    }

    fn kernel(&self, class: Class) -> Result<Kernel, String> {
        let found = match &self.resample {
            None => Some(class.kernel),
            Some(Resample::Number(number)) => Kernel::from_number(*number),
            Some(Resample::Name(name)) => Kernel::from_name(name),
        };
        found.ok_or_else(|| format!("`resample` is {:?}, expected one of Pillow's numbers, 0 to 5", self.resample))
    }

    /// Factor, mean and deviation.
    fn arithmetic(&self, class: Class) -> Result<(f32, [f32; 3], [f32; 3]), String> {
        let rescales = self.do_rescale.unwrap_or(true);
        let scale = if rescales { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
        let offset = if rescales && self.rescale_offset == Some(true) { 1.0 } else { 0.0 };
        let normalizes = self.do_normalize.unwrap_or(class.name != "MobileViT");
        let (usual_mean, usual_std) = STATISTICS[class.statistics];
        let given = |numbers: &Option<Numbers>, usual| numbers.as_ref().map_or(usual, Numbers::three);
        let (mean, std) = match normalizes {
            true => (given(&self.image_mean, usual_mean), given(&self.image_std, usual_std)),
            false => ([0.0; 3], [1.0; 3]),
        };
        // EfficientNet divides twice.
        let is_twice = self.include_top == Some(true) && normalizes;
        let std = if is_twice { std.map(|deviation| deviation * deviation) } else { std };
        let is_sound = |number: &f32| number.is_normal();
        match scale.is_normal() && std.iter().all(is_sound) && mean.iter().all(|number| number.is_finite()) {
            true => Ok((scale, mean.map(|mean| mean + offset), std)),
            false => Err("a factor or a deviation is zero, or a number is not finite".to_owned()),
        }
    }

    fn steps(&self, class: Class) -> Result<Steps, String> {
        let crops = self.do_center_crop.unwrap_or(class.crops || self.crop_size.is_some());
        let crop = self.crop_size.as_ref().filter(|_| crops).map(Sides::exact).transpose()?;
        if self.do_center_crop == Some(true) && crop.is_none() {
            return Err("`do_center_crop` is true and there is no `crop_size`".to_owned());
        }
        let (resize, crop) = match self.do_resize.unwrap_or(true) {
            true => self.resized(class, crop)?,
            false => (None, crop),
        };
        let pad = match (self.do_pad.unwrap_or(false), &self.pad_size) {
            (false, _) => Pad::None,
            (true, None) => Pad::Model,
            (true, Some(size)) => Pad::To(size.exact()?),
        };
        Ok(Steps { resize, crop, pad })
    }

    /// With what is kept of it.
    fn resized(&self, class: Class, crop: Option<Size>) -> Result<(Option<Resize>, Option<Size>), String> {
        let Some(size) = &self.size else { return Err("there is no `size`".to_owned()) };
        let resize = size.resize(class, self.max_size)?;
        let Resize::Shortest(side, most) = resize else { return Ok((Some(resize), crop)) };
        let is_convnext = class.name == "ConvNext";
        let share = self.crop_pct.or(is_convnext.then_some(0.875));
        Ok(match (share, class.name) {
            (Some(_), "ConvNext") if side >= 384 => (Some(Resize::Exact((side, side))), None),
            (Some(share), _) if share > 0.0 => {
                let crop = if is_convnext { Some((side, side)) } else { crop };
                (Some(Resize::Shortest(scaled(side, 1.0 / share), most)), crop)
            }
            (None, "Levit") => (Some(Resize::Shortest(scaled(side, 256.0 / 224.0), most)), crop),
            _ => (Some(resize), crop),
        })
    }
}

/// `side * factor`, rounded down.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to sides of pictures")]
fn scaled(side: u32, factor: f64) -> u32 {
    (f64::from(side) * factor).clamp(1.0, f64::from(MAX_CANVAS)) as u32
}

/// Whether a step is asked for.
fn is_asked(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Number(number)) => number.as_u64().is_none_or(|number| number > 1),
        Some(_) => true,
    }
}

impl Sides {
    /// Where both sides are told.
    fn exact(&self) -> Result<Size, String> {
        match self {
            Self::Side(side) => Ok((*side, *side)),
            Self::Pair([height, width]) => Ok((*height, *width)),
            Self::Named(NamedSides { height: Some(height), width: Some(width), .. }) => Ok((*height, *width)),
            Self::Named(NamedSides { shortest_edge: Some(side), .. }) => Ok((*side, *side)),
            Self::Named(_) => Err(format!("{self:?} tells no height and width")),
        }
    }

    fn resize(&self, class: Class, max_size: Option<u32>) -> Result<Resize, String> {
        match self {
            Self::Side(side) if class.by_shorter_side => Ok(Resize::Shortest(*side, max_size)),
            Self::Named(NamedSides { shortest_edge: Some(shortest), longest_edge, .. }) => {
                Ok(Resize::Shortest(*shortest, longest_edge.or(max_size)))
            }
            Self::Named(NamedSides { longest_edge: Some(longest), .. }) => Ok(Resize::Longest(*longest)),
            _ => self.exact().map(Resize::Exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Recipe, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preprocessor_config.json");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|error| error.to_string())
    }

    fn steps(resize: Resize, crop: Option<Size>) -> Fit {
        Fit::Steps(Steps { resize: Some(resize), crop, pad: Pad::None })
    }

    #[test]
    fn configurations_of_known_models_are_understood() {
        let rows = [
            (
                r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
                "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224}"#,
                steps(Resize::Shortest(224, None), Some((224, 224))),
                Kernel::Bicubic,
            ),
            (
                r#"{"do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
                "image_processor_type": "ViTImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 2,
                "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224}}"#,
                steps(Resize::Exact((224, 224)), None),
                Kernel::Bilinear,
            ),
            (
                r#"{"crop_pct": 0.875, "do_resize": true, "feature_extractor_type": "ConvNextFeatureExtractor",
                "resample": 3, "size": 224}"#,
                steps(Resize::Shortest(256, None), Some((224, 224))),
                Kernel::Bicubic,
            ),
            (
                r#"{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}}"#,
                steps(Resize::Exact((384, 384)), None),
                Kernel::Bilinear,
            ),
            (
                r#"{"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "do_center_crop": true,
                "crop_size": 224}"#,
                steps(Resize::Exact((256, 256)), Some((224, 224))),
                Kernel::Bicubic,
            ),
            (
                r#"{"image_processor_type": "DetrImageProcessor", "size": {"shortest_edge": 800, "longest_edge": 1333},
                "resample": 2, "do_pad": false}"#,
                steps(Resize::Shortest(800, Some(1333)), None),
                Kernel::Bilinear,
            ),
        ];
        for (text, fit, kernel) in rows {
            let recipe = read_text(text).unwrap();
            assert_eq!((recipe.fit, recipe.filter), (fit, Filter::pillow(kernel)), "{text}");
        }
    }

    #[test]
    fn arithmetic_is_that_of_the_steps_that_are_done() {
        let of = |steps: &str| {
            let recipe = read_text(&format!(r#"{{"size": 8, {steps}}}"#)).unwrap();
            (recipe.scale, recipe.mean[0], recipe.std[0])
        };
        assert_eq!(of(r#""do_normalize": false"#), (1.0 / 255.0, 0.0, 1.0));
        assert_eq!(of(r#""do_rescale": false, "image_mean": 127.5, "image_std": [127.5]"#), (1.0, 127.5, 127.5));
        assert_eq!(of(r#""rescale_factor": 0.5, "rescale_offset": true, "do_normalize": false"#), (0.5, 1.0, 1.0));
        assert_eq!(of(r#""include_top": true, "image_std": [0.5, 0.5, 0.5]"#), (1.0 / 255.0, 0.5, 0.25));
    }

    #[test]
    fn what_is_not_done_is_named() {
        let rows = [
            (r#"{"size": 8, "do_thumbnail": true}"#, "`do_thumbnail` is not done here"),
            (r#"{"size": 8, "ensure_multiple_of": 14}"#, "`ensure_multiple_of`"),
            (r#"{"size": 8, "resample": 9}"#, "Pillow's numbers"),
            (r#"{"size": {"max_height": 8}}"#, "tells no height and width"),
            (r#"{"do_resize": true}"#, "there is no `size`"),
            (r#"{"size": 8, "image_std": 0}"#, "zero"),
            (r#"{"size": 8, "do_center_crop": true}"#, "no `crop_size`"),
            (r#"{"feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 16000}"#, "for sounds"),
            (r#"{"size": -1}"#, "not the JSON"),
            ("[]", "not the JSON"),
        ];
        for (text, expected) in rows {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(expected) || error.contains("cannot read"), "{text}: {error}");
        }
        assert!(read_text(r#"{"size": 8, "keep_aspect_ratio": false, "ensure_multiple_of": 1}"#).is_ok());
    }
}
