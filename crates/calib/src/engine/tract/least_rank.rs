//! Keeps the engine from looking up axes that a tensor does not have.
//!
//! # Problem
//!
//! Some of its operators read the length of an axis without asking whether there is one. On a tensor of too few axes they
//! read memory that is not theirs, and the process may end without a word, or count from below zero, and never end.
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

/// Operators, one of their inputs, and the axes that it has at least.
const LEAST_RANKS: [(&str, usize, Least); 13] = [
    ("AveragePool", 0, Least::Fixed(3)),
    ("BatchNormalization", 0, Least::Fixed(2)),
    ("Conv", 0, Least::Fixed(3)),
    ("ConvInteger", 0, Least::Fixed(3)),
    ("ConvTranspose", 0, Least::Fixed(3)),
    ("DFT", 0, Least::Fixed(2)),
    ("GatherND", 1, Least::Fixed(1)),
    ("GlobalAveragePool", 0, Least::Fixed(3)),
    ("GlobalLpPool", 0, Least::Fixed(3)),
    ("GlobalMaxPool", 0, Least::Fixed(3)),
    ("LayerNormalization", 0, Least::ForAxis),
    ("MaxPool", 0, Least::Fixed(3)),
    ("QLinearConv", 0, Least::Fixed(3)),
];

/// So many axes at least.
#[derive(Clone, Copy, Debug)]
enum Least {
    Fixed(usize),
    /// So many that the node's attribute `axis`, by default the last one, is one of them.
    ForAxis,
}

impl Least {
    fn of(self, node: &tract_onnx::pb::NodeProto) -> usize {
        let axis = node.attribute.iter().find(|attribute| attribute.name == "axis").map_or(-1, |found| found.i);
        match self {
            Self::Fixed(least) => least,
            Self::ForAxis => usize::try_from(if axis < 0 { axis.unsigned_abs() } else { axis.unsigned_abs() + 1 })
                .unwrap_or(usize::MAX),
        }
    }
}

/// Names what this file puts around operators.
const PURPOSE: &str = "checked";

/// Wraps the operators of the table.
pub(super) fn check_ranks(onnx: &mut Onnx) {
    wrap(onnx, LEAST_RANKS.iter().map(|(op_type, ..)| *op_type), PURPOSE, checked);
}

/// Builds the engine's operator with the check around it.
fn checked(context: &ParsingContext<'_>, node: &tract_onnx::pb::NodeProto) -> TractResult<Built> {
    let (op, closures) = inner(context, node, PURPOSE)?;
    let row = LEAST_RANKS.iter().find(|(op_type, ..)| *op_type == node.op_type);
    let checked = expansion(op.as_ref()).zip(row);
    let checked = checked.map(|(inner, &(_, slot, least))| expand(AtLeast { inner, slot, least: least.of(node) }));
    Ok((checked.unwrap_or(op), closures))
}

/// An operator of which one input has at least so many axes.
#[derive(Clone, Debug)]
struct AtLeast {
    inner: Box<dyn Expansion>,
    slot: usize,
    least: usize,
}

impl AtLeast {
    fn check(&self, rank: usize) -> TractResult<()> {
        ensure!(rank >= self.least, "its input {} has {rank} axes, expected at least {}", self.slot, self.least);
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
        let Some(input) = inputs.get(self.slot) else { bail!("it has no input {}", self.slot) };
        solver.given(&input.rank, move |_, rank| self.check(usize::try_from(rank)?))?;
        self.inner.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let Some(&input) = inputs.get(self.slot) else { bail!("it has no input {}", self.slot) };
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
        let Some(&input) = inputs.get(self.slot) else { bail!("it has no input {}", self.slot) };
        self.check(typed.outlet_fact(input)?.rank())?;
        self.inner.wire_with_inference_model_and_node(prefix, model, node, typed, inputs)
    }
}
