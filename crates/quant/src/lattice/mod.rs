//! Codes in the metric of the data: error feedback, descent and what belongs to them.

pub(crate) mod beam;
pub(crate) mod effective_dimension;
pub(crate) mod feedback;
pub(crate) mod gpfq;
pub(crate) mod nearest_point;
pub(crate) mod optq;
pub(crate) mod panel;
pub(crate) mod pin;
pub(crate) mod quadratic;
pub(crate) mod recipe;
pub(crate) mod retarget;
pub(crate) mod saturate;
pub(crate) mod scale_refit;
pub(crate) mod shrink;
