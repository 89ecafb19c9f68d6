//! What all kinds of attention share: `softmax(scale q k^T + mask) v` by heads.

use onnxquant_proto::onnx::NodeProto;

use super::builder::{Builder, int};
use super::number;

/// What a key that must not be seen gets, where nothing else is said.
pub(super) const UNSEEN: f32 = f32::NEG_INFINITY;

/// Queries, keys and values by heads, `[batch, heads, length, width]`.
pub(super) struct Heads {
    pub(super) q: String,
    pub(super) k: String,
    pub(super) v: String,
    /// How many heads the queries have.
    pub(super) heads: i64,
    /// How many the keys and values have, a divisor of that.
    pub(super) kv_heads: i64,
}

/// What changes the scores, `[batch, heads, queries, keys]`.
pub(super) struct Scores {
    /// `1 / sqrt(width)` by default.
    pub(super) scale: Option<f32>,
    /// Scores are bounded by this, through a tanh.
    pub(super) softcap: Option<f32>,
    /// Are added to them; what can be broadcast.
    pub(super) masks: Vec<String>,
    /// `[1, heads, 1, 1]`: the score of a key without a value.
    pub(super) sink: Option<String>,
}

impl Scores {
    /// With the scale of the node.
    pub(super) fn of(node: &NodeProto) -> Self {
        let scale = number(node, "scale").filter(|&scale| scale != 0.0);
        Self { scale, softcap: None, masks: Vec::new(), sink: None }
    }
}

/// `[batch, length, heads * width]` by heads.
pub(super) fn by_heads(b: &mut Builder<'_>, value: &str, heads: i64) -> String {
    let value = b.reshape(value, &[0, 0, heads, -1]);
    heads_first(b, &value)
}

/// `[batch, length, heads, width]` as `[batch, heads, length, width]`.
pub(super) fn heads_first(b: &mut Builder<'_>, value: &str) -> String {
    b.transpose(value, &[0, 2, 1, 3])
}

/// The result, `[batch, queries, heads * width]`.
pub(super) fn attend(b: &mut Builder<'_>, of: &Heads, scores: Scores) -> String {
    let Heads { q, k, v, heads, kv_heads } = of;
    let grouped = heads != kv_heads;
    let queries = if grouped { b.reshape(q, &[0, *kv_heads, -1, 0]) } else { q.clone() };
    let keys = b.transpose(k, &[0, 1, 3, 2]);
    let mut found = b.op("MatMul", &[&queries, &keys]);
    found = scaled(b, &found, q, scores.scale);
    if grouped {
        found = b.reshape(&found, &[0, *heads, -1, 0]);
    }
    if let Some(most) = scores.softcap {
        let most = b.number(most);
        let part = b.op("Div", &[&found, &most]);
        let bounded = b.op("Tanh", &[&part]);
        found = b.op("Mul", &[&bounded, &most]);
    }
    for mask in &scores.masks {
        found = b.op("Add", &[&found, mask]);
    }
    let mut weights = match scores.sink {
        None => softmax(b, &found),
        Some(sink) => softmax_with(b, &found, q, &sink),
    };
    if grouped {
        weights = b.reshape(&weights, &[0, *kv_heads, -1, 0]);
    }
    let mut mixed = b.op("MatMul", &[&weights, v]);
    if grouped {
        mixed = b.reshape(&mixed, &[0, *heads, -1, 0]);
    }
    let mixed = b.transpose(&mixed, &[0, 2, 1, 3]);
    b.reshape(&mixed, &[0, 0, -1])
}

fn scaled(b: &mut Builder<'_>, scores: &str, q: &str, scale: Option<f32>) -> String {
    if let Some(scale) = scale {
        let scale = b.number(scale);
        return b.op("Mul", &[scores, &scale]);
    }
    let width = b.length(q, 3);
    let width = b.as_float(&width);
    let root = b.op("Sqrt", &[&width]);
    b.op("Div", &[scores, &root])
}

fn softmax(b: &mut Builder<'_>, scores: &str) -> String {
    b.op_with("Softmax", &[scores], vec![int("axis", -1)])
}

/// With one more key, of the score `sink`, whose weight is left out.
fn softmax_with(b: &mut Builder<'_>, scores: &str, q: &str, sink: &str) -> String {
    let (zero, column) = (b.number(0.0), b.slice(q, 3, 0, 1));
    let column = b.op("Mul", &[&column, &zero]);
    let column = b.op("Add", &[&column, sink]);
    let all = b.concat(&[scores, &column], 3);
    let weights = softmax(b, &all);
    b.slice(&weights, 3, 0, -1)
}

/// `[length]` positions of keys or queries that stand behind `past`, an integer without axes.
pub(super) fn positions(b: &mut Builder<'_>, value: &str, axis: i64, past: Option<&str>) -> String {
    let length = b.length(value, axis);
    let positions = b.count_to(&length);
    past.map_or(positions.clone(), |past| b.op("Add", &[&positions, past]))
}

/// What is added so that queries see keys up to their own position: 0 or `unseen`, `[queries, keys]`; the queries are the last
/// of the keys.
pub(super) fn causal_mask(b: &mut Builder<'_>, heads: &Heads, unseen: f32) -> String {
    let (n_queries, n_keys) = (b.length(&heads.q, 2), b.length(&heads.k, 2));
    let past = b.op("Sub", &[&n_keys, &n_queries]);
    let queries = positions(b, &heads.q, 2, Some(&past));
    let queries = b.reshape(&queries, &[-1, 1]);
    let keys = positions(b, &heads.k, 2, None);
    let seen = not_behind(b, &keys, &queries);
    seen_or(b, &seen, unseen)
}

/// Where keys stand at the place of a query or before it.
pub(super) fn not_behind(b: &mut Builder<'_>, keys: &str, queries: &str) -> String {
    let is_behind = b.op("Greater", &[keys, queries]);
    b.op("Not", &[&is_behind])
}

/// 0 where a key is seen, elsewhere `unseen`.
pub(super) fn seen_or(b: &mut Builder<'_>, seen: &str, unseen: f32) -> String {
    let (zero, unseen) = (b.number(0.0), b.number(unseen));
    b.op("Where", &[seen, &zero, &unseen])
}

/// What is added where a mask of ones and zeros hides keys.
pub(super) fn hidden_by(b: &mut Builder<'_>, mask: &str, unseen: f32) -> String {
    let (mask, one, unseen) = (b.as_float(mask), b.number(1.0), b.number(unseen));
    let hidden = b.op("Sub", &[&one, &mask]);
    b.op("Mul", &[&hidden, &unseen])
}

/// What is added where keys beyond the `lengths` of the samples, `[batch]`, are hidden: `[batch, 1, 1, keys]`.
pub(super) fn hidden_beyond(b: &mut Builder<'_>, lengths: &str, keys: &str, unseen: f32) -> String {
    let lengths = b.as_int64(lengths);
    let lengths = b.reshape(&lengths, &[-1, 1, 1, 1]);
    let positions = positions(b, keys, 2, None);
    let seen = b.op("Less", &[&positions, &lengths]);
    seen_or(b, &seen, unseen)
}
