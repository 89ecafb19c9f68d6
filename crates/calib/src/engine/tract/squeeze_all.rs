//! Squeeze without axes, which takes out every axis of length 1.
//!
//! The engine wants axes before opset 13. From then on it takes a length that it does not know for another one than 1:
//! samples of which one has that length would get a result of too high a rank. Here lengths must be known, so that models
//! with this operator have a plan for every shape.

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_core::internal::{DimLike, OutletId, StaticName, TVec, TypedModel, Validation, bail};
use tract_onnx::tract_hir::ops::array::Squeeze;
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

use super::wrap::{Built, as_inner, inner, wrap};

/// Names what this file puts around the operator.
const PURPOSE: &str = "squeeze-all";

/// Builds the operator here where it has no axes.
pub(super) fn register(onnx: &mut Onnx) {
    wrap(onnx, ["Squeeze"].into_iter(), PURPOSE, built);
}

fn built(context: &ParsingContext<'_>, node: &tract_onnx::pb::NodeProto) -> TractResult<Built> {
    let has_axes = node.attribute.iter().any(|a| a.name == "axes") || node.input.get(1).is_some_and(|i| !i.is_empty());
    if has_axes {
        inner(context, node, PURPOSE)
    } else {
        Ok((expand(SqueezeAll { inner: Squeeze::new(None) }), vec![]))
    }
}

#[derive(Clone, Debug)]
struct SqueezeAll {
    inner: Squeeze,
}

impl Expansion for SqueezeAll {
    as_inner!(inner, rules);

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let Some(&input) = inputs.first() else { bail!("it has no input") };
        if model.outlet_fact(input)?.shape.iter().any(|length| length.to_usize().is_err()) {
            bail!("which axes a Squeeze without axes takes out depends on lengths that are not known");
        }
        self.inner.wire(prefix, model, inputs)
    }
}
