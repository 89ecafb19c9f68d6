//! Reads pictures, upright and within limits.

use std::io::{self, BufRead, BufReader, Read};

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use ndarray::Array3;

use crate::data::part::{Part, Section};
use crate::error::{CalibError, FormatError};

/// Larger pictures are refused, as Pillow does: a small file may claim any size.
const MAX_PIXELS: u64 = 178_956_970;
/// Longer sides are refused.
const MAX_SIDE: u32 = 65_535;

/// Extensions of pictures.
pub(crate) const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif"];

/// Rows and columns of a picture that stands upright; reads just enough to know.
pub(crate) fn dimensions(part: &Part) -> Result<(u32, u32), CalibError> {
    let mut decoder = decoder(part)?;
    let (width, height) = decoder.dimensions();
    Ok(if is_turned(&mut decoder) { (width, height) } else { (height, width) })
}

/// The pixels `[rows, columns, channels]` of a picture that stands upright, of 3 channels (red first) or 1.
pub(crate) fn decode(part: &Part, channels: usize) -> Result<Array3<u8>, CalibError> {
    if is_cut_jpeg(part).map_err(|source| CalibError::Io { path: part.label().into(), source })? {
        return Err(malformed(part, FormatError::EndsEarly));
    }
    let mut decoder = decoder(part)?;
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| malformed(part, error.into()))?;
    picture.apply_orientation(orientation);
    let pixels = picture.into_rgb8();
    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let rgb = Array3::from_shape_vec((height, width, 3), pixels.into_raw()).expect("three bytes a pixel");
    Ok(if channels == 1 { luma(&rgb) } else { rgb })
}

/// Whether it is a JPEG without its end, of which the decoder would make up the rest.
fn is_cut_jpeg(part: &Part) -> io::Result<bool> {
    let mut reader = part.open().map_err(io::Error::other)?;
    let mut two = [0; 2];
    if reader.read_exact(&mut two).is_err() || two != [0xff, 0xd8] {
        return Ok(false);
    }
    // Segments before the pixels tell their lengths; a thumbnail with an end of its own lies in one.
    loop {
        if reader.read_exact(&mut two).is_err() {
            return Ok(true);
        }
        match two {
            [0xff, 0xda] => break,
            [0xff, 0xff] => reader.seek_relative(-1)?,
            [0xff, 0x01 | 0xd0..=0xd8] => {}
            [0xff, 0xc0..=0xff] => {
                if reader.read_exact(&mut two).is_err() {
                    return Ok(true);
                }
                reader.seek_relative(i64::from(u16::from_be_bytes(two)) - 2)?;
            }
            // What is no JPEG the decoder names.
            _ => return Ok(false),
        }
    }
    let mut before = 0;
    loop {
        let bytes = reader.fill_buf()?;
        let Some(&last) = bytes.last() else { return Ok(true) };
        if (before, bytes.first()) == (0xff, Some(&0xd9)) || bytes.windows(2).any(|pair| pair == [0xff, 0xd9]) {
            return Ok(false);
        }
        let read = bytes.len();
        before = last;
        reader.consume(read);
    }
}

/// Brightness after ITU-R 601-2, as Pillow's mode `L` has it.
fn luma(rgb: &Array3<u8>) -> Array3<u8> {
    let (height, width, _) = rgb.dim();
    Array3::from_shape_fn((height, width, 1), |(y, x, _)| {
        let [r, g, b] = [0, 1, 2].map(|channel| u32::from(rgb[[y, x, channel]]));
        u8::try_from((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).unwrap_or(u8::MAX)
    })
}

fn decoder(part: &Part) -> Result<impl ImageDecoder + use<>, CalibError> {
    let reader: ImageReader<BufReader<Section>> = ImageReader::new(part.open()?);
    let io = |source| CalibError::Io { path: part.label().into(), source };
    let mut reader = reader.with_guessed_format().map_err(io)?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    limits.max_alloc = Some(8 * MAX_PIXELS);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| malformed(part, error.into()))?;
    let (width, height) = decoder.dimensions();
    match u64::from(width) * u64::from(height) <= MAX_PIXELS && width.max(height) <= MAX_SIDE {
        true => Ok(decoder),
        false => Err(malformed(part, FormatError::ManyPixels { width, height, limit: MAX_PIXELS })),
    }
}

fn is_turned(decoder: &mut impl ImageDecoder) -> bool {
    use image::metadata::Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    decoder.orientation().is_ok_and(|found| matches!(found, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH))
}

fn malformed(part: &Part, source: FormatError) -> CalibError {
    CalibError::Malformed { path: part.label().into(), source }
}
