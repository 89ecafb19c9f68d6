//! Walks in the kernel of the data.

pub(crate) mod cell_walk;
pub(crate) mod inverse;
pub(crate) mod kernel;
pub(crate) mod maly_saab;
pub(crate) mod members;
pub(crate) mod min_norm;
pub(crate) mod preprocess;
pub(crate) mod walk;
pub(crate) mod walls;
