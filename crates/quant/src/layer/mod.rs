//! One layer: its matrices, what is wanted of it, and what a solver returns.

pub(crate) mod alphabet;
pub(crate) mod chunks;
pub(crate) mod geometry;
pub(crate) mod grid;
pub(crate) mod method;
pub(crate) mod msq;
pub(crate) mod options;
pub(crate) mod outcome;
pub(crate) mod pairs;
pub(crate) mod problem;
pub(crate) mod scale;
pub(crate) mod scale_type;
pub(crate) mod solution;
pub(crate) mod spec;
pub(crate) mod transposed;
pub(crate) mod unfold;
pub(crate) mod view;
