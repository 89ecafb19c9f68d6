//! Puts something around operators of the engine, which are built as before.

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_core::internal::{Op, bail};
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::ops::expandable::Expansion;

/// An operator, and what its bodies take from around them.
pub(super) type Built = (Box<dyn InferenceOp>, Vec<String>);
/// How the engine makes an operator.
type Builder = fn(&ParsingContext<'_>, &tract_onnx::pb::NodeProto) -> TractResult<Built>;

/// What a wrapper says of itself as the operator in its field `$inner` does: its name, how many results it has, and with
/// `rules` what is known of their types and shapes.
macro_rules! as_inner {
    ($inner:ident, rules) => {
        as_inner!($inner);

        fn rules<'r, 'p: 'r, 's: 'r>(
            &'s self,
            solver: &mut tract_onnx::tract_hir::internal::Solver<'r>,
            inputs: &'p [tract_onnx::tract_hir::internal::TensorProxy],
            outputs: &'p [tract_onnx::tract_hir::internal::TensorProxy],
        ) -> tract_onnx::tract_hir::internal::InferenceResult {
            self.$inner.rules(solver, inputs, outputs)
        }
    };
    ($inner:ident) => {
        fn name(&self) -> StaticName {
            self.$inner.name()
        }

        fn validation(&self) -> Validation {
            self.$inner.validation()
        }

        fn info(&self) -> TractResult<Vec<String>> {
            self.$inner.info()
        }

        fn nboutputs(&self) -> TractResult<usize> {
            self.$inner.nboutputs()
        }
    };
}
pub(super) use as_inner;

/// Lets `builder` make these operators. It finds those that the engine made before with [`inner`], by the same `purpose`.
pub(super) fn wrap<'a>(onnx: &mut Onnx, op_types: impl Iterator<Item = &'a str>, purpose: &str, builder: Builder) {
    let register = &mut onnx.op_register.0;
    for op_type in op_types {
        if let Some(before) = register.insert(op_type.to_owned(), builder) {
            register.insert(name_before(purpose, op_type), before);
        }
    }
}

/// The name under which the operator stands as it was before. It stands in no file.
fn name_before(purpose: &str, op_type: &str) -> String {
    format!("onnxquant.{purpose}.{op_type}")
}

/// The operator as it was before.
pub(super) fn inner(
    context: &ParsingContext<'_>,
    node: &tract_onnx::pb::NodeProto,
    purpose: &str,
) -> TractResult<Built> {
    match context.framework.op_register.0.get(&name_before(purpose, &node.op_type)) {
        Some(builder) => builder(context, node),
        None => bail!("there is no {}", node.op_type),
    }
}

/// The operator as one that can be wrapped, if it is one.
pub(super) fn expansion(op: &dyn InferenceOp) -> Option<Box<dyn Expansion>> {
    let op: &dyn Op = op;
    op.downcast_ref::<Box<dyn Expansion>>().cloned()
}
