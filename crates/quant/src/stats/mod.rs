//! Second moments of inputs, and the errors that they tell.

pub(crate) mod column_sums;
pub(crate) mod drift;
pub(crate) mod gram;
pub(crate) mod layer_error;
pub(crate) mod live;
pub(crate) mod paired;
