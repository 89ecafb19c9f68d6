//! `GroupQueryAttention`: heads of queries share heads of keys, behind caches of what came before.
//!
//! With batches of different lengths, `seqlens_k + 1` tokens of a sample count, of which the new ones are the last. Caches
//! hold more than that for shorter samples; what lies between is not seen here. ONNX Runtime writes new keys over it, so
//! that `present_*` are the same where all samples have the length of the cache.

use onnxquant_proto::onnx::NodeProto;

use super::attention::{Heads, Scores, UNSEEN, attend, heads_first, not_behind, positions, seen_or};
use super::builder::Builder;
use super::rotary::{Angles, rotate};
use super::{has_input, has_output, input, int, number};

const PAST: [usize; 2] = [3, 4];
const LENGTHS: usize = 5;
const COS: usize = 7;
const SIN: usize = 8;
const POSITIONS: usize = 9;
const BIAS: usize = 10;
const SINK: usize = 11;
/// Scales of integer caches and weights of norms inside.
const UNKNOWN: [usize; 5] = [12, 13, 14, 15, 16];

pub(super) fn refused(node: &NodeProto) -> Option<&'static str> {
    let is_set = |name: &str| int(node, name).is_some_and(|number| number != 0);
    if UNKNOWN.iter().any(|&place| has_input(node, place)) || is_set("kv_cache_bit_width") {
        return Some("it knows no caches of integers and no norms inside attention");
    }
    if has_output(node, 3) || is_set("sliding_window_cache") || int(node, "causal") == Some(0) {
        return Some("it knows this attention only to what came before, without its scores as an output");
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
        let given = input(node, POSITIONS).map(|given| b.to_int64(given));
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
    let mut of = Heads { q: heads_first(b, &q), k: heads_first(b, &k), v: heads_first(b, &v), heads, kv_heads };
    let seen = Seen { at, past, cache: input(node, PAST[0]).map(|cache| b.length(cache, 2)) };
    for (value, place) in [(&mut of.k, PAST[0]), (&mut of.v, PAST[1])] {
        if let Some(cache) = input(node, place) {
            *value = b.concat(&[cache, value], 2);
        }
    }
    let window = int(node, "local_window_size").filter(|&window| window > 0);
    let mut scores = Scores::of(node);
    scores.softcap = number(node, "softcap").filter(|&most| most > 0.0);
    scores.masks.extend(input(node, BIAS).map(str::to_owned));
    scores.masks.push(seen.mask(b, window));
    scores.sink = match input(node, SINK) {
        Some(sink) => Some(b.reshape(sink, &[1, -1, 1, 1])),
        None => (int(node, "smooth_softmax") == Some(1)).then(|| b.number(0.0)),
    };
    let found = attend(b, &of, scores);
    for (place, value) in [(0, &found), (1, &of.k), (2, &of.v)] {
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
    let lengths = b.to_int64(&node.input[LENGTHS]);
    let lengths = b.reshape(&lengths, &[-1, 1]);
    let (one, zero, new) = (b.int(1), b.int(0), b.length(q, 1));
    let lengths = b.op("Add", &[&lengths, &one]);
    let past = b.op("Sub", &[&lengths, &new]);
    // Shorter samples of a first run have none.
    let is_none = b.op("Less", &[&past, &zero]);
    b.op("Where", &[&is_none, &zero, &past])
}

/// Where queries and keys stand.
struct Seen {
    /// Positions of queries, `[batch, queries]`.
    at: String,
    /// Tokens before the new ones, `[batch, 1]`.
    past: String,
    /// Length of the caches.
    cache: Option<String>,
}

impl Seen {
    /// What is added so that queries see what came before, at most `window` tokens: `[batch, 1, queries, keys]`.
    fn mask(&self, b: &mut Builder<'_>, window: Option<i64>) -> String {
        let at = b.unsqueeze(&self.at, 2);
        let mut keys = self.at.clone();
        let cached = self.cache.as_ref().map(|cache| {
            let cached = b.count_to(cache);
            // Behind the tokens of a shorter sample stands nothing that any query sees.
            let (is_there, never) = (b.op("Less", &[&cached, &self.past]), b.int(i64::from(i32::MAX)));
            b.op("Where", &[&is_there, &cached, &never])
        });
        if let Some(cached) = cached {
            keys = b.concat(&[&cached, &keys], 1);
        }
        let keys = b.unsqueeze(&keys, 1);
        let mut seen = not_behind(b, &keys, &at);
        if let Some(window) = window {
            let (distance, window) = (b.op("Sub", &[&at, &keys]), b.int(window));
            let is_near = b.op("Less", &[&distance, &window]);
            seen = b.op("And", &[&seen, &is_near]);
        }
        let mask = seen_or(b, &seen, UNSEEN);
        b.unsqueeze(&mask, 1)
    }
}
