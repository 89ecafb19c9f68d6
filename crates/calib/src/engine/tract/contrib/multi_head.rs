//! `MultiHeadAttention`: projections stand before it.

use onnxquant_proto::onnx::NodeProto;

use super::attention::{Heads, Scores, UNSEEN, attend, by_heads, causal_mask, hidden_beyond, hidden_by};
use super::builder::Builder;
use super::{has_input, has_output, input, int, number};

const BIAS: usize = 3;
const KEYS: usize = 4;
const ADDED: usize = 5;
const PAST: [usize; 2] = [6, 7];
/// What hidden keys get by default.
pub(super) const HIDDEN: f32 = -10000.0;

pub(super) fn refused(node: &NodeProto) -> Option<&'static str> {
    if !(0..3).all(|place| has_input(node, place)) || int(node, "num_heads").is_none() {
        return Some("it knows no packed queries, keys and values");
    }
    let has_more = has_input(node, 8) || has_input(node, 9) || has_output(node, 3);
    let has_half = has_input(node, PAST[0]) != has_input(node, PAST[1]);
    (has_more || has_half).then_some("it knows no shared caches and no scores as an output")
}

pub(super) fn write(b: &mut Builder<'_>, node: &NodeProto) {
    let heads = int(node, "num_heads").unwrap_or(1);
    let unseen = number(node, "mask_filter_value").unwrap_or(HIDDEN);
    let [q, k, v] = with_bias(b, node);
    let q = by_heads(b, &q, heads);
    let [mut k, mut v] = [k, v].map(|value| if b.rank(&value) == Some(4) { value } else { by_heads(b, &value, heads) });
    for (value, place) in [(&mut k, PAST[0]), (&mut v, PAST[1])] {
        if let Some(cache) = input(node, place) {
            *value = b.concat(&[cache, value], 2);
        }
    }
    let of = Heads { q, k, v, heads, kv_heads: heads };
    let mut scores = Scores::of(node);
    scores.masks.extend(input(node, ADDED).map(str::to_owned));
    if let Some(keys) = input(node, KEYS) {
        scores.masks.push(mask_of_keys(b, keys, &of.k, unseen));
    }
    if int(node, "unidirectional") == Some(1) {
        scores.masks.push(causal_mask(b, &of, UNSEEN));
    }
    let found = attend(b, &of, scores);
    for (place, value) in [(0, &found), (1, &of.k), (2, &of.v)] {
        b.output(node, place, value);
    }
}

/// Queries, keys and values with their parts of the bias.
fn with_bias(b: &mut Builder<'_>, node: &NodeProto) -> [String; 3] {
    let values = [0, 1, 2].map(|place| node.input[place].clone());
    let Some(bias) = input(node, BIAS) else { return values };
    let width = b.length(&values[0], 2);
    let width = b.reshape(&width, &[1]);
    let (zero, two, end) = (b.ints(&[0]), b.ints(&[2]), b.ints(&[i64::MAX]));
    let both = b.op("Mul", &[&width, &two]);
    let bounds = [(&zero, &width), (&width, &both), (&both, &end)];
    let mut parts = values.iter().zip(bounds).map(|(value, (from, to))| {
        let part = b.slice_between(bias, 0, from, to);
        b.op("Add", &[value, &part])
    });
    [0, 1, 2].map(|_| parts.next().unwrap_or_default())
}

/// What is added where a mask hides keys: of lengths `[batch]`, ones and zeros `[batch, keys]` or `[batch, queries, keys]`.
pub(super) fn mask_of_keys(b: &mut Builder<'_>, mask: &str, keys: &str, unseen: f32) -> String {
    match b.rank(mask) {
        Some(1) => hidden_beyond(b, mask, keys, unseen),
        Some(3) => {
            let mask = b.unsqueeze(mask, 1);
            hidden_by(b, &mask, unseen)
        }
        _ => {
            let mask = b.unsqueeze(mask, 1);
            let mask = b.unsqueeze(&mask, 1);
            hidden_by(b, &mask, unseen)
        }
    }
}
