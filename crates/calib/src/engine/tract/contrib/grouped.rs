//! `GroupQueryAttention`: heads of queries share heads of keys, behind caches of what came before.
//!
//! A sample has `seqlens_k + 1` tokens, of which the new ones are the last, and stand in the caches right behind the others:
//! caches may be longer, for other samples of a batch are. Caches of int8 hold codes, one scale for all or for each number
//! of a head; attention reads what is stored.

use onnxquant_proto::onnx::NodeProto;

use super::attention::{Heads, Scores, UNSEEN, attend, heads_first, not_behind, positions, seen_or};
use super::builder::{Builder, int as int_attribute};
use super::rotary::{Angles, rotate};
use super::{has_input, has_output, input, int, number};

const PAST: [usize; 2] = [3, 4];
const LENGTHS: usize = 5;
const COS: usize = 7;
const SIN: usize = 8;
const POSITIONS: usize = 9;
const BIAS: usize = 10;
const SINK: usize = 11;
const SCALES: [usize; 2] = [12, 13];
/// Weights of norms inside, and lengths of queries.
const UNKNOWN: [usize; 3] = [14, 15, 16];
/// Codes of caches.
const CODES: [f32; 2] = [-128.0, 127.0];

pub(super) fn refused(node: &NodeProto) -> Option<&'static str> {
    let is_set = |name: &str| int(node, name).is_some_and(|number| number != 0);
    if UNKNOWN.iter().any(|&place| has_input(node, place)) {
        return Some("it knows no norms inside attention");
    }
    if has_input(node, SCALES[0]) != has_input(node, SCALES[1]) || int(node, "kv_cache_bit_width") == Some(4) {
        return Some("it knows no caches of 4 bits, and none of which only one has codes");
    }
    if int(node, "causal") == Some(0) {
        return Some("it knows no attention in both directions with groups of heads");
    }
    if is_set("sliding_window_cache") {
        return Some("it knows no caches that hold windows");
    }
    if has_output(node, 3) || is_set("qk_output") {
        return Some("it knows no scores as an output");
    }
    let counts = [int(node, "num_heads"), int(node, "kv_num_heads")];
    let [Some(heads), Some(kv_heads)] = counts else { return Some("its numbers of heads are missing") };
    if kv_heads < 1 || heads % kv_heads != 0 || has_input(node, PAST[0]) != has_input(node, PAST[1]) {
        return Some("its numbers of heads or its caches do not belong together");
    }
    let lacks_angles = is_set("do_rotary") && !(has_input(node, COS) && has_input(node, SIN));
    (lacks_angles || !has_input(node, LENGTHS)).then_some("it lacks lengths or angles")
}

pub(super) fn write(b: &mut Builder<'_>, node: &NodeProto) {
    let heads = int(node, "num_heads").unwrap_or(1);
    let kv_heads = int(node, "kv_num_heads").unwrap_or(heads);
    let [mut q, mut k, v] = of_heads(b, node, heads, kv_heads);
    let past = past_lengths(b, node, &q);
    let new = positions(b, &q, 1, None);
    // `[batch, queries]`
    let at = b.op("Add", &[&past, &new]);
    if int(node, "do_rotary").unwrap_or(0) != 0 {
        let given = input(node, POSITIONS).map(|given| b.as_int64(given));
        let positions = given.unwrap_or_else(|| at.clone());
        let angles = Angles {
            cos: node.input[COS].clone(),
            sin: node.input[SIN].clone(),
            in_pairs: int(node, "rotary_interleaved").unwrap_or(0) != 0,
        };
        let turns = angles.at(b, &positions);
        q = rotate(b, &q, &turns);
        k = rotate(b, &k, &turns);
    }
    let [keys, values] = [k, v].map(|value| heads_first(b, &value));
    let [keys, values] = [(0, keys), (1, values)].map(|(of, value)| Stored::new(b, node, (of, kv_heads), value, &past));
    let of = Heads { q: heads_first(b, &q), k: keys.read.clone(), v: values.read.clone(), heads, kv_heads };
    let window = int(node, "local_window_size").filter(|&window| window > 0);
    let mut scores = Scores::of(node);
    scores.softcap = number(node, "softcap").filter(|&most| most > 0.0);
    scores.masks.extend(input(node, BIAS).map(str::to_owned));
    scores.masks.push(mask(b, &at, &of.k, window));
    scores.sink = match input(node, SINK) {
        Some(sink) => Some(b.reshape(sink, &[1, -1, 1, 1])),
        None => (int(node, "smooth_softmax") == Some(1)).then(|| b.number(0.0)),
    };
    let found = attend(b, &of, scores);
    for (place, value) in [(0, &found), (1, &keys.kept), (2, &values.kept)] {
        b.output(node, place, value);
    }
}

/// Queries, keys and values, `[batch, length, heads, width]`.
fn of_heads(b: &mut Builder<'_>, node: &NodeProto, heads: i64, kv_heads: i64) -> [String; 3] {
    let (Some(k), Some(v)) = (input(node, 1), input(node, 2)) else {
        let all = b.reshape(&node.input[0], &[0, 0, heads + 2 * kv_heads, -1]);
        let bounds = [0, heads, heads + kv_heads, heads + 2 * kv_heads];
        return [0, 1, 2].map(|part| b.slice(&all, 2, bounds[part], bounds[part + 1]));
    };
    [(&*node.input[0], heads), (k, kv_heads), (v, kv_heads)].map(|(value, heads)| b.reshape(value, &[0, 0, heads, -1]))
}

/// How many tokens stand before the new ones, by sample: `[batch, 1]`.
fn past_lengths(b: &mut Builder<'_>, node: &NodeProto, q: &str) -> String {
    let lengths = b.as_int64(&node.input[LENGTHS]);
    let lengths = b.reshape(&lengths, &[-1, 1]);
    let (one, zero, new) = (b.int(1), b.int(0), b.length(q, 1));
    let lengths = b.op("Add", &[&lengths, &one]);
    let past = b.op("Sub", &[&lengths, &new]);
    // Shorter samples of a first run have none.
    let is_none = b.op("Less", &[&past, &zero]);
    b.op("Where", &[&is_none, &zero, &past])
}

/// Keys or values of all tokens.
struct Stored {
    /// As the cache holds them.
    kept: String,
    /// As attention reads them.
    read: String,
}

impl Stored {
    /// `new` ones behind those of the cache; `of` is 0 for keys and 1 for values.
    fn new(b: &mut Builder<'_>, node: &NodeProto, (of, kv_heads): (usize, i64), new: String, past: &str) -> Self {
        let scale = cache_scale(b, node, of, kv_heads);
        let mut kept = scale.as_ref().map_or(new.clone(), |scale| encoded(b, &new, scale));
        if let Some(cache) = input(node, PAST[of]) {
            kept = behind(b, cache, &kept, past);
        }
        let read = scale.map_or(kept.clone(), |scale| decoded(b, &kept, &scale));
        Self { kept, read }
    }
}

/// Real numbers per step of codes, as caches broadcast; nothing where caches hold floats.
fn cache_scale(b: &mut Builder<'_>, node: &NodeProto, of: usize, kv_heads: i64) -> Option<String> {
    let scale = input(node, SCALES[of])?;
    let kind = ["k_quant_type", "v_quant_type"][of];
    let kind = node.attribute.iter().find(|attribute| attribute.name() == kind);
    let by_channel = kind.is_some_and(|kind| kind.s() == b"PER_CHANNEL");
    let shape = if by_channel { [1, kv_heads, 1, -1] } else { [1; 4] };
    Some(b.reshape(scale, &shape))
}

fn encoded(b: &mut Builder<'_>, value: &str, scale: &str) -> String {
    let steps = b.op("Div", &[value, scale]);
    let steps = b.op("Round", &[&steps]);
    let [least, most] = CODES.map(|bound| b.number(bound));
    let codes = b.op("Clip", &[&steps, &least, &most]);
    b.as_int8(&codes)
}

fn decoded(b: &mut Builder<'_>, codes: &str, scale: &str) -> String {
    let steps = b.as_float(codes);
    b.op("Mul", &[&steps, scale])
}

/// A cache with `new` behind its first tokens, as many as `past` says: `[batch, heads, tokens, width]`.
fn behind(b: &mut Builder<'_>, cache: &str, new: &str, past: &str) -> String {
    let (n_cached, n_new) = (b.length(cache, 2), b.length(new, 2));
    let all = b.concat(&[cache, new], 2);
    let n_all = b.op("Add", &[&n_cached, &n_new]);
    let places = b.count_to(&n_all);
    // New ones are taken from behind the whole cache.
    let (shift, end) = (b.op("Sub", &[&n_cached, past]), b.op("Add", &[past, &n_new]));
    let moved = b.op("Add", &[&places, &shift]);
    let (is_cached, is_new) = (b.op("Less", &[&places, past]), b.op("Less", &[&places, &end]));
    let rest = b.op("Where", &[&is_new, &moved, &places]);
    let from = b.op("Where", &[&is_cached, &places, &rest]);
    let from = b.unsqueeze(&from, 2);
    let tokens = b.transpose(&all, &[0, 2, 1, 3]);
    let ordered = b.op_with("GatherND", &[&tokens, &from], vec![int_attribute("batch_dims", 1)]);
    b.transpose(&ordered, &[0, 2, 1, 3])
}

/// What is added so that queries at the places `at` see what came before, at most `window` tokens: `[batch, 1, queries, keys]`.
fn mask(b: &mut Builder<'_>, at: &str, keys: &str, window: Option<i64>) -> String {
    let (at, keys) = (b.unsqueeze(at, 2), positions(b, keys, 2, None));
    let mut seen = not_behind(b, &keys, &at);
    if let Some(window) = window {
        let (distance, window) = (b.op("Sub", &[&at, &keys]), b.int(window));
        let is_near = b.op("Less", &[&distance, &window]);
        seen = b.op("And", &[&seen, &is_near]);
    }
    let mask = seen_or(b, &seen, UNSEEN);
    b.unsqueeze(&mask, 1)
}
