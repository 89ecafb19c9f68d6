//! The box in which a walk moves.

use crate::error::QuantError;

const SNAP: f64 = 1e-12;

/// The box in which a neuron may move.
#[derive(Clone, Debug)]
pub struct Walls {
    lower: Vec<f64>,
    upper: Vec<f64>,
}

impl Walls {
    /// Checks that there is one wall on either side of every coordinate, finite
    /// and in order.
    pub fn new(lower: Vec<f64>, upper: Vec<f64>) -> Result<Walls, QuantError> {
        let ordered = |(lower, upper): (&f64, &f64)| lower.is_finite() && upper.is_finite() && lower <= upper;
        if lower.len() == upper.len() && lower.iter().zip(&upper).all(ordered) {
            return Ok(Walls { lower, upper });
        }
        Err(QuantError::Setting {
            what: "walls of a walk",
            found: format!("{} lower and {} upper ones", lower.len(), upper.len()),
            expected: "one finite pair per coordinate, lower <= upper",
        })
    }

    /// The walls below, one per coordinate.
    pub fn lower(&self) -> &[f64] {
        &self.lower
    }

    /// The walls above, one per coordinate.
    pub fn upper(&self) -> &[f64] {
        &self.upper
    }

    pub(crate) fn width(&self, i: usize) -> f64 {
        self.upper[i] - self.lower[i]
    }

    pub(crate) fn clamp(&self, i: usize, value: f64) -> f64 {
        value.clamp(self.lower[i], self.upper[i])
    }

    pub(crate) fn touched(&self, i: usize, value: f64) -> bool {
        value <= self.lower[i] || value >= self.upper[i]
    }

    pub(crate) fn snapped(&self, i: usize, value: f64) -> f64 {
        let near = SNAP * self.width(i);
        if value - self.lower[i] <= near {
            self.lower[i]
        } else if self.upper[i] - value <= near {
            self.upper[i]
        } else {
            value
        }
    }
}
