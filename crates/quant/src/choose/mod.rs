//! The doors: one method by its name, or the best of several by held-out rows; bits of all layers.

pub(crate) mod allocation;
pub(crate) mod judge;
pub(crate) mod sketch;
pub(crate) mod solve;
