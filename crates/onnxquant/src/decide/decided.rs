//! A float model, and what was decided of it.

use onnxquant_ir::Model;

use crate::decide::trail::Trail;
use crate::plan::assignment::Assignment;
use crate::plan::layers::Plan;

/// A float model, and what was decided of it.
pub(crate) struct Decided {
    /// Channels of values may be rescaled.
    pub(crate) model: Model,
    pub(crate) plan: Plan,
    pub(crate) assignment: Assignment,
    pub(crate) trail: Trail,
}

impl Decided {
    /// Nothing runs on integers.
    pub(crate) fn in_float(model: Model, plan: Plan) -> Self {
        Self { model, plan, assignment: Assignment::default(), trail: Trail::default() }
    }
}
