//! How a picture comes to lie on what the model sees.
//!
//! Whatever is asked for, a picture is scaled to a size and laid on a canvas; what hangs over is cut off, and what it
//! does not cover is filled.

/// Rows and columns.
pub(crate) type Size = (u32, u32);

/// Longer sides of scaled pictures are refused.
const MAX_SCALED: u32 = 1 << 24;
/// Longer sides of what the model sees are refused.
pub(crate) const MAX_CANVAS: u32 = 1 << 14;

/// How a picture is brought to the model's size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fit {
    /// Both sides are scaled to it, whatever the picture's proportions.
    Stretch,
    /// The picture is scaled to cover this many times the size, and its centre kept: torchvision's `Resize`, `CenterCrop`.
    Cover(f64),
    /// The picture is scaled to lie within the size, and the rest filled with pixels of this value.
    Letterbox { fill: u8, centred: bool },
    /// In pixels, as the configuration of a processor says.
    Steps(Steps),
}

/// What a processor of Hugging Face's transformers does to a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Steps {
    pub(crate) resize: Option<Resize>,
    /// The centre of this size is kept; zeros around smaller pictures.
    pub(crate) crop: Option<Size>,
    pub(crate) pad: Pad,
}

/// Sizes in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resize {
    Exact(Size),
    /// The shorter side becomes this long, unless the longer one became longer than the second number.
    Shortest(u32, Option<u32>),
    /// The longer side becomes this long.
    Longest(u32),
}

/// Zeros to the right of the values and below them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Pad {
    #[default]
    None,
    /// Up to what the model takes.
    Model,
    To(Size),
}

/// What stands where the picture does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// A pixel of this value.
    Pixel(u8),
    /// Zero, whatever becomes of pixels.
    Zero,
}

/// Where a picture comes to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// The picture is scaled to this size.
    pub(crate) scaled: Size,
    /// Where its first row and column lie on the canvas; below zero where it hangs over.
    pub(crate) at: (i64, i64),
    pub(crate) canvas: Size,
    pub(crate) fill: Fill,
}

impl Fit {
    /// For a picture of this size and a model of that one; an error in words where there is no such place.
    pub(crate) fn geometry(&self, picture: Size, model: Option<Size>) -> Result<Geometry, String> {
        let no_size = || "the size is not fixed by the model; give height and width (1 to 16384)".to_owned();
        let geometry = match self {
            Self::Steps(steps) => steps.geometry(picture, model),
            Self::Stretch => plain(model.ok_or_else(no_size)?),
            Self::Cover(times) => cover(picture, model.ok_or_else(no_size)?, *times),
            Self::Letterbox { fill, centred } => letterbox(picture, model.ok_or_else(no_size)?, *fill, *centred),
        };
        let sides = |(height, width): Size, most| (1..=most).contains(&height) && (1..=most).contains(&width);
        match sides(geometry.scaled, MAX_SCALED) && sides(geometry.canvas, MAX_CANVAS) {
            true => Ok(geometry),
            false => {
                let (height, width) = picture;
                Err(format!("a picture of {height}x{width} pixels leads to sides of 0 or of more than {MAX_CANVAS}"))
            }
        }
    }

    /// What is done, in words that follow the size.
    pub(crate) fn words(&self) -> Option<String> {
        match self {
            Self::Stretch => None,
            Self::Cover(_) => Some("center crop".to_owned()),
            Self::Letterbox { fill, .. } => Some(format!("letterbox of {fill}")),
            Self::Steps(Steps { crop, pad, .. }) => match (crop, pad) {
                (None, Pad::None) => None,
                (Some(_), Pad::None) => Some("center crop".to_owned()),
                (None, _) => Some("padded with zeros".to_owned()),
                (Some(_), _) => Some("center crop, padded with zeros".to_owned()),
            },
        }
    }

    /// The same for pictures that are brought to another size than it names.
    pub(crate) fn without_pixels(&self) -> Self {
        let Self::Steps(Steps { resize, crop, pad }) = self else { return *self };
        match (resize, crop, pad) {
            (Some(Resize::Shortest(scaled, _)), Some((height, width)), _) => {
                Self::Cover(f64::from(*scaled) / f64::from((*height).min(*width).max(1)))
            }
            (Some(Resize::Exact((height, _))), Some((kept, _)), _) if height > kept && *kept > 0 => {
                Self::Cover(f64::from(*height) / f64::from(*kept))
            }
            (None, Some(_), _) => Self::Cover(1.0),
            _ => Self::Stretch,
        }
    }
}

fn plain(size: Size) -> Geometry {
    Geometry { scaled: size, at: (0, 0), canvas: size, fill: Fill::Pixel(0) }
}

fn cover((height, width): Size, (rows, columns): Size, times: f64) -> Geometry {
    let (high, wide) = (f64::from(rows) * times, f64::from(columns) * times);
    let by_height = high * f64::from(width) >= wide * f64::from(height);
    let scaled = match by_height {
        true => (rounded(high), in_proportion(rounded(high), width, height).max(columns)),
        false => (in_proportion(rounded(wide), height, width).max(rows), rounded(wide)),
    };
    let at = |scaled: u32, side: u32| {
        let over = (i64::from(scaled) - i64::from(side)) as f64 / 2.0;
        -whole(over.round_ties_even())
    };
    Geometry { scaled, at: (at(scaled.0, rows), at(scaled.1, columns)), ..plain((rows, columns)) }
}

fn letterbox((height, width): Size, model: Size, fill: u8, centred: bool) -> Geometry {
    let ratio = (f64::from(model.0) / f64::from(height)).min(f64::from(model.1) / f64::from(width));
    let side = |length: u32, most: u32| {
        let length = f64::from(length) * ratio;
        let length = if centred { length.round_ties_even() } else { length.floor() };
        u32::try_from(whole(length)).unwrap_or(most).clamp(1, most)
    };
    let scaled = (side(height, model.0), side(width, model.1));
    // Of an odd number of rows the lower edge gets one more.
    let at = |scaled: u32, side: u32| whole((f64::from(side - scaled) / 2.0 - 0.1).round_ties_even());
    let at = if centred { (at(scaled.0, model.0), at(scaled.1, model.1)) } else { (0, 0) };
    Geometry { scaled, at, canvas: model, fill: Fill::Pixel(fill) }
}

impl Steps {
    fn geometry(&self, picture: Size, model: Option<Size>) -> Geometry {
        let scaled = self.resize.map_or(picture, |resize| resize.of(picture));
        let cropped = self.crop.map_or(plain(scaled), |crop| {
            let at = |scaled: u32, side: u32| -(i64::from(scaled) - i64::from(side)).div_euclid(2);
            Geometry { scaled, at: (at(scaled.0, crop.0), at(scaled.1, crop.1)), ..plain(crop) }
        });
        let padded = match self.pad {
            Pad::None => None,
            Pad::Model => model,
            Pad::To(size) => Some(size),
        };
        padded.map_or(cropped, |(rows, columns)| {
            let canvas = (rows.max(cropped.canvas.0), columns.max(cropped.canvas.1));
            Geometry { canvas, fill: Fill::Zero, ..cropped }
        })
    }
}

impl Resize {
    /// What becomes of a picture of this size.
    fn of(self, (height, width): Size) -> Size {
        let (short, long) = (height.min(width), height.max(width));
        let (new_short, new_long) = match self {
            Self::Exact(size) => return size,
            Self::Longest(side) => (half_up(side, short, long).max(1), side),
            Self::Shortest(side, most) => {
                let grown = in_proportion(side, long, short);
                let grows_to = f64::from(long) / f64::from(short.max(1)) * f64::from(side);
                match most.filter(|&most| grows_to > f64::from(most)) {
                    Some(most) => limited(most, short, long),
                    None => (side, grown),
                }
            }
        };
        if height <= width { (new_short, new_long) } else { (new_long, new_short) }
    }
}

/// Sides of which the longer one is at most so long, rounded as DETR's processor does.
fn limited(most: u32, short: u32, long: u32) -> (u32, u32) {
    let exact = f64::from(most) * f64::from(short) / f64::from(long.max(1));
    let longer = whole(exact * f64::from(long) / f64::from(short.max(1)));
    (rounded(exact).max(1), u32::try_from(longer).unwrap_or(most))
}

/// `side * this / that`, rounded to nearest.
fn half_up(side: u32, this: u32, that: u32) -> u32 {
    let that = u64::from(that.max(1));
    u32::try_from((2 * u64::from(side) * u64::from(this) + that) / (2 * that)).unwrap_or(u32::MAX)
}

/// `side * this / that`, rounded down.
fn in_proportion(side: u32, this: u32, that: u32) -> u32 {
    u32::try_from(u64::from(side) * u64::from(this) / u64::from(that.max(1))).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "sides of pictures")]
fn whole(length: f64) -> i64 {
    length as i64
}

fn rounded(length: f64) -> u32 {
    u32::try_from(whole(length.round_ties_even())).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cover_is_that_of_torchvision() {
        let geometry = Fit::Cover(256.0 / 224.0).geometry((480, 641), Some((224, 224))).unwrap();
        assert_eq!((geometry.scaled, geometry.at, geometry.canvas), ((256, 341), (-16, -58), (224, 224)));
        let upright = Fit::Cover(1.0).geometry((641, 480), Some((224, 224))).unwrap();
        assert_eq!((upright.scaled, upright.at), ((299, 224), (-38, 0)));
    }

    #[test]
    fn a_letterbox_is_that_of_yolo() {
        let centred = Fit::Letterbox { fill: 114, centred: true };
        let geometry = centred.geometry((427, 640), Some((640, 640))).unwrap();
        assert_eq!((geometry.scaled, geometry.at, geometry.fill), ((427, 640), (106, 0), Fill::Pixel(114)));
        let corner = Fit::Letterbox { fill: 114, centred: false }.geometry((1000, 333), Some((416, 416))).unwrap();
        assert_eq!((corner.scaled, corner.at), ((416, 138), (0, 0)));
    }

    #[test]
    fn steps_are_those_of_transformers() {
        let steps = |resize, crop, pad| Fit::Steps(Steps { resize: Some(resize), crop, pad });
        let rows = [
            (steps(Resize::Shortest(256, None), Some((224, 224)), Pad::None), (256, 341), (-16, -58), (224, 224)),
            (steps(Resize::Shortest(800, Some(1000)), None, Pad::None), (749, 1000), (0, 0), (749, 1000)),
            (steps(Resize::Longest(1024), None, Pad::To((1024, 1024))), (767, 1024), (0, 0), (1024, 1024)),
            (steps(Resize::Exact((5, 5)), Some((8, 8)), Pad::None), (5, 5), (2, 2), (8, 8)),
            (steps(Resize::Exact((9, 9)), Some((6, 6)), Pad::None), (9, 9), (-1, -1), (6, 6)),
        ];
        for (fit, scaled, at, canvas) in rows {
            let found = fit.geometry((480, 641), None).unwrap();
            assert_eq!((found.scaled, found.at, found.canvas), (scaled, at, canvas), "{fit:?}");
        }
    }

    #[test]
    fn sides_without_end_are_refused() {
        let thin = Fit::Steps(Steps { resize: Some(Resize::Shortest(800, None)), ..Steps::default() });
        assert!(thin.geometry((1, 60_000), None).unwrap_err().contains("1x60000 pixels"));
        assert!(Fit::Stretch.geometry((4, 4), None).unwrap_err().contains("give height and width"));
        let cover = Fit::Cover(1.0).geometry((1, 65_535), Some((224, 224))).unwrap();
        assert_eq!(cover.scaled, (224, 224 * 65_535));
    }
}
