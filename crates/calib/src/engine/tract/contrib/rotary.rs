//! Rotary embeddings: pairs of numbers are turned by angles that grow with the position.
//!
//! The operator of this domain takes positions second; that of the standard takes them last.

use onnxquant_proto::onnx::NodeProto;

use super::builder::Builder;
use super::{has_input, int};

const INPUTS: usize = 4;

/// Tables of cosines and sines by position, `[positions, width / 2]`; what is wider stays as it is.
pub(super) struct Angles {
    pub(super) cos: String,
    pub(super) sin: String,
    /// Neighbours are a pair; else the halves hold one each.
    pub(super) in_pairs: bool,
}

/// Cosines and sines for every token, `[batch, length, 1, width / 2]`.
pub(super) struct Turns {
    cos: String,
    sin: String,
    /// `width / 2`, along an axis.
    half: String,
    in_pairs: bool,
}

impl Angles {
    /// At these positions, `[batch, length]`.
    pub(super) fn at(&self, b: &mut Builder<'_>, positions: &str) -> Turns {
        let half = b.length(&self.cos, 1);
        let half = b.reshape(&half, &[1]);
        let [cos, sin] = [&self.cos, &self.sin].map(|table| {
            let rows = b.rows(table, positions);
            b.unsqueeze(&rows, 2)
        });
        Turns { cos, sin, half, in_pairs: self.in_pairs }
    }
}

/// Turns `value`, `[batch, length, heads, width]`.
pub(super) fn rotate(b: &mut Builder<'_>, value: &str, turns: &Turns) -> String {
    let (zero, two, end) = (b.ints(&[0]), b.ints(&[2]), b.ints(&[i64::MAX]));
    let width = b.op("Mul", &[&turns.half, &two]);
    let turned = b.slice_between(value, 3, &zero, &width);
    let [first, second] = match turns.in_pairs {
        true => {
            let pairs = b.reshape(&turned, &[0, 0, 0, -1, 2]);
            [0, 1].map(|place| {
                let part = b.slice(&pairs, 4, place, place + 1);
                b.reshape(&part, &[0, 0, 0, -1])
            })
        }
        false => [b.slice_between(&turned, 3, &zero, &turns.half), b.slice_between(&turned, 3, &turns.half, &width)],
    };
    let [first_cos, second_cos] = [&first, &second].map(|part| b.op("Mul", &[part, &turns.cos]));
    let [first_sin, second_sin] = [&first, &second].map(|part| b.op("Mul", &[part, &turns.sin]));
    let first = b.op("Sub", &[&first_cos, &second_sin]);
    let second = b.op("Add", &[&second_cos, &first_sin]);
    let together = match turns.in_pairs {
        true => {
            let parts = [&first, &second].map(|part| b.unsqueeze(part, 4));
            let pairs = b.concat(&[&parts[0], &parts[1]], 4);
            b.reshape(&pairs, &[0, 0, 0, -1])
        }
        false => b.concat(&[&first, &second], 3),
    };
    let rest = b.slice_between(value, 3, &width, &end);
    b.concat(&[&together, &rest], 3)
}

pub(super) fn refused(node: &NodeProto) -> Option<&'static str> {
    let is_set = |name: &str| int(node, name).is_some_and(|number| number != 0);
    if !(0..INPUTS).all(|place| has_input(node, place)) {
        return Some("it lacks positions or angles");
    }
    let is_known = !is_set("is_packed_batching") && (!is_set("rotary_embedding_dim") || is_set("num_heads"));
    (!is_known).then_some("it knows no packed batches")
}

pub(super) fn write(b: &mut Builder<'_>, node: &NodeProto) {
    let value = node.input[0].as_str();
    let is_by_heads = b.rank(value) == Some(4);
    let heads = int(node, "num_heads").filter(|&heads| heads > 0);
    let angles = Angles {
        cos: node.input[2].clone(),
        sin: node.input[3].clone(),
        in_pairs: int(node, "interleaved").unwrap_or(0) != 0,
    };
    let split = match (is_by_heads, heads) {
        (true, _) => b.transpose(value, &[0, 2, 1, 3]),
        (false, Some(heads)) => b.reshape(value, &[0, 0, heads, -1]),
        // Heads are as wide as what is turned.
        (false, None) => by_width(b, value, &angles.cos),
    };
    let at = positions(b, &node.input[1], &split);
    let turns = angles.at(b, &at);
    let turned = rotate(b, &split, &turns);
    let turned = if is_by_heads { b.transpose(&turned, &[0, 2, 1, 3]) } else { b.reshape(&turned, &[0, 0, -1]) };
    b.output(node, 0, &turned);
}

/// `[batch, length, heads, width]` of a value whose heads are twice as wide as a row of `cos`.
fn by_width(b: &mut Builder<'_>, value: &str, cos: &str) -> String {
    let (half, two) = (b.length(cos, 1), b.ints(&[2]));
    let width = b.op("Mul", &[&half, &two]);
    let rest = b.ints(&[0, 0, -1]);
    let shape = b.concat(&[&rest, &width], 0);
    b.op("Reshape", &[value, &shape])
}

/// `[batch, length]` positions: those that are given, or all from the one that is given on.
fn positions(b: &mut Builder<'_>, given: &str, value: &str) -> String {
    let given_64 = b.as_int64(given);
    if b.rank(given) != Some(1) {
        return given_64;
    }
    let length = b.length(value, 1);
    let new = b.count_to(&length);
    let first = b.reshape(&given_64, &[1, 1]);
    b.op("Add", &[&first, &new])
}
