//! Keeps the engine from looking up axes that a tensor does not have.
//!
//! # Problem
//!
//! Some of its operators read the length of the channels' axis without asking whether there is one. On a tensor of too
//! few axes they read memory that is not theirs, and the process may end without a word.
//!
//! # Method
//!
//! These operators are built as before and wrapped in one that checks the rank first, both while shapes are found and
//! while the graph is translated.
//!
//! # Guarantee
//!
//! An error that says what was found instead of a crash. Nothing else changes.

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_core::internal::{OutletId, StaticName, TVec, TypedModel, Validation, bail, ensure};
use tract_onnx::tract_hir::infer::{InferenceModel, InferenceNode};
use tract_onnx::tract_hir::internal::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

use super::wrap::{Built, as_inner, expansion, inner, wrap};

/// Operators, and the axes that their first input has at least.
const LEAST_RANKS: [(&str, usize); 10] = [
    ("AveragePool", 3),
    ("BatchNormalization", 2),
    ("Conv", 3),
    ("ConvInteger", 3),
    ("ConvTranspose", 3),
    ("GlobalAveragePool", 3),
    ("GlobalLpPool", 3),
    ("GlobalMaxPool", 3),
    ("MaxPool", 3),
    ("QLinearConv", 3),
];

/// Names what this file puts around operators.
const PURPOSE: &str = "checked";

/// Wraps the operators of the table.
pub(super) fn check_ranks(onnx: &mut Onnx) {
    wrap(onnx, LEAST_RANKS.iter().map(|(op_type, _)| *op_type), PURPOSE, checked);
}

/// Builds the engine's operator with the check around it.
fn checked(context: &ParsingContext<'_>, node: &tract_onnx::pb::NodeProto) -> TractResult<Built> {
    let (op, closures) = inner(context, node, PURPOSE)?;
    let least = LEAST_RANKS.iter().find(|(op_type, _)| *op_type == node.op_type);
    let checked = expansion(op.as_ref()).zip(least).map(|(inner, &(_, least))| expand(AtLeast { inner, least }));
    Ok((checked.unwrap_or(op), closures))
}

/// An operator whose first input has at least so many axes.
#[derive(Clone, Debug)]
struct AtLeast {
    inner: Box<dyn Expansion>,
    least: usize,
}

impl AtLeast {
    fn check(&self, rank: usize) -> TractResult<()> {
        ensure!(rank >= self.least, "its input has {rank} axes, expected at least {}", self.least);
        Ok(())
    }
}

impl Expansion for AtLeast {
    as_inner!(inner);

    fn runs_out_of_plan(&self) -> bool {
        self.inner.runs_out_of_plan()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let Some(input) = inputs.first() else { bail!("it has no input") };
        solver.given(&input.rank, move |_, rank| self.check(usize::try_from(rank)?))?;
        self.inner.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let Some(&input) = inputs.first() else { bail!("it has no input") };
        self.check(model.outlet_fact(input)?.rank())?;
        self.inner.wire(prefix, model, inputs)
    }

    fn wire_with_inference_model_and_node(
        &self,
        prefix: &str,
        model: &InferenceModel,
        node: &InferenceNode,
        typed: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let Some(&input) = inputs.first() else { bail!("it has no input") };
        self.check(typed.outlet_fact(input)?.rank())?;
        self.inner.wire_with_inference_model_and_node(prefix, model, node, typed, inputs)
    }
}
