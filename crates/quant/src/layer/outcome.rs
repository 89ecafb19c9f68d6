//! What became of one way to quantize a layer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Relative error on the held-out rows, after the bias was corrected.
    HeldOutError(f64),
    /// The data leave no kernel; the method would round without pre-processing.
    SameAsRounding,
    /// Lost on a few neurons already.
    ScreenedOut {
        /// Its error there.
        error: f64,
        /// The error of the best candidate so far there.
        best: f64,
    },
    /// Not tried: it would take too long for a candidate.
    TooExpensive {
        /// About how many multiply-adds.
        multiply_adds: f64,
        /// The most that is allowed.
        limit: f64,
    },
    /// The reason why it could not be solved.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldOutError(error) => write!(f, "relative error {error:.3e} on held-out rows"),
            Self::SameAsRounding => f.write_str("the kernel is trivial"),
            Self::ScreenedOut { error, best } => {
                write!(f, "relative error {error:.3e} on held-out rows of a few neurons, {best:.3e} rounded")
            }
            Self::TooExpensive { multiply_adds, .. } => {
                write!(f, "the walk would take about {multiply_adds:.0e} multiply-adds")
            }
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}
