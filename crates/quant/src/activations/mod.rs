//! Codes of activations: their distributions, ranges and channels.

pub(crate) mod density;
pub(crate) mod entropy_range;
pub(crate) mod equalization;
pub(crate) mod grid;
pub(crate) mod histogram;
pub(crate) mod least_error_range;
pub(crate) mod migration;
pub(crate) mod outline;
pub(crate) mod range;
