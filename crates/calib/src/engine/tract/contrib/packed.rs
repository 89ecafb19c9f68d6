//! `Attention` of ONNX Runtime's domain: one weight makes queries, keys and values. That of the standard is another operator.

use onnxquant_proto::onnx::NodeProto;

use super::attention::{Heads, Scores, UNSEEN, attend, by_heads, causal_mask};
use super::builder::{Builder, int as int_attribute};
use super::multi_head::{HIDDEN, mask_of_keys};
use super::{has_input, has_output, input, int, number};

const BIAS: usize = 2;
const MASK: usize = 3;
const PAST: usize = 4;
const ADDED: usize = 5;

pub(super) fn refused(node: &NodeProto) -> Option<&'static str> {
    let is_set = |name: &str| int(node, name).is_some_and(|number| number != 0);
    if !has_input(node, 0) || !has_input(node, 1) || int(node, "num_heads").is_none() {
        return Some("its input, its weight or its number of heads is missing");
    }
    let has_more = has_input(node, 6) || is_set("past_present_share_buffer") || is_set("do_rotary");
    has_more.then_some("it knows no shared caches and no rotation inside this operator")
}

pub(super) fn write(b: &mut Builder<'_>, node: &NodeProto) {
    let heads = int(node, "num_heads").unwrap_or(1);
    let unseen = number(node, "mask_filter_value").unwrap_or(HIDDEN);
    let mut all = b.op("MatMul", &[&node.input[0], &node.input[1]]);
    if let Some(bias) = input(node, BIAS) {
        all = b.op("Add", &[&all, bias]);
    }
    let [q, mut k, mut v] = parts(b, node, &all, heads);
    if let Some(past) = input(node, PAST) {
        for (value, place) in [(&mut k, 0), (&mut v, 1)] {
            let place = b.int(place);
            let cache = b.op_with("Gather", &[past, &place], vec![int_attribute("axis", 0)]);
            *value = b.concat(&[&cache, value], 2);
        }
    }
    let of = Heads { q, k, v, heads, kv_heads: heads };
    let mut scores = Scores::of(node);
    scores.masks.extend(input(node, ADDED).map(str::to_owned));
    if let Some(mask) = input(node, MASK) {
        scores.masks.push(mask_of_keys(b, mask, &of.k, unseen));
    }
    if int(node, "unidirectional") == Some(1) {
        scores.masks.push(causal_mask(b, &of, UNSEEN));
    }
    let found = attend(b, &of, scores);
    b.output(node, 0, &found);
    if has_output(node, 1) {
        let [k, v] = [&of.k, &of.v].map(|value| b.unsqueeze(value, 0));
        let present = b.concat(&[&k, &v], 0);
        b.output(node, 1, &present);
    }
}

/// Queries, keys and values by heads.
fn parts(b: &mut Builder<'_>, node: &NodeProto, all: &str, heads: i64) -> [String; 3] {
    let sizes = node.attribute.iter().find(|attribute| attribute.name() == "qkv_hidden_sizes");
    match sizes.map(|sizes| sizes.ints.as_slice()) {
        Some(&[q, k, v]) => [(0, q), (q, q + k), (q + k, q + k + v)].map(|(from, to)| {
            let part = b.slice(all, 2, from, to);
            by_heads(b, &part, heads)
        }),
        _ => {
            let all = by_heads(b, all, 3 * heads);
            [0, 1, 2].map(|part| b.slice(&all, 1, part * heads, (part + 1) * heads))
        }
    }
}
