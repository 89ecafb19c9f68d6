//! The range that the codes of an activation cover, from the distribution of its values.
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
//! | `min-max:F` | the same, `F` times as wide: values of other samples may lie further out |
//! | `moving-average` | averages of the samples' least and greatest values ([`Histogram::moving_average`]) |
//! | `percentile:P` | without the outermost `100 - P` percent of all values: half of them at either end, or all at the one end that a tensor without negative, or without positive, values has |
//! | `mse` | of least expected squared error (file `least_error_range.rs`) |
//! | `entropy` | of least information lost (file `entropy_range.rs`) |
//!
//! Codes of 16 bits leave so little rounding that clipping never pays: there `mse` and
//! `entropy` are `min-max`.

use crate::activations::density::Density;
use crate::activations::entropy_range;
use crate::activations::grid::ActivationGrid;
use crate::activations::histogram::Histogram;
use crate::activations::least_error_range;
use crate::error::QuantError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most that [`RangeMethod::Stretched`] widens a range.
const MOST_STRETCH: f64 = 16.0;

/// How the range of an activation is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum RangeMethod {
    /// Everything that was seen.
    MinMax,
    /// So many times as wide; below 1 and NaN are as 1.
    Stretched(f64),
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
            RangeMethod::Stretched(factor) => f.pad(&format!("min-max:{factor}")),
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
        let factor = name.strip_prefix("min-max:").and_then(|factor| factor.parse().ok());
        if let Some(factor) = factor.filter(|factor| (1.0..=MOST_STRETCH).contains(factor)) {
            return Ok(RangeMethod::Stretched(factor));
        }
        let percent = name.strip_prefix("percentile:").and_then(|percent| percent.parse().ok());
        match percent {
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(RangeMethod::Percentile(percent)),
            _ => Err(QuantError::Setting {
                what: "activation range",
                found: format!("`{name}`"),
                expected: "`min-max`, `min-max:F` with F from 1 to 16, `moving-average`, `percentile`, `percentile:P` with P above 0 and at most 100, \
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

/// The range that codes should cover, as `(lower, upper)` with `lower <= 0 <= upper`; both 0
/// without values.
pub fn choose_range(histogram: &Histogram, method: RangeMethod, grid: ActivationGrid) -> (f32, f32) {
    let (lower, upper) = match method {
        RangeMethod::MeanSquaredError | RangeMethod::Entropy if grid.bits() > 8 => (histogram.min(), histogram.max()),
        RangeMethod::MinMax => (histogram.min(), histogram.max()),
        RangeMethod::Stretched(factor) => stretched(histogram, factor),
        RangeMethod::MovingAverage => histogram.moving_average(),
        RangeMethod::Percentile(percent) => percentile(histogram, percent),
        RangeMethod::MeanSquaredError => least_error_range::choose(histogram, grid),
        RangeMethod::Entropy => entropy_range::choose(histogram, grid),
    };
    (lower.min(0.0) + 0.0, upper.max(0.0) + 0.0) // Without negative zeros.
}

fn stretched(histogram: &Histogram, factor: f64) -> (f32, f32) {
    let factor = if factor > 1.0 { factor.min(MOST_STRETCH) } else { 1.0 };
    let [lower, upper] = [histogram.min(), histogram.max()].map(|end| (f64::from(end) * factor) as f32);
    (lower.max(f32::MIN), upper.min(f32::MAX))
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
#[path = "range_tests.rs"]
mod tests;
