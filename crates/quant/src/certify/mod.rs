//! What is certain about a solution, found without trusting the solver.

pub(crate) mod bias;
pub(crate) mod certificate;
