//! Finds the layers that can be quantized, and what stays in float.

pub mod caches;
pub mod float_weights;
pub mod sites;
