//! What can go wrong when a layer is quantized.
//!
//! The messages name shapes and indices but no layer: this crate sees matrices.
//! A caller adds the layer's name in front.

/// The array in which a bad value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Array {
    /// The layer's weights, indexed `[group, input, output]`.
    Weights,
    /// Rows of calibration data, indexed `[row, input]`.
    Rows,
    /// Second moments of the calibration data, indexed `[input, input]`.
    Moments,
    /// Values of one activation tensor, indexed by their place in the slice.
    Activations,
}

impl std::fmt::Display for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Array::Weights => "weights",
            Array::Rows => "calibration rows",
            Array::Moments => "second moments of the calibration rows",
            Array::Activations => "activations",
        })
    }
}

/// A failure to describe, solve or check a layer problem.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// NaN or infinity where a finite number is needed.
    #[error("{array} hold `{value}` at {index:?}, expected finite numbers")]
    NonFinite {
        /// Where it was found.
        array: Array,
        /// Index of the first bad value.
        index: Vec<usize>,
        /// The value itself.
        value: f64,
    },
    /// An array does not have the shape the description asks for.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// Which array.
        what: &'static str,
        /// The shape that was found.
        found: Vec<usize>,
        /// The shape that was expected, in words.
        expected: String,
    },
    /// A convolution's geometry contradicts itself.
    #[error("convolution geometry is not usable: {0}")]
    Geometry(String),
    /// A setting is out of its range.
    #[error("{what} is {found}, expected {expected}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// The value that was found.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The method needs calibration statistics and there are none.
    #[error("method `{method}` needs {needed} for every group, found {found}; run it with calibration data")]
    StatisticsNeeded {
        /// The method that was asked for.
        method: &'static str,
        /// What it needs.
        needed: &'static str,
        /// What there was.
        found: &'static str,
    },
    /// No calibration row was seen.
    #[error("calibration statistics cover 0 rows, expected at least 1")]
    NoRows,
    /// A matrix factorization failed or lost all precision.
    #[error("cannot factor the {matrix}: {reason}")]
    Factorization {
        /// Which matrix.
        matrix: &'static str,
        /// What happened.
        reason: String,
    },
    /// A solution contradicts its problem.
    #[error("solution rejected: {0}")]
    Rejected(String),
    /// `auto` was called without candidates.
    #[error("no candidate method was given, expected at least one")]
    NoCandidates,
}

pub(crate) fn shape_error(what: &'static str, found: &[usize], expected: String) -> QuantError {
    QuantError::Shape { what, found: found.to_vec(), expected }
}
