//! Scales pictures as Pillow does.
//!
//! # Problem
//! A model was trained on pictures that Pillow scaled. Another filter gives other pixels, most of all where a picture
//! shrinks: Pillow widens its filters then, so that every pixel of the source counts.
//!
//! # Method
//! Along each axis, output pixel `i` is a weighted mean of source pixels:
//!
//! ```text
//! centre = (i + 1/2) * scale            scale = source length / output length
//! weight(j) = filter((j + 1/2 - centre) / max(scale, 1)), normalized to a sum of 1
//! ```
//!
//! Rows first, then columns, and what lies between is rounded to bytes. Weights have 22 bits behind the point, as
//! Pillow's for 8-bit pictures. Without antialiasing `max(scale, 1)` is 1, as in OpenCV.
//!
//! # Guarantee
//! The same bytes as `Image.resize` of Pillow up to 12, which a test compares for every filter. Pillow 13 starts with
//! the axis that leaves less to do, which changes a few pixels by up to 3 of 255.
//!
//! # Cost
//! Only the pixels of the window that is kept are computed.

use std::ops::Range;

use ndarray::{Array3, ArrayView3};

/// Bits of a weight behind the point: 8 for the pixel and 2 for sums above 1 are left of 32.
const WEIGHT_BITS: u32 = 22;

/// How source pixels are weighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

impl Kernel {
    /// In the order of Pillow's numbers.
    const ALL: [Self; 6] = [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming];

    /// That of one of Pillow's numbers.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Its name in Pillow, in small letters.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Lanczos => "lanczos",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Box => "box",
            Self::Hamming => "hamming",
        }
    }

    /// That of a name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kernel| kernel.name().eq_ignore_ascii_case(name))
    }

    /// How far from its centre it is not zero.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Hamming if distance < 1.0 => sinc(x) * (0.54 + 0.46 * (std::f64::consts::PI * x).cos()),
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Bicubic => bicubic(distance),
            Self::Hamming | Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let turned = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { turned.sin() / turned }
}

/// Keys' cubic with a = -1/2, which is Pillow's.
fn bicubic(distance: f64) -> f64 {
    const A: f64 = -0.5;
    match distance {
        d if d < 1.0 => ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0,
        d if d < 2.0 => (((d - 5.0) * d + 8.0) * d - 4.0) * A,
        _ => 0.0,
    }
}

/// A kernel, and whether it widens where pictures shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) kernel: Kernel,
    pub(crate) antialias: bool,
}

impl Filter {
    /// As Pillow has it.
    pub(crate) const fn pillow(kernel: Kernel) -> Self {
        Self { kernel, antialias: true }
    }
}

/// What an output pixel is made of: these weights for the source pixels from `first` on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

impl Taps {
    /// Those of the output pixels in `kept` of `output` that `input` pixels become.
    fn of(filter: Filter, input: usize, output: usize, kept: Range<usize>) -> Vec<Self> {
        let scale = input as f64 / output as f64;
        let place = |pixel: usize| (pixel as f64 + 0.5) * scale;
        match filter.kernel {
            Kernel::Nearest => Self::nearest(input, scale, kept),
            _ => kept.map(|pixel| Self::around(filter, input, place(pixel), scale)).collect(),
        }
    }

    /// Places are summed up one by one, as Pillow does, so that those between two pixels go the same way.
    fn nearest(input: usize, scale: f64, kept: Range<usize>) -> Vec<Self> {
        let places = std::iter::successors(Some(scale * 0.5), |place| Some(place + scale));
        let pixels = places.map(|place| floor(place).min(input.saturating_sub(1)));
        let kept = pixels.skip(kept.start).take(kept.len());
        kept.map(|first| Self { first, weights: vec![1 << WEIGHT_BITS] }).collect()
    }

    fn around(filter: Filter, input: usize, centre: f64, scale: f64) -> Self {
        let width = if filter.antialias { scale.max(1.0) } else { 1.0 };
        let support = filter.kernel.support() * width;
        let first = floor(centre - support + 0.5).min(input);
        let end = floor(centre + support + 0.5).min(input);
        let weights: Vec<f64> =
            (first..end).map(|pixel| filter.kernel.at((pixel as f64 - centre + 0.5) / width)).collect();
        let sum: f64 = weights.iter().sum();
        let weights = weights.into_iter().map(|weight| fixed(if sum == 0.0 { weight } else { weight / sum }));
        Self { first, weights: weights.collect() }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sides of pictures; below zero is zero")]
fn floor(x: f64) -> usize {
    x.max(0.0) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "weights are a little above 1 at most")]
fn fixed(weight: f64) -> i32 {
    (weight * f64::from(1 << WEIGHT_BITS)).round() as i32
}

/// A weighted sum, as a byte.
fn byte(sum: i64) -> u8 {
    let rounded = (sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS;
    u8::try_from(rounded.clamp(0, 255)).unwrap_or(u8::MAX)
}

/// The rows and columns in `kept` of `picture` (`[rows, columns, channels]`) scaled to `size` (rows and columns).
pub(crate) fn resample(
    picture: &Array3<u8>,
    size: (usize, usize),
    kept: (Range<usize>, Range<usize>),
    filter: Filter,
) -> Array3<u8> {
    let (height, width, channels) = picture.dim();
    let down = Taps::of(filter, height, size.0, kept.0);
    let across = Taps::of(filter, width, size.1, kept.1);
    // Rows above and below those that count are not scaled.
    let first = down.iter().map(|taps| taps.first).min().unwrap_or(0);
    let end = down.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or(0).clamp(first, height);
    let rows = scaled_across(picture.slice(ndarray::s![first..end, .., ..]), &across);
    let values = scaled_down(&rows, across.len() * channels, &down, first);
    Array3::from_shape_vec((down.len(), across.len(), channels), values).expect("a byte for every tap and channel")
}

fn scaled_across(picture: ArrayView3<'_, u8>, across: &[Taps]) -> Vec<u8> {
    let (height, _, channels) = picture.dim();
    let mut values = Vec::with_capacity(height * across.len() * channels);
    for row in picture.outer_iter() {
        let row = row.to_slice().expect("pictures lie in memory row by row");
        for taps in across {
            let pixels = row.get(taps.first * channels..).unwrap_or_default();
            for channel in 0..channels {
                let channel = pixels.iter().skip(channel).step_by(channels);
                let products = channel.zip(&taps.weights).map(|(&pixel, &weight)| i64::from(pixel) * i64::from(weight));
                values.push(byte(products.sum()));
            }
        }
    }
    values
}

fn scaled_down(rows: &[u8], length: usize, down: &[Taps], first: usize) -> Vec<u8> {
    let mut values = Vec::with_capacity(down.len() * length);
    let mut sums = vec![0_i64; length];
    for taps in down {
        sums.fill(0);
        let rows = rows.chunks_exact(length.max(1)).skip(taps.first.saturating_sub(first));
        for (row, &weight) in rows.zip(&taps.weights) {
            sums.iter_mut().zip(row).for_each(|(sum, &pixel)| *sum += i64::from(pixel) * i64::from(weight));
        }
        values.extend(sums.iter().map(|&sum| byte(sum)));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(height: usize, width: usize) -> Array3<u8> {
        Array3::from_shape_fn((height, width, 3), |(y, x, c)| u8::try_from((y * 37 + x * 11 + c * 5) % 256).unwrap())
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let picture = ramp(5, 7);
        for kernel in Kernel::ALL {
            assert_eq!(resample(&picture, (5, 7), (0..5, 0..7), Filter::pillow(kernel)), picture, "{kernel:?}");
        }
    }

    #[test]
    fn a_window_is_a_piece_of_the_whole() {
        let picture = ramp(40, 31);
        for kernel in Kernel::ALL {
            let whole = resample(&picture, (13, 50), (0..13, 0..50), Filter::pillow(kernel));
            let window = resample(&picture, (13, 50), (4..9, 20..27), Filter::pillow(kernel));
            assert_eq!(window, whole.slice(ndarray::s![4..9, 20..27, ..]), "{kernel:?}");
        }
    }

    #[test]
    fn shrinking_averages_and_without_antialiasing_skips() {
        let stripes = Array3::from_shape_fn((1, 8, 1), |(_, x, _)| if x % 4 == 0 { 200 } else { 0 });
        let shrunk = |antialias| resample(&stripes, (1, 2), (0..1, 0..2), Filter { kernel: Kernel::Box, antialias });
        assert_eq!(shrunk(true).into_raw_vec_and_offset().0, [50, 50]);
        assert_eq!(shrunk(false).into_raw_vec_and_offset().0, [0, 0]);
    }

    #[test]
    fn numbers_and_names_are_those_of_pillow() {
        let names: Vec<_> = (0..7).map(|number| Kernel::from_number(number).map(Kernel::name)).collect();
        let expected = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"];
        assert_eq!(names, expected.into_iter().map(Some).chain([None]).collect::<Vec<_>>());
        assert_eq!(Kernel::from_name("BICUBIC"), Some(Kernel::Bicubic));
    }
}
