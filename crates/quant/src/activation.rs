//! Scale and zero point of activations, from the distribution of their values.
//!
//! # Problem
//!
//! One scale and one zero point serve all values that a tensor ever takes. A wide range
//! clips nothing and rounds coarsely; a narrow one the other way round. The choice is
//! made from a [`Histogram`], by one of several methods ([`RangeMethod`]).
//!
//! # Method
//!
//! | method | range |
//! |---|---|
//! | `min-max` | from the least to the greatest value seen |
//! | `moving-average` | averages of the samples' least and greatest values ([`Histogram::moving_average`]) |
//! | `percentile:P` | without the outermost `100 - P` percent of all values: half of them at either end, or all at the one end that a tensor without negative, or without positive, values has |
//! | `mse` | of least expected squared error (file `least_error_range.rs`) |
//! | `entropy` | of least information lost (file `entropy_range.rs`) |
//!
//! [`ActivationParams::from_range`] extends the range to contain 0, which ONNX wants to
//! be a level (padding). Unsigned codes: `scale = (upper - lower) / 255`, then
//! `zero_point = round(-lower / scale)`, ties to even. Signed codes: zero point 0 and the
//! least scale with which the codes -128 and 127 reach both ends.
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

use crate::density::Density;
use crate::error::QuantError;
use crate::grid::{Affine, Grid, Symmetry};
use crate::histogram::Histogram;
use crate::scale_type::{Rounding, ScaleType};
use crate::{entropy_range, least_error_range};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How the range of an activation is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum RangeMethod {
    /// Everything that was seen.
    MinMax,
    /// Averages of the samples' ends.
    MovingAverage,
    /// So many percent of the values; above 100 and NaN are as 100, below 0 as 0.
    Percentile(f64),
    /// The least expected squared error.
    MeanSquaredError,
    /// The least information lost.
    Entropy,
}

impl RangeMethod {
    /// Percent of the values that the method `percentile` keeps if nothing else is said.
    pub const DEFAULT_PERCENTILE: f64 = 99.99;
}

impl fmt::Display for RangeMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeMethod::MinMax => f.pad("min-max"),
            RangeMethod::MovingAverage => f.pad("moving-average"),
            RangeMethod::Percentile(percent) => f.pad(&format!("percentile:{percent}")),
            RangeMethod::MeanSquaredError => f.pad("mse"),
            RangeMethod::Entropy => f.pad("entropy"),
        }
    }
}

impl FromStr for RangeMethod {
    type Err = QuantError;

    fn from_str(name: &str) -> Result<RangeMethod, QuantError> {
        match name {
            "min-max" => return Ok(RangeMethod::MinMax),
            "moving-average" => return Ok(RangeMethod::MovingAverage),
            "percentile" => return Ok(RangeMethod::Percentile(RangeMethod::DEFAULT_PERCENTILE)),
            "mse" => return Ok(RangeMethod::MeanSquaredError),
            "entropy" => return Ok(RangeMethod::Entropy),
            _ => {}
        }
        let percent = name.strip_prefix("percentile:").and_then(|percent| percent.parse().ok());
        match percent {
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(RangeMethod::Percentile(percent)),
            _ => Err(QuantError::Setting {
                what: "activation range",
                found: format!("`{name}`"),
                expected: "`min-max`, `moving-average`, `percentile`, `percentile:P` with P above 0 and at most 100, \
                           `mse` or `entropy`",
            }),
        }
    }
}

impl From<RangeMethod> for String {
    fn from(method: RangeMethod) -> String {
        method.to_string()
    }
}

impl TryFrom<String> for RangeMethod {
    type Error = QuantError;

    fn try_from(name: String) -> Result<RangeMethod, QuantError> {
        name.parse()
    }
}

/// The codes of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationGrid {
    /// 0 to 255 with a free zero point.
    Unsigned,
    /// -128 to 127 with the zero point 0.
    Signed,
}

impl ActivationGrid {
    /// The same as codes of weights are described.
    pub const fn grid(self) -> Grid {
        match self {
            ActivationGrid::Unsigned => Grid::new(0, 255, 1, Symmetry::Asymmetric),
            ActivationGrid::Signed => Grid::new(-128, 127, 1, Symmetry::Symmetric),
        }
    }
}

/// Meaning of an activation's codes: `real = scale * (code - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ActivationParams {
    #[serde(flatten)]
    affine: Affine,
    grid: ActivationGrid,
}

impl ActivationParams {
    /// The scale and zero point with which the codes cover `lower` to `upper`, and 0.
    pub fn from_range(lower: f32, upper: f32, grid: ActivationGrid) -> ActivationParams {
        let lower = f64::from(if lower < 0.0 { lower.max(f32::MIN) } else { 0.0 });
        let upper = f64::from(if upper > 0.0 { upper.min(f32::MAX) } else { 0.0 });
        let codes = grid.grid();
        let (least, greatest) = (f64::from(codes.min_code()), f64::from(codes.max_code()));
        let scale = match grid {
            ActivationGrid::Unsigned => (upper - lower) / (greatest - least),
            ActivationGrid::Signed => (upper / greatest).max(lower / least),
        };
        let largest_code = codes.max_code().max(-codes.min_code());
        let scale = if scale > 0.0 { ScaleType::F32.round(scale, Rounding::Nearest, largest_code) } else { 1.0 };
        let zero_point = match grid {
            ActivationGrid::Unsigned => {
                f64::from(-lower as f32 / scale).round_ties_even().clamp(least, greatest) as i16
            }
            ActivationGrid::Signed => 0,
        };
        ActivationParams { affine: Affine::exact(scale, zero_point), grid }
    }

    /// The same, with the scale lowered until the last code stands for no more than `ceiling`, where it does.
    pub fn below(self, ceiling: f32) -> ActivationParams {
        let steps = f32::from(self.grid.grid().max_code() - self.affine.zero_point());
        if self.range().1 <= ceiling || steps <= 0.0 || ceiling <= 0.0 {
            return self;
        }
        let mut scale = ceiling / steps;
        while scale * steps > ceiling {
            scale = scale.next_down();
        }
        match scale.is_normal() {
            true => ActivationParams { affine: Affine::exact(scale, self.affine.zero_point()), ..self },
            false => self,
        }
    }

    /// Real units per code; a positive normal number.
    pub fn scale(self) -> f32 {
        self.affine.scale()
    }

    /// The code that means 0; one of the grid's.
    pub fn zero_point(self) -> i32 {
        i32::from(self.affine.zero_point())
    }

    /// The codes.
    pub fn grid(self) -> ActivationGrid {
        self.grid
    }

    /// The real numbers of the first and the last code.
    pub fn range(self) -> (f32, f32) {
        self.affine.ends(&self.grid.grid())
    }

    /// What is left of `x` after ONNX's `QuantizeLinear` and `DequantizeLinear`, to the bit.
    #[inline]
    pub fn fake_quantize(self, x: f32) -> f32 {
        self.affine.dequantize(self.affine.quantize(x, &self.grid.grid()))
    }

    /// Whether the lowest code means 0: then saturation does what a ReLU does.
    pub fn bottom_at_zero(self) -> bool {
        self.affine.zero_point() == self.grid.grid().min_code()
    }

    /// How many levels are below and above 0.
    pub(crate) fn levels_around_zero(self) -> (usize, usize) {
        let (grid, zero_point) = (self.grid.grid(), self.affine.zero_point());
        let levels = |codes: i16| usize::from(codes.unsigned_abs());
        (levels(zero_point - grid.min_code()), levels(grid.max_code() - zero_point))
    }
}

/// The range that codes should cover, as `(lower, upper)` with `lower <= 0 <= upper`; both 0
/// without values.
pub fn choose_range(histogram: &Histogram, method: RangeMethod, grid: ActivationGrid) -> (f32, f32) {
    let (lower, upper) = match method {
        RangeMethod::MinMax => (histogram.min(), histogram.max()),
        RangeMethod::MovingAverage => histogram.moving_average(),
        RangeMethod::Percentile(percent) => percentile(histogram, percent),
        RangeMethod::MeanSquaredError => least_error_range::choose(histogram, grid),
        RangeMethod::Entropy => entropy_range::choose(histogram, grid),
    };
    (lower.min(0.0) + 0.0, upper.max(0.0) + 0.0) // Without negative zeros.
}

fn percentile(histogram: &Histogram, percent: f64) -> (f32, f32) {
    let density = Density::new(histogram);
    let share = if percent < 100.0 { (1.0 - percent / 100.0).min(1.0) } else { 0.0 };
    let outside = share * histogram.count() as f64;
    let two_sided = !density.negative.is_empty() && !density.positive.is_empty();
    let tail = if two_sided { outside / 2.0 } else { outside };
    (-density.negative.limit_of_tail(tail) as f32, density.positive.limit_of_tail(tail) as f32)
}

#[cfg(test)]
#[path = "activation_tests.rs"]
mod tests;
