//! Attention as the standard says where the engine takes another mask.
//!
//! # Problem
//!
//! - Causal attention with a past: the engine lets query `i` see keys up to `i`, as if there were no past.
//! - Windows (`left_window_size`, `right_window_size`): it passes over them.
//! - Masks of booleans: where it does not optimize the graph, it adds them as zeros and ones.
//!
//! # Method
//!
//! Of the first two the mask is made here, by the lengths of queries, keys and past: query `i` stands at `past + i`. It
//! is added to the mask that the node has, and the engine's operator gets the sum, without `is_causal`.
//!
//! # Failure
//!
//! Lengths that are not known, for which plans by shape are made then, and masks of booleans are refused.

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumType, SpecialOps, TractResult};
use tract_onnx::tract_core::internal::{
    AxisOp, OutletId, StaticName, TVec, Tensor, TypedModel, Validation, bail, ensure,
};
use tract_onnx::tract_core::ops::math::add;
use tract_onnx::tract_hir::internal::DimLike;
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};
use tract_onnx::tract_hir::ops::logic::wire_with_rank_broadcast;

use super::wrap::{Built, as_inner, expansion, inner, wrap};

/// Names what this file puts around the operator.
const PURPOSE: &str = "plain";
/// Places of optional inputs.
const MASK: usize = 3;
const PAST: usize = 4;

/// Wraps the operator.
pub(super) fn register(onnx: &mut Onnx) {
    wrap(onnx, std::iter::once("Attention"), PURPOSE, attention);
}

fn attention(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Built> {
    let has_input = |place: usize| node.input.get(place).is_some_and(|name| !name.is_empty());
    let size = |name: &str| -> TractResult<Option<usize>> {
        Ok(node.get_attr_opt::<i64>(name)?.and_then(|size| usize::try_from(size).ok()))
    };
    let seen = Seen {
        is_causal: node.get_attr_opt::<i64>("is_causal")?.unwrap_or(0) != 0,
        left: size("left_window_size")?,
        right: size("right_window_size")?,
    };
    let mut masked = node.clone();
    masked.attribute.retain(|attribute| attribute.name != "is_causal");
    masked.input.resize(node.input.len().max(MASK + 1), String::new());
    masked.input[MASK] = "mask".to_owned();
    let op = Attention {
        plain: plain(context, node)?,
        masked: plain(context, &masked)?,
        seen,
        has_mask: has_input(MASK),
        has_past: has_input(PAST),
    };
    Ok((expand(op), vec![]))
}

/// The engine's operator.
fn plain(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Box<dyn Expansion>> {
    let (op, _) = inner(context, node, PURPOSE)?;
    let Some(inner) = expansion(op.as_ref()) else { bail!("{} cannot be wrapped", node.op_type) };
    Ok(inner)
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug)]
struct Seen {
    is_causal: bool,
    left: Option<usize>,
    right: Option<usize>,
}

impl Seen {
    fn has_window(self) -> bool {
        self.left.is_some() || self.right.is_some()
    }

    fn sees(self, query: usize, key: usize) -> bool {
        (!self.is_causal || key <= query)
            && self.left.is_none_or(|left| query.saturating_sub(key) <= left)
            && self.right.is_none_or(|right| key.saturating_sub(query) <= right)
    }

    /// What is added to the scores, `[1, 1, queries, keys]`.
    fn mask(self, past: usize, n_queries: usize, n_keys: usize) -> TractResult<Tensor> {
        let score = |at: usize| {
            let (query, key) = (past + at / n_keys, at % n_keys);
            if self.sees(query, key) { 0.0_f32 } else { f32::NEG_INFINITY }
        };
        let scores: Vec<f32> = (0..n_queries * n_keys).map(score).collect();
        Tensor::from_shape(&[1, 1, n_queries, n_keys], &scores)
    }
}

/// The operator of a node, as the engine takes it and with a mask as an input.
#[derive(Clone, Debug)]
struct Attention {
    plain: Box<dyn Expansion>,
    masked: Box<dyn Expansion>,
    seen: Seen,
    has_mask: bool,
    has_past: bool,
}

impl Expansion for Attention {
    as_inner!(plain, rules);

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        for &input in inputs {
            let is_boolean = model.outlet_fact(input)?.datum_type == DatumType::Bool;
            ensure!(!is_boolean, "it computes masks of booleans otherwise, as numbers");
        }
        if !(self.seen.has_window() || self.seen.is_causal && self.has_past) {
            return self.plain.wire(prefix, model, inputs);
        }
        let made = self.made_mask(model, inputs)?;
        let made = model.add_const(format!("{prefix}.seen"), made)?;
        let mut inputs = TVec::from(inputs);
        if self.has_mask {
            inputs[MASK] = self.wire_sum(prefix, model, inputs[MASK], made)?;
        } else {
            inputs.insert(MASK, made);
        }
        self.masked.wire(prefix, model, &inputs)
    }
}

impl Attention {
    /// The mask of what each query sees, of the type of the mask that it is added to.
    fn made_mask(&self, model: &TypedModel, inputs: &[OutletId]) -> TractResult<Tensor> {
        let length = |place: usize| -> TractResult<usize> {
            let Some(&input) = inputs.get(place) else { bail!("an input is missing") };
            let shape = &model.outlet_fact(input)?.shape;
            ensure!(shape.rank() >= 3, "an input has {} axes, expected 3 or 4", shape.rank());
            Ok(shape[shape.rank() - 2].to_usize()?)
        };
        let (n_queries, n_new) = (length(0)?, length(1)?);
        let past = if self.has_past { length(MASK + usize::from(self.has_mask))? } else { 0 };
        let made = self.seen.mask(past, n_queries, past + n_new)?;
        if !self.has_mask {
            return Ok(made);
        }
        Ok(made.cast_to_dt(model.outlet_fact(inputs[MASK])?.datum_type)?.into_owned())
    }

    /// The sum of both masks, with four axes.
    fn wire_sum(&self, prefix: &str, model: &mut TypedModel, mask: OutletId, made: OutletId) -> TractResult<OutletId> {
        let mut mask = mask;
        for axis in model.outlet_fact(mask)?.rank()..4 {
            mask = model.wire_node(format!("{prefix}.mask.{axis}"), AxisOp::Add(0), &[mask])?[0];
        }
        Ok(wire_with_rank_broadcast(format!("{prefix}.mask"), model, add(), &[mask, made])?[0])
    }
}
