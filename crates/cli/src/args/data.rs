//! Flags that say how samples are read.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use onnxquant::DataConfig;
use onnxquant::calib::{
    ChannelOrder, DataOptions, IMAGE_PRESETS, ImageBase, ImageLayout, ImageOptions, ImagePreset, TextOptions,
};
use onnxquant::storage::entered;

/// How samples are read.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Use this many samples, evenly spaced over the sorted files; by default all, or 128 of texts.
    #[arg(long, value_name = "N")]
    samples: Option<NonZero<usize>>,

    /// Which input an array of a .npz, .safetensors or .tar file feeds, where their names differ; `KEY=` leaves it out.
    #[arg(long, value_name = "KEY=INPUT", value_parser = parse_name)]
    calib_map: Vec<(String, String)>,

    /// Preprocessing as Hugging Face's transformers writes it; by default preprocessor_config.json beside the model or in
    /// the folder of the samples, where there is one.
    #[arg(long, value_name = "FILE", conflicts_with = "image_preset")]
    preprocessor: Option<PathBuf>,

    /// Preprocessing of pictures as a whole; the other options change parts of it.
    #[arg(long, value_name = "NAME", value_parser = preset_parser())]
    image_preset: Option<&'static ImagePreset>,

    /// Height and width of pictures, for example 224 or 480x640; by default the input's.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    image_size: Option<(u32, u32)>,

    /// Subtracted from pixel values of 0..1, by channel.
    #[arg(long, value_name = "A,B,C", value_parser = parse_triple)]
    mean: Option<[f32; 3]>,

    /// Divides pixel values after --mean, by channel.
    #[arg(long, value_name = "A,B,C", value_parser = parse_triple)]
    std: Option<[f32; 3]>,

    /// Axis order of pictures; by default found from the input's shape.
    #[arg(long, value_enum)]
    layout: Option<LayoutName>,

    /// Channel order of pictures.
    #[arg(long, value_enum)]
    channel_order: Option<OrderName>,

    /// The tokenizer of texts, as Hugging Face's library writes it; by default tokenizer.json beside the model.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,

    /// Tokens of a sample of texts; by default 512, or as many as model and tokenizer take.
    #[arg(long, value_name = "N")]
    sequence_length: Option<NonZero<usize>>,

    /// Under which a line of a .jsonl file holds its text; by default `text`.
    #[arg(long, value_name = "NAME")]
    text_key: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutName {
    Nchw,
    Nhwc,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderName {
    Rgb,
    Bgr,
}

impl DataArgs {
    /// Whether anything is said about samples.
    pub(crate) fn is_given(&self) -> bool {
        self.samples.is_some() || !self.calib_map.is_empty() || self.has_image_options() || self.has_text_options()
    }

    /// Whether anything is said about pictures.
    fn has_image_options(&self) -> bool {
        self.preprocessor.is_some()
            || self.image_preset.is_some()
            || self.image_size.is_some()
            || self.mean.is_some()
            || self.std.is_some()
            || self.layout.is_some()
            || self.channel_order.is_some()
    }

    /// Whether anything is said about texts.
    fn has_text_options(&self) -> bool {
        self.tokenizer.is_some() || self.sequence_length.is_some() || self.text_key.is_some()
    }

    /// The samples in `path` for `model`.
    pub(crate) fn config(&self, path: PathBuf, model: &Path) -> DataConfig {
        let image = self.has_image_options().then(|| ImageOptions {
            base: match (&self.preprocessor, self.image_preset) {
                (Some(path), _) => ImageBase::Processor(path.clone()),
                (None, Some(preset)) => ImageBase::Preset(preset),
                (None, None) => ImageBase::Found,
            },
            size: self.image_size,
            layout: self.layout.map(|layout| match layout {
                LayoutName::Nchw => ImageLayout::Nchw,
                LayoutName::Nhwc => ImageLayout::Nhwc,
            }),
            channel_order: self.channel_order.map(|order| match order {
                OrderName::Bgr => ChannelOrder::Bgr,
                OrderName::Rgb => ChannelOrder::Rgb,
            }),
            mean: self.mean,
            std: self.std,
        });
        let text = self.has_text_options().then(|| TextOptions {
            tokenizer: self.tokenizer.clone(),
            length: self.sequence_length.map(NonZero::get),
            key: self.text_key.clone(),
        });
        let (samples, model_folder) = (self.samples.map(NonZero::get), model.parent().map(Path::to_owned));
        let names = self.calib_map.clone();
        let options = DataOptions { samples, names, image, text, model_folder, ..DataOptions::default() };
        DataConfig { path: entered(&path), options, cache: None }
    }
}

/// The presets of the library.
fn preset_parser() -> impl TypedValueParser<Value = &'static ImagePreset> {
    let values = IMAGE_PRESETS.iter().map(|preset| PossibleValue::new(preset.name).help(preset.about));
    PossibleValuesParser::new(values)
        .try_map(|name| ImagePreset::named(&name).ok_or_else(|| format!("there is no preset `{name}`")))
}

fn parse_name(text: &str) -> Result<(String, String), String> {
    let names = text.split_once('=').filter(|(array, _)| !array.is_empty());
    let names = names.map(|(array, input)| (array.trim().to_owned(), input.trim().to_owned()));
    names.ok_or_else(|| "expected the name of an array and that of an input, for example pixels=x".to_owned())
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|&n| n > 0);
    let size = match text.split_once('x') {
        Some((height, width)) => number(height).zip(number(width)),
        None => number(text).map(|side| (side, side)),
    };
    size.ok_or_else(|| "expected a number of pixels, or height x width, for example 480x640".to_owned())
}

fn parse_triple(text: &str) -> Result<[f32; 3], String> {
    let numbers = text.split(',').map(|part| part.trim().parse::<f32>().ok()).collect::<Option<Vec<_>>>();
    match numbers.as_deref() {
        Some([one]) => Ok([*one; 3]),
        Some([a, b, c]) => Ok([*a, *b, *c]),
        _ => Err("expected one number or three separated by commas".to_owned()),
    }
}
