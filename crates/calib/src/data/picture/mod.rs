//! Turns pictures into tensors.
//!
//! A picture is decoded and turned upright (as its EXIF data say), scaled, laid on what the model sees ([`fit`]), and
//! its pixels become values ([`recipe`]). An input of an integer type takes the pixels as they are.

mod decode;
mod describe;
mod fit;
mod options;
mod processor;
mod recipe;
mod resample;

use std::path::Path;

use half::f16;
use ndarray::{Array3, Axis, s};

pub(crate) use decode::{EXTENSIONS, dimensions};
pub use options::{ImageBase, ImageOptions};
pub use recipe::{ChannelOrder, IMAGE_PRESETS, ImageLayout, ImagePreset};

use super::check::wrong_shape;
use super::masks::{Filled, Shown};
use super::part::Part;
use super::{DataOptions, Dim, InputSpec};
use crate::error::CalibError;
use crate::tensor::{ElementType, Tensor};
use decode::decode;
use fit::{Fill, Fit, Geometry, Size};
use recipe::Recipe;
use resample::resample;

/// What is done to pictures for one graph input.
#[derive(Debug, Clone)]
pub(crate) struct Preparation {
    spec: InputSpec,
    recipe: Recipe,
    /// Who says so; empty where nobody does.
    origin: String,
    layout: ImageLayout,
    channels: usize,
    /// What the model takes, or was asked for.
    size: Option<Size>,
    batch_axis: bool,
}

impl Preparation {
    /// Settles layout and size for an input; the pictures lie in `data`.
    pub(crate) fn new(spec: &InputSpec, data: &Path, options: &DataOptions) -> Result<Self, CalibError> {
        let image = options.image.clone().unwrap_or_default();
        let (recipe, origin) = image.recipe(data, options)?;
        let fail = |reason: &str| image_error(spec, reason);
        if recipe.std.iter().any(|s| !s.is_normal()) {
            return Err(fail("a standard deviation is zero or not finite"));
        }
        if spec.element == ElementType::Bool {
            return Err(fail("it is boolean"));
        }
        let (batch_axis, axes) = axes(spec).map_err(fail)?;
        let layout = image
            .layout
            .or_else(|| layout_of(axes))
            .ok_or_else(|| fail("no axis has 1 or 3 channels; give the layout"))?;
        let [channels, rows, columns] = match layout {
            ImageLayout::Nchw => axes,
            ImageLayout::Nhwc => [axes[2], axes[0], axes[1]],
        };
        let channels = match channels {
            Dim::Fixed(n @ (1 | 3)) => *n,
            Dim::Fixed(_) => return Err(fail("only 1 or 3 channels can be filled")),
            _ => 3,
        };
        let size = image.size.or_else(|| fixed(rows).zip(fixed(columns)));
        let made = Self { spec: spec.clone(), recipe, origin, layout, channels, size, batch_axis };
        // Where the size depends on pictures, they tell.
        if let Some(size) = made.fixed_size().map_err(|reason| fail(&reason))? {
            let shape = made.shape(size);
            if !spec.accepts(&shape) {
                return Err(fail(&format!("{} to shape {shape:?}{}", made.who_leads(), made.remedy())));
            }
        }
        Ok(made)
    }

    /// What the model sees of every picture, where that does not depend on the picture.
    fn fixed_size(&self) -> Result<Option<Size>, String> {
        let of = |picture| self.recipe.fit.geometry(picture, self.size).map(|geometry| geometry.canvas);
        let (wide, high) = (of((480, 640))?, of((640, 480))?);
        Ok((wide == high).then_some(wide))
    }

    fn who_leads(&self) -> String {
        if self.origin.is_empty() { "the options lead".to_owned() } else { format!("`{}` leads", self.origin) }
    }

    fn remedy(&self) -> String {
        match (&self.recipe.fit, self.spec_size()) {
            (Fit::Steps(_), Some((height, width))) => format!("; `--image-size {height}x{width}` scales to the input"),
            _ => String::new(),
        }
    }

    fn spec_size(&self) -> Option<Size> {
        let (_, axes) = axes(&self.spec).ok()?;
        let [rows, columns] = match self.layout {
            ImageLayout::Nchw => [axes[1], axes[2]],
            ImageLayout::Nhwc => [axes[0], axes[1]],
        };
        fixed(rows).zip(fixed(columns))
    }

    /// The shape of a tensor of this size.
    fn shape(&self, (height, width): Size) -> Vec<usize> {
        let (h, w) = (height as usize, width as usize);
        let mut shape = match self.layout {
            ImageLayout::Nchw => vec![self.channels, h, w],
            ImageLayout::Nhwc => vec![h, w, self.channels],
        };
        if self.batch_axis {
            shape.insert(0, 1);
        }
        shape
    }

    fn geometry(&self, picture: Size) -> Result<Geometry, CalibError> {
        self.recipe.fit.geometry(picture, self.size).map_err(|reason| image_error(&self.spec, &reason))
    }

    fn value(&self, pixel: u8, channel: usize) -> f32 {
        (f32::from(pixel) * self.recipe.scale - self.recipe.mean[channel]) / self.recipe.std[channel]
    }

    fn normalized(&self, pixels: &Array3<u8>) -> Array3<f32> {
        let mut values = pixels.mapv(f32::from);
        for (channel, mut plane) in values.axis_iter_mut(Axis(2)).enumerate() {
            let (mean, std) = (self.recipe.mean[channel], self.recipe.std[channel]);
            plane.mapv_inplace(|pixel| (pixel * self.recipe.scale - mean) / std);
        }
        values
    }

    fn values(&self, values: &Array3<f32>) -> Tensor {
        let values = self.arranged(values);
        match self.spec.element {
            ElementType::F64 => Tensor::F64(values.mapv(f64::from)),
            ElementType::F16 => Tensor::F16(values.mapv(f16::from_f32)),
            _ => Tensor::F32(values),
        }
    }

    fn pixels(&self, pixels: &Array3<u8>) -> Tensor {
        let pixels = self.arranged(pixels);
        match self.spec.element {
            ElementType::U16 => Tensor::U16(pixels.mapv(u16::from)),
            ElementType::U32 => Tensor::U32(pixels.mapv(u32::from)),
            ElementType::U64 => Tensor::U64(pixels.mapv(u64::from)),
            ElementType::I8 => Tensor::I8(pixels.mapv(|p| i8::try_from(p).unwrap_or(i8::MAX))),
            ElementType::I16 => Tensor::I16(pixels.mapv(i16::from)),
            ElementType::I32 => Tensor::I32(pixels.mapv(i32::from)),
            ElementType::I64 => Tensor::I64(pixels.mapv(i64::from)),
            _ => Tensor::U8(pixels),
        }
    }

    /// `[rows, columns, channels]` in the order of the input's axes.
    fn arranged<T: Clone>(&self, picture: &Array3<T>) -> ndarray::ArrayD<T> {
        let turned = match self.layout {
            ImageLayout::Nchw => picture.view().permuted_axes([2, 0, 1]),
            ImageLayout::Nhwc => picture.view(),
        };
        let array = turned.as_standard_layout().into_owned().into_dyn();
        if self.batch_axis { array.insert_axis(Axis(0)) } else { array }
    }
}

impl Shown for Preparation {
    fn scan(&self, part: &Part) -> Result<Vec<usize>, CalibError> {
        let geometry = self.geometry(dimensions(part)?)?;
        let shape = self.shape(geometry.canvas);
        if self.spec.accepts(&shape) {
            Ok(shape)
        } else {
            Err(wrong_shape(part.label(), &self.spec, &shape, &self.remedy()))
        }
    }

    fn load(&self, part: &Part) -> Result<Tensor, CalibError> {
        let picture = decode(part, self.channels)?;
        let (height, width, _) = picture.dim();
        let side = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let geometry = self.geometry((side(height), side(width)))?;
        let mut seen = geometry.seen(&picture, &self.recipe);
        drop(picture);
        if self.recipe.channel_order == ChannelOrder::Bgr {
            seen.invert_axis(Axis(2));
        }
        Ok(match self.spec.element.is_float() {
            true => self.values(&geometry.laid(&self.normalized(&seen), |channel| match geometry.fill {
                Fill::Pixel(pixel) => self.value(pixel, channel),
                Fill::Zero => 0.0,
            })),
            false => self.pixels(&geometry.laid(&seen, |_| match geometry.fill {
                Fill::Pixel(pixel) => pixel,
                Fill::Zero => 0,
            })),
        })
    }

    fn filled(&self, part: &Part) -> Result<Filled, CalibError> {
        Ok(self.geometry(dimensions(part)?)?.filled())
    }
}

impl Geometry {
    /// What is seen of the scaled picture.
    fn seen(&self, picture: &Array3<u8>, recipe: &Recipe) -> Array3<u8> {
        let kept = |at: i64, scaled: u32, canvas: u32| {
            let first = usize::try_from(-at).unwrap_or(0);
            let end = i64::from(canvas).saturating_sub(at).clamp(0, i64::from(scaled));
            first..usize::try_from(end).unwrap_or(0).max(first)
        };
        let kept = (kept(self.at.0, self.scaled.0, self.canvas.0), kept(self.at.1, self.scaled.1, self.canvas.1));
        resample(picture, (self.scaled.0 as usize, self.scaled.1 as usize), kept, recipe.filter)
    }

    /// How much of the canvas it covers.
    fn filled(&self) -> Filled {
        let given = |at: i64, scaled: u32, canvas: u32| {
            let end = at.saturating_add(i64::from(scaled)).clamp(0, i64::from(canvas));
            usize::try_from(at).unwrap_or(0)..usize::try_from(end).unwrap_or(0)
        };
        let given = [(self.at.0, self.scaled.0, self.canvas.0), (self.at.1, self.scaled.1, self.canvas.1)]
            .map(|(at, scaled, canvas)| given(at, scaled, canvas));
        Filled { lengths: vec![self.canvas.0 as usize, self.canvas.1 as usize], given: given.to_vec() }
    }

    /// That on the canvas, with `fill`, by channel, around it.
    fn laid<T: Clone>(&self, seen: &Array3<T>, fill: impl Fn(usize) -> T) -> Array3<T> {
        let (height, width, channels) = seen.dim();
        let (rows, columns) = (self.canvas.0 as usize, self.canvas.1 as usize);
        if (height, width) == (rows, columns) {
            return seen.clone();
        }
        let mut canvas = Array3::from_shape_fn((rows, columns, channels), |(_, _, channel)| fill(channel));
        let [top, left] = [self.at.0, self.at.1].map(|at| usize::try_from(at).unwrap_or(0));
        canvas.slice_mut(s![top..top + height, left..left + width, ..]).assign(seen);
        canvas
    }
}

/// Whether an input has a batch axis, and its other three.
fn axes(spec: &InputSpec) -> Result<(bool, [&Dim; 3]), &'static str> {
    match spec.dims.as_deref().ok_or("its rank is not declared")? {
        [batch, a, b, c] if !matches!(batch, Dim::Fixed(n) if *n != 1) => Ok((true, [a, b, c])),
        [a, b, c] => Ok((false, [a, b, c])),
        _ => Err("expected 3 axes, or 4 with a batch of 1 first"),
    }
}

fn layout_of([first, _, last]: [&Dim; 3]) -> Option<ImageLayout> {
    let has_channels = |dim: &Dim| matches!(dim, Dim::Fixed(1 | 3));
    match (has_channels(first), has_channels(last)) {
        (true, _) => Some(ImageLayout::Nchw),
        (false, true) => Some(ImageLayout::Nhwc),
        (false, false) => None,
    }
}

fn fixed(dim: &Dim) -> Option<u32> {
    match dim {
        Dim::Fixed(length) => u32::try_from(*length).ok(),
        _ => None,
    }
}

fn image_error(spec: &InputSpec, reason: &str) -> CalibError {
    CalibError::ImageOptions { name: spec.name.clone(), shape: spec.shape_text(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
