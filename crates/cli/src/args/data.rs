//! Flags that say how samples are read.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use onnxquant::DataConfig;
use onnxquant::calib::{ChannelOrder, DataOptions, ImageLayout, ImageOptions};

/// How samples are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Samples")]
pub(crate) struct DataArgs {
    /// Use this many samples, evenly spaced over the sorted files.
    #[arg(long, value_name = "N")]
    samples: Option<NonZero<usize>>,

    /// Preprocessing of pictures as a whole; the other options change parts of it.
    #[arg(long, value_enum)]
    image_preset: Option<ImagePreset>,

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
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ImagePreset {
    Imagenet,
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
        self.samples.is_some() || self.has_image_options()
    }

    /// Whether anything is said about pictures.
    fn has_image_options(&self) -> bool {
        self.image_preset.is_some()
            || self.image_size.is_some()
            || self.mean.is_some()
            || self.std.is_some()
            || self.layout.is_some()
            || self.channel_order.is_some()
    }

    pub(crate) fn config(&self, path: PathBuf) -> DataConfig {
        let preset = match self.image_preset {
            Some(ImagePreset::Imagenet) => ImageOptions::imagenet(),
            None => ImageOptions::default(),
        };
        let image = self.has_image_options().then(|| ImageOptions {
            size: self.image_size.or(preset.size),
            mean: self.mean.unwrap_or(preset.mean),
            std: self.std.unwrap_or(preset.std),
            layout: self.layout.map(|layout| match layout {
                LayoutName::Nchw => ImageLayout::Nchw,
                LayoutName::Nhwc => ImageLayout::Nhwc,
            }),
            channel_order: match self.channel_order {
                Some(OrderName::Bgr) => ChannelOrder::Bgr,
                Some(OrderName::Rgb) => ChannelOrder::Rgb,
                None => preset.channel_order,
            },
            ..preset
        });
        let options = DataOptions { samples: self.samples.map(NonZero::get), image, ..DataOptions::default() };
        DataConfig { path, options, cache: None }
    }
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
