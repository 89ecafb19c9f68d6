//! Moves scales from activations into weights.

mod absorb;
#[cfg(test)]
mod absorb_tests;
mod change;
pub mod migrate_scale;
#[cfg(test)]
mod testing;
