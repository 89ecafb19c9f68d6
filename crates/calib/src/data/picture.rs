//! Turns pictures into tensors.
//!
//! ```text
//! value = (pixel * scale - mean[c]) / std[c]        pixel in 0..=255, c in the chosen order
//! ```
//!
//! Size and layout come from the graph input's shape unless options say otherwise. Resizing
//! uses a triangle filter whose support grows when shrinking (bilinear with antialiasing, as
//! Pillow's `BILINEAR`). An input of an integer type takes the pixels as they are.

use std::path::Path;

use half::f16;
use image::{DynamicImage, ImageReader, imageops::FilterType};
use ndarray::{Array3, ArrayD, Axis};

use super::{Dim, InputSpec};
use crate::error::{CalibError, FormatError};
use crate::tensor::{ElementType, Tensor, narrow};

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

/// How a picture is brought to the input's size.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ImageFit {
    /// Both sides are scaled to the size, whatever the picture's proportions.
    #[default]
    Stretch,
    /// The largest centred piece of the input's proportions, times this factor, is scaled.
    CenterCrop(f32),
}

/// How pictures become tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageOptions {
    /// Height and width; by default those of the graph input.
    pub size: Option<(u32, u32)>,
    /// Axis order; by default found from where the graph input has 1 or 3 channels.
    pub layout: Option<ImageLayout>,
    /// Colour order.
    pub channel_order: ChannelOrder,
    /// Factor from pixel values of 0..255, applied first.
    pub scale: f32,
    /// Subtracted after scaling, by channel in the chosen order.
    pub mean: [f32; 3],
    /// Divides after subtraction, by channel in the chosen order.
    pub std: [f32; 3],
    /// How proportions are treated.
    pub fit: ImageFit,
}

impl Default for ImageOptions {
    /// Values from 0 to 1, red first, stretched.
    fn default() -> Self {
        Self {
            size: None,
            layout: None,
            channel_order: ChannelOrder::Rgb,
            scale: 1.0 / 255.0,
            mean: [0.0; 3],
            std: [1.0; 3],
            fit: ImageFit::Stretch,
        }
    }
}

impl ImageOptions {
    /// The preprocessing of most ImageNet classifiers (torchvision's): scale 1/255, mean
    /// 0.485, 0.456, 0.406, standard deviation 0.229, 0.224, 0.225 for red, green, blue, and
    /// the central 87.5 % (224 of 256) of the largest centred piece.
    pub fn imagenet() -> Self {
        Self {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            fit: ImageFit::CenterCrop(0.875),
            ..Self::default()
        }
    }
}

/// The options that hold for one graph input.
#[derive(Debug, Clone)]
pub(crate) struct Preparation {
    options: ImageOptions,
    layout: ImageLayout,
    channels: usize,
    height: u32,
    width: u32,
    element: ElementType,
    batch_axis: bool,
}

impl Preparation {
    /// Settles layout and size for an input.
    pub(crate) fn new(spec: &InputSpec, options: &ImageOptions) -> Result<Self, CalibError> {
        let fail = |reason: &str| CalibError::ImageOptions {
            name: spec.name.clone(),
            shape: spec.shape_text(),
            reason: reason.into(),
        };
        if options.std.iter().any(|s| !s.is_normal()) {
            return Err(fail("a standard deviation is zero or not finite"));
        }
        let dims = spec.dims.as_deref().ok_or_else(|| fail("its rank is not declared"))?;
        let (batch_axis, [a, b, c]) = match dims {
            [batch, a, b, c] if !matches!(batch, Dim::Fixed(n) if *n != 1) => (true, [a, b, c]),
            [a, b, c] => (false, [a, b, c]),
            _ => return Err(fail("expected 3 axes, or 4 with a batch of 1 first")),
        };
        let channels_in = |d: &Dim| matches!(d, Dim::Fixed(1 | 3));
        let layout = match options.layout {
            Some(layout) => layout,
            None if channels_in(a) => ImageLayout::Nchw,
            None if channels_in(c) => ImageLayout::Nhwc,
            None => return Err(fail("no axis has 1 or 3 channels; give the layout")),
        };
        let (channels, rows, columns) = match layout {
            ImageLayout::Nchw => (a, b, c),
            ImageLayout::Nhwc => (c, a, b),
        };
        let channels = match channels {
            Dim::Fixed(n @ (1 | 3)) => *n,
            Dim::Fixed(_) => return Err(fail("only 1 or 3 channels can be filled")),
            _ => 3,
        };
        let side = |d: &Dim, given: Option<u32>| match (d, given) {
            (_, Some(n)) => Some(n),
            (Dim::Fixed(n), None) => u32::try_from(*n).ok(),
            _ => None,
        };
        let height = side(rows, options.size.map(|s| s.0));
        let width = side(columns, options.size.map(|s| s.1));
        let (Some(height @ 1..=16384), Some(width @ 1..=16384)) = (height, width) else {
            return Err(fail("the size is not fixed by the model; give height and width (1 to 16384)"));
        };
        if spec.element == ElementType::Bool {
            return Err(fail("it is boolean"));
        }
        let made =
            Self { options: options.clone(), layout, channels, height, width, element: spec.element, batch_axis };
        if !spec.accepts(&made.shape()) {
            return Err(fail(&format!("the options lead to shape {:?}", made.shape())));
        }
        Ok(made)
    }

    /// The shape of the tensors made.
    pub(crate) fn shape(&self) -> Vec<usize> {
        let (h, w) = (self.height as usize, self.width as usize);
        let mut shape = match self.layout {
            ImageLayout::Nchw => vec![self.channels, h, w],
            ImageLayout::Nhwc => vec![h, w, self.channels],
        };
        if self.batch_axis {
            shape.insert(0, 1);
        }
        shape
    }

    /// Decodes and converts a picture.
    pub(crate) fn load(&self, path: &Path) -> Result<Tensor, CalibError> {
        let malformed = |source: FormatError| CalibError::Malformed { path: path.into(), source };
        let picture = open(path)?.decode().map_err(|e| malformed(e.into()))?;
        let pixels = self.pixels(&self.fit(&picture));
        let pixels = match self.layout {
            ImageLayout::Nchw => pixels.permuted_axes([2, 0, 1]),
            ImageLayout::Nhwc => pixels,
        };
        let pixels = pixels.as_standard_layout().into_owned().into_dyn();
        Ok(self.element_values(if self.batch_axis { pixels.insert_axis(Axis(0)) } else { pixels }))
    }

    fn fit(&self, picture: &DynamicImage) -> DynamicImage {
        let cropped = match self.options.fit {
            ImageFit::Stretch => None,
            ImageFit::CenterCrop(ratio) => {
                let (w, h) = (f64::from(picture.width()), f64::from(picture.height()));
                let unit =
                    (w / f64::from(self.width)).min(h / f64::from(self.height)) * f64::from(ratio.clamp(0.01, 1.0));
                let (cw, ch) = (pixels_in(unit * f64::from(self.width)), pixels_in(unit * f64::from(self.height)));
                let (cw, ch) = (cw.min(picture.width()), ch.min(picture.height()));
                Some(picture.crop_imm((picture.width() - cw) / 2, (picture.height() - ch) / 2, cw, ch))
            }
        };
        cropped.as_ref().unwrap_or(picture).resize_exact(self.width, self.height, FilterType::Triangle)
    }

    /// Pixel values `[height, width, channels]` in the chosen colour order.
    fn pixels(&self, picture: &DynamicImage) -> Array3<u8> {
        let raw = if self.channels == 1 { picture.to_luma8().into_raw() } else { picture.to_rgb8().into_raw() };
        let shape = (self.height as usize, self.width as usize, self.channels);
        let mut pixels = Array3::from_shape_vec(shape, raw).expect("resize_exact gives the asked size");
        if self.options.channel_order == ChannelOrder::Bgr {
            pixels.invert_axis(Axis(2));
        }
        pixels
    }

    fn element_values(&self, pixels: ArrayD<u8>) -> Tensor {
        match self.element {
            ElementType::F32 => Tensor::F32(self.normalized(&pixels)),
            ElementType::F64 => Tensor::F64(self.normalized(&pixels).mapv(f64::from)),
            ElementType::F16 => Tensor::F16(self.normalized(&pixels).mapv(f16::from_f32)),
            ElementType::U8 | ElementType::Bool => Tensor::U8(pixels),
            ElementType::U16 => Tensor::U16(pixels.mapv(u16::from)),
            ElementType::U32 => Tensor::U32(pixels.mapv(u32::from)),
            ElementType::U64 => Tensor::U64(pixels.mapv(u64::from)),
            ElementType::I8 => Tensor::I8(pixels.mapv(|p| i8::try_from(p).unwrap_or(i8::MAX))),
            ElementType::I16 => Tensor::I16(pixels.mapv(i16::from)),
            ElementType::I32 => Tensor::I32(pixels.mapv(i32::from)),
            ElementType::I64 => Tensor::I64(pixels.mapv(i64::from)),
        }
    }

    fn normalized(&self, pixels: &ArrayD<u8>) -> ArrayD<f32> {
        let mut values = pixels.mapv(f32::from);
        let channel_axis = match self.layout {
            ImageLayout::Nchw => values.ndim() - 3,
            ImageLayout::Nhwc => values.ndim() - 1,
        };
        for (c, mut plane) in values.axis_iter_mut(Axis(channel_axis)).enumerate() {
            let (mean, std) = (self.options.mean[c], self.options.std[c]);
            plane.mapv_inplace(|p| (p * self.options.scale - mean) / std);
        }
        values
    }
}

/// Reads just enough of a picture to know that it is one.
pub(crate) fn check_picture(path: &Path) -> Result<(), CalibError> {
    let dimensions = open(path)?.into_dimensions();
    dimensions.map(|_| ()).map_err(|e| CalibError::Malformed { path: path.into(), source: e.into() })
}

fn open(path: &Path) -> Result<ImageReader<std::io::BufReader<std::fs::File>>, CalibError> {
    let io = |source| CalibError::Io { path: path.into(), source };
    ImageReader::open(path).map_err(io)?.with_guessed_format().map_err(io)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of pictures")]
fn pixels_in(length: f64) -> u32 {
    f64::from(narrow(length)).round().clamp(1.0, 1e6) as u32
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn spec(dims: &[usize], element: ElementType) -> InputSpec {
        let dims = dims.iter().map(|&n| if n == 0 { Dim::Unknown } else { Dim::Fixed(n) }).collect();
        InputSpec { name: "image".into(), element, dims: Some(dims), optional: false }
    }

    fn picture(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("a.png");
        RgbImage::from_fn(8, 4, |x, _| if x < 4 { Rgb([255, 0, 51]) } else { Rgb([0, 0, 0]) }).save(&path).unwrap();
        path
    }

    #[test]
    fn pixels_are_scaled_and_put_in_the_models_layout() {
        let dir = tempfile::tempdir().unwrap();
        let path = picture(dir.path());
        let chw = Preparation::new(&spec(&[1, 3, 4, 8], ElementType::F32), &ImageOptions::default()).unwrap();
        let a = chw.load(&path).unwrap().to_f32().unwrap();
        assert_eq!((a.shape(), a[[0, 0, 1, 1]]), (&[1, 3, 4, 8][..], 1.0));
        assert!((a[[0, 2, 1, 1]] - 0.2).abs() < 1e-6);
        let bgr = ImageOptions {
            channel_order: ChannelOrder::Bgr,
            mean: [0.2, 0.5, 0.5],
            std: [0.5; 3],
            ..ImageOptions::default()
        };
        let hwc = Preparation::new(&spec(&[4, 8, 3], ElementType::F32), &bgr).unwrap();
        let a = hwc.load(&path).unwrap().to_f32().unwrap();
        assert_eq!((a.shape(), a[[1, 1, 2]]), (&[4, 8, 3][..], 1.0));
        assert!(a[[1, 1, 0]].abs() < 1e-6);
    }

    #[test]
    fn center_crop_keeps_proportions() {
        let dir = tempfile::tempdir().unwrap();
        let path = picture(dir.path());
        let options = ImageOptions { fit: ImageFit::CenterCrop(1.0), ..ImageOptions::default() };
        let bytes = Preparation::new(&spec(&[0, 3, 4, 4], ElementType::U8), &options).unwrap();
        let Tensor::U8(a) = bytes.load(&path).unwrap() else { panic!("uint8 expected") };
        assert_eq!((a[[0, 0, 0, 1]], a[[0, 0, 0, 2]]), (255, 0), "the edge stays in the middle");
    }

    #[test]
    fn unsuited_inputs_are_refused() {
        let rows =
            [(vec![1, 5, 4, 4], "no axis has"), (vec![1, 3, 0, 0], "give height"), (vec![7, 7], "expected 3 axes")];
        for (dims, expected) in rows {
            let error = Preparation::new(&spec(&dims, ElementType::F32), &ImageOptions::default()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
