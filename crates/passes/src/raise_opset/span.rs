//! The opsets that models are raised to, and between.

use super::table::NEWEST;

/// Lowest opset that models are raised to.
pub const LOWEST_TARGET: i64 = 13;
/// Highest opset that models are raised to.
pub const HIGHEST_TARGET: i64 = NEWEST;

/// The opsets between which a body moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it is.
    pub from: i64,
    /// Where it goes.
    pub to: i64,
}
