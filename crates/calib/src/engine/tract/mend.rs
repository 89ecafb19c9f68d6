//! Operators that the engine computes wrongly for some values or types, and whose mistake can be mended around them.
//!
//! | operator | mistake | here |
//! |---|---|---|
//! | ReduceMax, ReduceMin | the largest of nothing but minus infinities is the least finite number, and the smallest likewise | infinite again |
//! | BitShift | numbers with a sign, shifted by less than 0 or by all their bits | refused unless the shifts are known |
//!
//! These operators are built as before and wrapped in one that adds what is missing.

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::prelude::{SpecialOps, TractResult, tensor0};
use tract_onnx::tract_core::internal::{Op, OutletId, StaticName, TVec, TypedModel, Validation, bail, ensure, tvec};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::logic::{Iff, comp_eq};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

use super::wrap::{Built, as_inner, expansion, inner, wrap};

/// How an operator is mended.
#[derive(Clone, Copy, Debug)]
enum Mend {
    /// Where all that is reduced is infinite in this direction, so is the result.
    Infinite(f32),
    /// Numbers with a sign are refused unless they are known to be shifted by some of their bits.
    Shift,
}

const MENDED: [(&str, Mend); 3] = [
    ("BitShift", Mend::Shift),
    ("ReduceMax", Mend::Infinite(f32::NEG_INFINITY)),
    ("ReduceMin", Mend::Infinite(f32::INFINITY)),
];

/// Names what this file puts around operators.
const PURPOSE: &str = "mended";

/// Wraps the operators of the table.
pub(super) fn mend(onnx: &mut Onnx) {
    wrap(onnx, MENDED.iter().map(|(op_type, _)| *op_type), PURPOSE, mended);
}

fn mended(context: &ParsingContext<'_>, node: &tract_onnx::pb::NodeProto) -> TractResult<Built> {
    let (op, closures) = inner(context, node, PURPOSE)?;
    let mend = MENDED.iter().find(|(op_type, _)| *op_type == node.op_type);
    let Some((inner, &(_, mend))) = expansion(op.as_ref()).zip(mend) else { bail!("it cannot be mended") };
    Ok((expand(Mended { inner, mend }), closures))
}

/// An operator with what it lacks.
#[derive(Clone, Debug)]
struct Mended {
    inner: Box<dyn Expansion>,
    mend: Mend,
}

impl Expansion for Mended {
    as_inner!(inner, rules);

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let Some(&input) = inputs.first() else { bail!("it has no input") };
        let datum_type = model.outlet_fact(input)?.datum_type;
        match self.mend {
            Mend::Infinite(infinity) if datum_type.is_float() => self.wire_infinite(prefix, model, inputs, infinity),
            Mend::Infinite(_) => self.inner.wire(prefix, model, inputs),
            Mend::Shift => {
                ensure!(
                    datum_type.is_unsigned() || shifts_some_bits(model, inputs)?,
                    "it computes shifts by less than 0 or by all bits otherwise"
                );
                self.inner.wire(prefix, model, inputs)
            }
        }
    }
}

/// Whether the second input is known, and each number there smaller than the first one's bits and not negative.
fn shifts_some_bits(model: &TypedModel, inputs: &[OutletId]) -> TractResult<bool> {
    let [number, by] = *inputs else { bail!("it has no two inputs") };
    let n_bits = i64::try_from(8 * model.outlet_fact(number)?.datum_type.size_of())?;
    let Some(known) = &model.outlet_fact(by)?.konst else { return Ok(false) };
    let known = known.cast_to::<i64>()?.into_owned().into_plain_array::<i64>()?;
    Ok(known.iter().all(|by| (0..n_bits).contains(by)))
}

impl Mended {
    /// The operator beside itself on zeros and ones, ones where a number is not `infinity`.
    fn wire_infinite(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
        infinity: f32,
    ) -> TractResult<TVec<OutletId>> {
        let [input, others @ ..] = inputs else { bail!("it has no input") };
        let fact = model.outlet_fact(*input)?.clone();
        let constant = |model: &mut TypedModel, name: &str, value: f32, rank: usize| -> TractResult<OutletId> {
            let scalar = tensor0(value).cast_to_dt(fact.datum_type)?.into_owned().broadcast_into_rank(rank)?;
            model.add_const(format!("{prefix}.{name}"), scalar)
        };
        let equal = || TypedBinOp(comp_eq(), None);
        // The largest is 0, or the smallest 1, where all are infinite.
        let (if_infinite, if_not) = if infinity < 0.0 { (0.0, 1.0) } else { (1.0, 0.0) };
        let all = constant(model, "infinity", infinity, fact.rank())?;
        let yes = constant(model, "is_infinite", if_infinite, fact.rank())?;
        let no = constant(model, "is_not", if_not, fact.rank())?;
        let test = model.wire_node(format!("{prefix}.test"), equal(), &[*input, all])?;
        let marks = model.wire_node(format!("{prefix}.marks"), Iff, &[test[0], yes, no])?;
        let of_marks = [&marks[..1], others].concat();
        let marked = self.inner.wire(&format!("{prefix}.marked"), model, &of_marks)?;
        let found = self.inner.wire(&format!("{prefix}.found"), model, inputs)?;
        let rank = model.outlet_fact(found[0])?.rank();
        let all = constant(model, "all_infinite", infinity, rank)?;
        let yes = constant(model, "all_are", if_infinite, rank)?;
        let test = model.wire_node(format!("{prefix}.all"), equal(), &[marked[0], yes])?;
        Ok(tvec!(model.wire_node(prefix, Iff, &[test[0], all, found[0]])?[0]))
    }
}
