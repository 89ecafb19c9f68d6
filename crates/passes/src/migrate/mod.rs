//! Moves scales from activations into weights.

mod absorb;
mod change;
pub mod migrate_scale;
