//! Finds the layers that can be quantized.

pub mod sites;
