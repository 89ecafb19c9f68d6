//! `GroupQueryAttention` of ONNX Runtime as one operator, with all that decoders use of it.
//!
//! # Problem
//!
//! The engine's own operator of this name refuses packed queries, keys and values, several tokens behind a past, partial and
//! interleaved rotation, softcaps, sinks, and caches of codes.
//!
//! # Shapes and units
//!
//! | input | | |
//! |---|---|---|
//! | 0 to 2 | queries, keys, values | `[B, S, heads * D]`; packed side by side in the first where the others are left out |
//! | 3, 4 | keys and values of `P` earlier tokens | `[B, KV, P, D]`, floats or int8 |
//! | 5 | tokens of each sequence, less 1 | `[B]` |
//! | 6 | tokens of the longest | scalar |
//! | 7, 8 | cosines and sines by place | `[places, rotated / 2]` |
//! | 9 | places of the new tokens | `[B, S]` |
//! | 10 | added to scores | `[B or 1, heads or 1, S, P + S]` |
//! | 11 | a score that nothing stands behind | `[heads]` |
//! | 12, 13 | real numbers per code step of keys and values | one number, or `KV * D` |
//!
//! # Method
//!
//! New keys are rotated and stored behind the past, as codes where the caches are codes, and attention reads what is stored.
//! Query `i` of a sequence of which `p` tokens are past sees the tokens up to `p + i`, or the last `window` of these. Where all
//! tokens are new (`S` is input 6) `p` is 0; else it is `length - S`: tokens that fill a batch up stand at the end.
//!
//! # Guarantee
//!
//! The tests run each form in ONNX Runtime too.
//!
//! # Failure
//!
//! Refused: both directions (`causal` 0), scores as an output, norms of queries and keys, windows as buffers, and chunks that
//! are filled up (`query_seqlens`), a past that is a buffer for more tokens than there are, codes of 4 bits.

use ndarray::{Array2, Array4, ArrayD, ArrayView2, ArrayViewMut2, Ix2, Ix3, Ix4, s};
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::SpecialOps;
use tract_onnx::tract_core::internal::{DatumTypeExt, OutletId, TypedModel};
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{
    EvalContext, EvalOp, IntoTensor, Op, ShapeFactoid, StaticName, TDim, TValue, TVec, ToDim, TractResult, TypedFact,
    TypedOp, as_op, bail, ensure, op_as_typed_op, op_out_of_plan, tvec,
};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

use super::wrap::Built;

/// The operator's name.
const OPERATOR: &str = "GroupQueryAttention";
/// Inputs by what they hold.
const PAST: [usize; 2] = [3, 4];
const LENGTHS: usize = 5;
const TOTAL: usize = 6;
const TURNS: [usize; 2] = [7, 8];
const PLACES: usize = 9;
const BIAS: usize = 10;
const SINK: usize = 11;
const SCALES: [usize; 2] = [12, 13];
/// Inputs that the operator takes.
const N_INPUTS: usize = 14;
/// The codes.
const CODES: [f32; 2] = [-128.0, 127.0];

/// Makes the operator known to the engine.
pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert(OPERATOR, build);
}

fn build(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Built> {
    Ok((expand(Attention::parse(node)?), vec![]))
}

/// The operator of a node.
#[derive(Clone, Debug, PartialEq)]
struct Attention {
    heads: usize,
    kv_heads: usize,
    /// Of scores; the root of the size of a head where it is 0.
    scale: f32,
    softcap: f32,
    rotates: bool,
    interleaved: bool,
    /// Tokens that a query sees, itself among them.
    window: Option<usize>,
    /// A score of 0 that nothing stands behind takes part in every softmax.
    smooth: bool,
    /// By input that is given: its place among all.
    slots: Vec<usize>,
    n_outputs: usize,
}

impl Eq for Attention {}

impl Attention {
    fn parse(node: &NodeProto) -> TractResult<Self> {
        let int = |name: &str, default: i64| -> TractResult<i64> { Ok(node.get_attr_opt(name)?.unwrap_or(default)) };
        let float = |name: &str| -> TractResult<f32> { Ok(node.get_attr_opt(name)?.unwrap_or(0.0)) };
        let given = |slot: usize| node.input.get(slot).is_some_and(|name| !name.is_empty());
        ensure!(int("causal", 1)? == 1, "attention in both directions is not computed");
        ensure!(int("sliding_window_cache", 0)? == 0, "caches of windows are not computed");
        ensure!(int("qk_output", 0)? == 0 && node.output.len() <= 3, "scores as an output are not computed");
        ensure!(!(N_INPUTS..node.input.len()).any(given), "norms of queries and keys are not computed");
        ensure!(given(1) == given(2), "keys and values are given both or none");
        ensure!(given(LENGTHS) && given(TOTAL), "it is not told how many tokens there are");
        let rotates = int("do_rotary", 0)? == 1;
        ensure!(!rotates || TURNS.into_iter().all(given), "it rotates and has no angles");
        let is_quantized = given(SCALES[0]) || given(SCALES[1]);
        ensure!(!is_quantized || int("kv_cache_bit_width", 8)? == 8, "caches of few bits are not computed");
        let size = |name: &str| -> TractResult<usize> { Ok(usize::try_from(node.get_attr::<i64>(name)?)?) };
        let (heads, kv_heads) = (size("num_heads")?, size("kv_num_heads")?);
        ensure!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads share {kv_heads}");
        Ok(Self {
            heads,
            kv_heads,
            scale: float("scale")?,
            softcap: float("softcap")?,
            rotates,
            interleaved: int("rotary_interleaved", 0)? == 1,
            window: usize::try_from(int("local_window_size", -1)?).ok().filter(|window| *window > 0),
            smooth: int("smooth_softmax", 0)? == 1,
            slots: (0..node.input.len()).filter(|&slot| given(slot)).collect(),
            n_outputs: node.output.len(),
        })
    }

    fn place(&self, slot: usize) -> Option<usize> {
        self.slots.iter().position(|&given| given == slot)
    }

    /// Heads side by side in the first input.
    fn packed_heads(&self) -> usize {
        if self.place(1).is_none() { self.heads + 2 * self.kv_heads } else { self.heads }
    }

    /// Shapes of the results, by those of queries and of a past.
    fn shapes(&self, query: &[TDim], past: Option<&[TDim]>) -> TractResult<[Vec<TDim>; 3]> {
        let [batch, new, width] = query else { bail!("queries have {} axes, expected 3", query.len()) };
        let size = width.clone() / self.packed_heads();
        let total = match past {
            Some([_, _, before, _]) => before.clone() + new,
            Some(past) => bail!("a past has {} axes, expected 4", past.len()),
            None => new.clone(),
        };
        let cache = vec![batch.clone(), self.kv_heads.to_dim(), total, size.clone()];
        Ok([vec![batch.clone(), new.clone(), size * self.heads], cache.clone(), cache])
    }
}

impl Expansion for Attention {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.n_outputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let past = self.place(PAST[0]);
        for (at, output) in outputs.iter().enumerate() {
            let like = if at == 0 { 0 } else { self.place(PAST[at - 1]).unwrap_or(0) };
            solver.equals(&inputs[like].datum_type, &output.datum_type)?;
        }
        let put = move |solver: &mut Solver<'r>, query: &[TDim], past: Option<&[TDim]>| -> InferenceResult {
            let shapes = self.shapes(query, past)?;
            outputs
                .iter()
                .zip(shapes)
                .try_for_each(|(output, shape)| solver.equals(&output.shape, ShapeFactoid::from(shape)))
        };
        solver.given(&inputs[0].shape, move |solver, query| match past {
            Some(past) => solver.given(&inputs[past].shape, move |solver, past| put(solver, &query, Some(&past))),
            None => put(solver, &query, None),
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Attention {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    op_as_typed_op!();
}

impl TypedOp for Attention {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let past = PAST.map(|slot| self.place(slot).map(|at| inputs[at]));
        let shapes = self.shapes(&inputs[0].shape, past[0].map(|past| &past.shape[..]))?;
        let types = [None, past[0], past[1]].map(|like| like.unwrap_or(inputs[0]).datum_type);
        let facts = types.into_iter().zip(shapes).map(|(datum_type, shape)| datum_type.fact(shape));
        Ok(facts.take(self.n_outputs).collect())
    }

    as_op!();
}

impl EvalOp for Attention {
    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let datum_type = inputs[0].datum_type();
        let given = Given::read(self, &inputs)?;
        let (y, caches) = self.attend(&given)?;
        let mut found: TVec<TValue> = tvec!(y.into_tensor().cast_to_dt(datum_type)?.into_owned().into());
        for (at, cache) in caches.into_iter().enumerate() {
            let like = self.place(PAST[at]).map_or(datum_type, |past| inputs[past].datum_type());
            found.push(cache.into_tensor().cast_to_dt(like)?.into_owned().into());
        }
        found.truncate(self.n_outputs);
        Ok(found)
    }

    op_out_of_plan!();
}

/// What the inputs hold; keys and values in steps of their scales, where they have such.
struct Given {
    /// `[batch, heads, tokens, channels]`.
    queries: Array4<f32>,
    new: [Array4<f32>; 2],
    past: [Option<Array4<f32>>; 2],
    /// `[kv heads, channels]`.
    scales: [Option<Array2<f32>>; 2],
    lengths: Vec<usize>,
    total: usize,
    turns: [Option<Array2<f32>>; 2],
    places: Option<Array2<f32>>,
    bias: Option<Array4<f32>>,
    sink: Option<Vec<f32>>,
}

impl Given {
    fn read(op: &Attention, inputs: &[TValue]) -> TractResult<Self> {
        let numbers = |slot: usize| -> TractResult<Option<ArrayD<f32>>> {
            let value = op.place(slot).and_then(|at| inputs.get(at));
            value.map(|value| value.cast_to::<f32>()?.into_owned().into_plain_array::<f32>()).transpose()
        };
        let heads = |slot: usize, heads: usize| -> TractResult<Option<Array4<f32>>> {
            numbers(slot)?.map(|array| by_head(array, heads)).transpose()
        };
        let plane = |slot: usize| -> TractResult<Option<Array2<f32>>> {
            Ok(numbers(slot)?.map(|array| array.into_dimensionality::<Ix2>()).transpose()?)
        };
        let four = |slot: usize| -> TractResult<Option<Array4<f32>>> {
            Ok(numbers(slot)?.map(|array| array.into_dimensionality::<Ix4>()).transpose()?)
        };
        let Some(first) = heads(0, op.packed_heads())? else { bail!("there are no queries") };
        let (n, kv) = (op.heads, op.kv_heads);
        let part = |from: usize, count: usize| first.slice(s![.., from..from + count, .., ..]).to_owned();
        let new = match (heads(1, kv)?, heads(2, kv)?) {
            (Some(keys), Some(values)) => [keys, values],
            _ => [part(n, kv), part(n + kv, kv)],
        };
        let size = first.dim().3;
        let scales = |slot: usize| -> TractResult<Option<Array2<f32>>> {
            numbers(slot)?.map(|array| by_channel(&array, kv, size)).transpose()
        };
        let counts = |slot: usize| -> TractResult<Vec<usize>> {
            let numbers = numbers(slot)?.unwrap_or_default();
            numbers
                .iter()
                .map(|count| if *count >= 0.0 { Ok(*count as usize) } else { bail!("{count} tokens") })
                .collect()
        };
        let lengths: Vec<usize> = counts(LENGTHS)?.into_iter().map(|last| last + 1).collect();
        let Some(&total) = counts(TOTAL)?.first() else { bail!("it is not told how many tokens there are") };
        let found = Self {
            queries: part(0, n),
            new,
            past: [four(PAST[0])?, four(PAST[1])?],
            scales: [scales(SCALES[0])?, scales(SCALES[1])?],
            lengths,
            total,
            turns: [plane(TURNS[0])?, plane(TURNS[1])?],
            places: plane(PLACES)?,
            bias: four(BIAS)?,
            sink: numbers(SINK)?.map(|sink| sink.iter().copied().collect()),
        };
        found.check(op)?;
        Ok(found)
    }

    /// Sizes that depend on each other.
    fn check(&self, op: &Attention) -> TractResult<()> {
        let (batch, _, new, size) = self.queries.dim();
        let all = self.before() + new;
        ensure!(self.lengths.len() == batch, "{} lengths of {batch} sequences", self.lengths.len());
        ensure!(self.lengths.iter().all(|&length| length <= all), "there are more tokens than past and new ones");
        ensure!(self.total == all, "a past of {} tokens is no buffer for {} of them", self.before(), self.total);
        let cache = |tokens: usize| (batch, op.kv_heads, tokens, size);
        ensure!(self.new.iter().all(|new_one| new_one.dim() == cache(new)), "keys and queries are not of one shape");
        let fits = |past: &Array4<f32>| past.dim() == cache(self.before());
        ensure!(self.past.iter().flatten().all(fits), "the past has another shape than keys");
        ensure!(self.sink.as_ref().is_none_or(|sink| sink.len() == op.heads), "a sink for each head is expected");
        Ok(())
    }

    /// Tokens of the past.
    fn before(&self) -> usize {
        self.past[0].as_ref().map_or(0, |past| past.dim().2)
    }

    /// Tokens of sequence `batch` that are past.
    fn past_of(&self, batch: usize) -> usize {
        let new = self.queries.dim().2;
        if self.total == new { 0 } else { self.lengths[batch].saturating_sub(new) }
    }

    /// Where token `at` of the new ones stands.
    fn place(&self, batch: usize, at: usize) -> usize {
        let told = self.places.as_ref().and_then(|places| places.get([batch, at]));
        told.map_or(self.past_of(batch) + at, |place| *place as usize)
    }
}

/// `[batch, tokens, heads * channels]` by head.
fn by_head(array: ArrayD<f32>, heads: usize) -> TractResult<Array4<f32>> {
    let array = array.into_dimensionality::<Ix3>()?;
    let (batch, tokens, width) = array.dim();
    ensure!(width.is_multiple_of(heads), "{width} numbers of a token are not those of {heads} heads");
    let apart = array.as_standard_layout().into_owned().into_shape_with_order((batch, tokens, heads, width / heads))?;
    Ok(apart.permuted_axes([0, 2, 1, 3]).as_standard_layout().into_owned())
}

/// Scales by head and channel.
fn by_channel(scales: &ArrayD<f32>, heads: usize, size: usize) -> TractResult<Array2<f32>> {
    let numbers: Vec<f32> = scales.iter().copied().collect();
    match numbers[..] {
        [scale] => Ok(Array2::from_elem((heads, size), scale)),
        _ if numbers.len() == heads * size => Ok(Array2::from_shape_vec((heads, size), numbers)?),
        _ => bail!("{} scales, expected one, or one of each of {heads} heads' {size} channels", numbers.len()),
    }
}

impl Attention {
    /// What attention gives, and what is stored of keys and values.
    fn attend(&self, given: &Given) -> TractResult<(ArrayD<f32>, [ArrayD<f32>; 2])> {
        let (batch, heads, new, size) = given.queries.dim();
        let mut queries = given.queries.clone();
        let mut stored = given.new.clone();
        if self.rotates {
            self.rotate(given, &mut queries)?;
            self.rotate(given, &mut stored[0])?;
        }
        let shape = (batch, self.kv_heads, given.before() + new, size);
        let mut caches = [Array4::<f32>::zeros(shape), Array4::zeros(shape)];
        for (at, cache) in caches.iter_mut().enumerate() {
            if let Some(scales) = &given.scales[at] {
                to_codes(&mut stored[at], scales);
            }
            for sequence in 0..batch {
                let past = given.past_of(sequence);
                let mut rows = cache.slice_mut(s![sequence, .., .., ..]);
                if let Some(before) = &given.past[at] {
                    rows.slice_mut(s![.., ..past, ..]).assign(&before.slice(s![sequence, .., ..past, ..]));
                }
                rows.slice_mut(s![.., past..past + new, ..]).assign(&stored[at].slice(s![sequence, .., .., ..]));
            }
        }
        let mut y = Array4::<f32>::zeros((batch, new, heads, size));
        for sequence in 0..batch {
            for head in 0..heads {
                let kv = head / (heads / self.kv_heads);
                let rows = |at: usize| real(caches[at].slice(s![sequence, kv, .., ..]), given.scales[at].as_ref(), kv);
                let [keys, values] = [rows(0), rows(1)];
                let query = queries.slice(s![sequence, head, .., ..]);
                let mut scores = query.dot(&keys.t()) * self.factor(size);
                self.softmax(given, (sequence, head), scores.view_mut());
                y.slice_mut(s![sequence, .., head, ..]).assign(&scores.dot(&values));
            }
        }
        let y = y.into_shape_with_order((batch, new, heads * size))?.into_dyn();
        Ok((y, caches.map(Array4::into_dyn)))
    }

    fn factor(&self, size: usize) -> f32 {
        if self.scale == 0.0 { 1.0 / (size as f32).sqrt() } else { self.scale }
    }

    /// Turns channels two and two.
    fn rotate(&self, given: &Given, tokens: &mut Array4<f32>) -> TractResult<()> {
        let [Some(cosines), Some(sines)] = &given.turns else { bail!("there are no angles") };
        let (pairs, size) = (cosines.ncols(), tokens.dim().3);
        ensure!(2 * pairs <= size && sines.dim() == cosines.dim(), "{pairs} angles for {size} channels");
        let (batch, _, new, _) = tokens.dim();
        for (sequence, at) in (0..batch).flat_map(|sequence| (0..new).map(move |at| (sequence, at))) {
            let place = given.place(sequence, at);
            ensure!(place < cosines.nrows(), "there are no angles for place {place}");
            for mut token in tokens.slice_mut(s![sequence, .., at, ..]).rows_mut() {
                for pair in 0..pairs {
                    let (a, b) = if self.interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + pairs) };
                    let (cosine, sine) = (cosines[[place, pair]], sines[[place, pair]]);
                    (token[a], token[b]) = (token[a] * cosine - token[b] * sine, token[b] * cosine + token[a] * sine);
                }
            }
        }
        Ok(())
    }

    /// Weights of the tokens that each query sees, from scores.
    fn softmax(&self, given: &Given, (sequence, head): (usize, usize), mut scores: ArrayViewMut2<'_, f32>) {
        let past = given.past_of(sequence);
        let sink = given.sink.as_ref().map(|sink| sink[head]).or(self.smooth.then_some(0.0));
        for (at, mut row) in scores.rows_mut().into_iter().enumerate() {
            let end = (past + at + 1).min(row.len());
            let start = self.window.map_or(0, |window| end.saturating_sub(window));
            if self.softcap > 0.0 {
                row.mapv_inplace(|score| self.softcap * (score / self.softcap).tanh());
            }
            if let Some(bias) = &given.bias {
                let (batches, heads, _, keys) = bias.dim();
                let added = bias.slice(s![sequence.min(batches - 1), head.min(heads - 1), at, ..]);
                row.iter_mut().zip(added.iter().take(keys)).for_each(|(score, more)| *score += more);
            }
            let seen = row.slice(s![start..end]);
            let largest = seen.iter().copied().chain(sink).fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = seen.iter().copied().chain(sink).map(|score| (score - largest).exp()).sum();
            for (key, score) in row.iter_mut().enumerate() {
                *score = if (start..end).contains(&key) { (*score - largest).exp() / sum } else { 0.0 };
            }
        }
    }
}

/// Rounds to steps of the scales.
fn to_codes(tokens: &mut Array4<f32>, scales: &Array2<f32>) {
    for ((_, head, _, channel), x) in tokens.indexed_iter_mut() {
        *x = (*x / scales[[head, channel]]).round_ties_even().clamp(CODES[0], CODES[1]);
    }
}

/// What is stored of a head, as real numbers.
fn real(stored: ArrayView2<'_, f32>, scales: Option<&Array2<f32>>, head: usize) -> Array2<f32> {
    match scales {
        Some(scales) => &stored * &scales.row(head),
        None => stored.to_owned(),
    }
}
