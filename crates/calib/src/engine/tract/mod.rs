//! tract: a feature of this crate, so that what only reads data builds without it.

#[cfg(feature = "tract")]
mod adapt;
#[cfg(feature = "tract")]
mod attention;
#[cfg(feature = "tract")]
mod contrib;
#[cfg(feature = "tract")]
mod convert;
#[cfg(feature = "tract")]
mod least_rank;
#[cfg(feature = "tract")]
mod lower;
#[cfg(feature = "tract")]
mod mend;
#[cfg(feature = "tract")]
mod misread;
#[cfg(feature = "tract")]
mod model;
#[cfg(all(test, feature = "tract"))]
mod node_tests;
#[cfg(feature = "tract")]
mod plan;
#[cfg(feature = "tract")]
mod round_to_grid;
#[cfg(feature = "tract")]
mod saturate_pairs;
#[cfg(feature = "tract")]
mod session;
#[cfg(feature = "tract")]
mod shapes;
#[cfg(feature = "tract")]
mod squeeze_all;
#[cfg(feature = "tract")]
mod wrap;

use super::contract::Engine;

/// The engine, in builds with the feature.
pub(super) fn engine() -> Option<&'static dyn Engine> {
    #[cfg(feature = "tract")]
    return Some(&session::Tract);
    #[cfg(not(feature = "tract"))]
    None
}
