//! Codes of activations, and what they mean: `real = scale * (code - zero_point)`.
//!
//! # Method
//!
//! [`ActivationParams::from_range`] extends the range to contain 0, which ONNX wants to
//! be a level (padding). Codes with a free zero point: `scale = (upper - lower) / 255`, then
//! `zero_point = round(-lower / scale)`, ties to even, counted from the first code. Codes
//! with the zero point 0: the least scale with which the codes -128 and 127 reach both ends.
//!
//! # Guarantee
//!
//! 0 is a level. A value inside the range is off by half a step at most, apart from
//! rounding errors of `f32`.
//!
//! # Numerics
//!
//! The scale is rounded to `f32`, then the zero point is computed with it, by a division in
//! `f32` as in `QuantizeLinear`.
//!
//! # Failure
//!
//! None. A range of width 0 has the scale 1; where the scale would be denormal it is the
//! least normal number, where a code would decode to infinity the greatest scale for
//! which none does. NaN as an end is 0.
//!
//! # References
//!
//! ONNX operator specification, `QuantizeLinear`. Jacob et al., arXiv 1712.05877.

use crate::error::QuantError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The codes of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationGrid {
    /// 0 to 255 with a free zero point.
    Unsigned,
    /// -128 to 127 with the zero point 0.
    Signed,
    /// -128 to 127 with a free zero point.
    Shifted,
    /// 0 to 65535 with a free zero point.
    Unsigned16,
    /// -32768 to 32767 with the zero point 0.
    Signed16,
}

impl ActivationGrid {
    /// The least code.
    pub const fn min_code(self) -> i32 {
        match self {
            ActivationGrid::Unsigned | ActivationGrid::Unsigned16 => 0,
            ActivationGrid::Signed | ActivationGrid::Shifted => i8::MIN as i32,
            ActivationGrid::Signed16 => i16::MIN as i32,
        }
    }

    /// The greatest code.
    pub const fn max_code(self) -> i32 {
        match self {
            ActivationGrid::Unsigned => u8::MAX as i32,
            ActivationGrid::Signed | ActivationGrid::Shifted => i8::MAX as i32,
            ActivationGrid::Unsigned16 => u16::MAX as i32,
            ActivationGrid::Signed16 => i16::MAX as i32,
        }
    }

    /// Whether the zero point is always 0.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, ActivationGrid::Signed | ActivationGrid::Signed16)
    }

    /// Bits of a code.
    pub const fn bits(self) -> u32 {
        match self {
            ActivationGrid::Unsigned | ActivationGrid::Signed | ActivationGrid::Shifted => 8,
            ActivationGrid::Unsigned16 | ActivationGrid::Signed16 => 16,
        }
    }
}

/// Meaning of an activation's codes: `real = scale * (code - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ActivationParams {
    scale: f32,
    zero_point: i32,
    grid: ActivationGrid,
}

impl ActivationParams {
    /// Checks that the scale is a positive normal number and the zero point one of the codes.
    pub fn new(scale: f32, zero_point: i32, grid: ActivationGrid) -> Result<ActivationParams, QuantError> {
        if !(scale.is_normal() && scale > 0.0) {
            let found = scale.to_string();
            return Err(QuantError::Setting { what: "scale", found, expected: "a finite, positive, normal number" });
        }
        if !(grid.min_code()..=grid.max_code()).contains(&zero_point) || grid.is_symmetric() && zero_point != 0 {
            let found = zero_point.to_string();
            return Err(QuantError::Setting { what: "zero point", found, expected: "one of the codes" });
        }
        Ok(ActivationParams { scale, zero_point, grid })
    }

    /// The scale and zero point with which the codes cover `lower` to `upper`, and 0.
    pub fn from_range(lower: f32, upper: f32, grid: ActivationGrid) -> ActivationParams {
        let lower = f64::from(if lower < 0.0 { lower.max(f32::MIN) } else { 0.0 });
        let upper = f64::from(if upper > 0.0 { upper.min(f32::MAX) } else { 0.0 });
        let (least, greatest) = (f64::from(grid.min_code()), f64::from(grid.max_code()));
        let scale = match grid.is_symmetric() {
            false => (upper - lower) / (greatest - least),
            true => (upper / greatest).max(lower / least),
        };
        let largest_code = grid.max_code().max(-grid.min_code());
        let scale = if scale > 0.0 { rounded(scale, largest_code) } else { 1.0 };
        ActivationParams { scale, zero_point: zero_point(lower, scale, grid), grid }
    }

    /// The same, with the scale lowered until the last code stands for no more than `ceiling`, where it does.
    pub fn below(self, ceiling: f32) -> ActivationParams {
        let steps = (self.grid.max_code() - self.zero_point) as f32;
        if self.range().1 <= ceiling || steps <= 0.0 || ceiling <= 0.0 {
            return self;
        }
        let mut scale = ceiling / steps;
        while scale * steps > ceiling {
            scale = scale.next_down();
        }
        if scale.is_normal() { ActivationParams { scale, ..self } } else { self }
    }

    /// The same range, or a little more, on a scale that is a power of two.
    pub fn with_power_of_two(self) -> ActivationParams {
        let largest = rounded(f64::MAX, self.grid.max_code().max(-self.grid.min_code()));
        let least = 2f32.powi(self.scale.log2().floor() as i32);
        let scale = if least < self.scale { 2.0 * least } else { least };
        // Beyond it a code would decode to infinity.
        let scale = if scale > largest { scale / 2.0 } else { scale };
        ActivationParams { scale, zero_point: zero_point(f64::from(self.range().0), scale, self.grid), ..self }
    }

    /// The same range, or a little more, on a scale of which one is a whole multiple: ONNX Runtime's `QLinearSoftmax`
    /// rounds the reciprocal of its scale down to a whole number.
    pub fn with_whole_reciprocal(self) -> ActivationParams {
        let steps = (1.0 / self.scale).floor();
        if steps < 1.0 {
            return self;
        }
        let mut scale = 1.0 / steps;
        while (1.0 / scale).floor() < steps {
            scale = scale.next_down();
        }
        ActivationParams { scale, zero_point: zero_point(f64::from(self.range().0), scale, self.grid), ..self }
    }

    /// What the same codes stand for after a multiplication by a positive `factor`.
    pub fn times(self, factor: f32) -> ActivationParams {
        ActivationParams { scale: (self.scale * factor).clamp(f32::MIN_POSITIVE, f32::MAX), ..self }
    }

    /// Real units per code; a positive normal number.
    pub fn scale(self) -> f32 {
        self.scale
    }

    /// The code that means 0; one of the grid's.
    pub fn zero_point(self) -> i32 {
        self.zero_point
    }

    /// The codes.
    pub fn grid(self) -> ActivationGrid {
        self.grid
    }

    /// The first and the last code, counted from the one that means 0.
    pub fn steps(self) -> (i32, i32) {
        (self.grid.min_code() - self.zero_point, self.grid.max_code() - self.zero_point)
    }

    /// The real numbers of the first and the last code.
    pub fn range(self) -> (f32, f32) {
        let (first, last) = self.steps();
        (self.scale * first as f32, self.scale * last as f32)
    }

    /// The code of `x`, as ONNX's `QuantizeLinear` finds it; that of 0 for NaN.
    #[inline]
    pub fn quantize(self, x: f32) -> i32 {
        let (first, last) = self.steps();
        // The conversion of a float saturates, and makes 0 of NaN.
        self.zero_point + ((x / self.scale).round_ties_even() as i32).clamp(first, last)
    }

    /// What is left of `x` after ONNX's `QuantizeLinear` and `DequantizeLinear`, to the bit.
    #[inline]
    pub fn fake_quantize(self, x: f32) -> f32 {
        self.scale * (self.quantize(x) - self.zero_point) as f32
    }

    /// Whether the lowest code means 0: then saturation does what a ReLU does.
    pub fn bottom_at_zero(self) -> bool {
        self.zero_point == self.grid.min_code()
    }

    /// How many levels are below and above 0.
    pub(crate) fn levels_around_zero(self) -> (usize, usize) {
        let (first, last) = self.steps();
        (first.unsigned_abs() as usize, last.unsigned_abs() as usize)
    }
}

/// The nearest scale with which codes up to `largest_code` stand for normal numbers.
fn rounded(scale: f64, largest_code: i32) -> f32 {
    let largest = (f64::from(f32::MAX) / f64::from(largest_code)) as f32;
    let largest = if largest * largest_code as f32 <= f32::MAX { largest } else { largest.next_down() };
    (scale as f32).clamp(f32::MIN_POSITIVE, largest)
}

/// The code that means 0 where the first one stands for `lower`.
fn zero_point(lower: f64, scale: f32, grid: ActivationGrid) -> i32 {
    if grid.is_symmetric() {
        return 0;
    }
    let steps = (-lower as f32 / scale).round_ties_even() as i32;
    (grid.min_code() + steps).clamp(grid.min_code(), grid.max_code())
}
