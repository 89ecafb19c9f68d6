//! Finds the caches of keys and values that a decoder takes as inputs and returns as outputs.
//!
//! `GroupQueryAttention` of ONNX Runtime adds the keys and values of new tokens to those of earlier ones, and can keep them as
//! codes:
//!
//! | input or output | holds | shape |
//! |---|---|---|
//! | `past_key`, `past_value` | those of earlier tokens | `[batch, kv heads, past, head size]` |
//! | `present_key`, `present_value` | those of all tokens | `[batch, kv heads, past + new, head size]` |
//!
//! Codes must not be read by anything else: a cache is found where its past is an input of the graph that nothing else reads
//! and its present an output that nothing else reads; others may ask for the shape. A `Cast` between, as models of f16 have, is
//! passed over.
//!
//! Keys are kept after they were rotated, if the operator rotates them, by an angle that grows with the place of the token:
//! see [`Rotation`].

use onnxquant_ir::onnx::tensor_shape_proto::dimension::Value as Dim;
use onnxquant_ir::{Graph, Node, NodeId, Origin, Use, ValueId, tensor};

use crate::graph::declared::declared_tensor;
use crate::runtime::nbits::MICROSOFT;

/// The operator that can keep codes.
pub const ATTENTION: &str = "GroupQueryAttention";
/// Where it reads keys and values of earlier tokens.
pub(crate) const PAST: [usize; 2] = [3, 4];
/// Where it gives those of all.
pub(crate) const PRESENT: [usize; 2] = [1, 2];
/// Where it reads the cosines.
const COSINES: usize = 7;

/// The caches of one operator, those of keys and of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caches {
    /// The operator.
    pub node: NodeId,
    /// Heads of keys and values.
    pub heads: usize,
    /// How keys are rotated before they are kept; nothing where they are not, or elsewhere.
    pub rotation: Option<Rotation>,
    /// Inputs of the graph.
    pub past: [ValueId; 2],
    /// Outputs of the graph.
    pub present: [ValueId; 2],
}

/// Which channels of a key are rotated, two and two.
///
/// What a pair measures together is the same at every place, so that it bounds both channels at places that no sample reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The first so many channels; all where this is not known.
    pub channels: Option<usize>,
    /// Neighbours are rotated; else a channel of the first half with one of the second.
    pub interleaved: bool,
}

impl Rotation {
    /// The channel with which `channel` is rotated, in a head of `size` channels.
    pub fn partner(&self, channel: usize, size: usize) -> Option<usize> {
        let rotated = self.channels.unwrap_or(size).min(size);
        let half = rotated / 2;
        if channel >= 2 * half {
            return None;
        }
        Some(match self.interleaved {
            true => channel ^ 1,
            false => (channel + half) % (2 * half),
        })
    }
}

/// Why caches cannot be codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCaches {
    /// Nothing keeps any.
    #[error(
        "the model has no GroupQueryAttention, the operator of ONNX Runtime that keeps caches as codes: export it with \
             onnxruntime-genai's model builder, or optimize it with ONNX Runtime's tools first"
    )]
    NoAttention,
    /// They are kept by others as well.
    #[error("{node}: {reason}")]
    NotOwn {
        /// The operator.
        node: String,
        /// What is in the way.
        reason: String,
    },
}

/// The caches of all attention, in the order in which it runs. All or none can be codes: callers take the type of all from one.
pub fn find_caches(graph: &Graph) -> Result<Vec<Caches>, NoCaches> {
    let attention = graph.nodes().filter(|(_, node)| is_attention(node));
    let found = attention.map(|(id, node)| {
        caches(graph, id, node).map_err(|reason| NoCaches::NotOwn { node: graph.describe(id), reason })
    });
    match found.collect::<Result<Vec<_>, _>>()? {
        found if found.is_empty() => Err(NoCaches::NoAttention),
        found => Ok(found),
    }
}

/// Whether a node is the operator that can keep codes.
pub(crate) fn is_attention(node: &Node) -> bool {
    node.op_type() == ATTENTION && node.domain() == MICROSOFT
}

/// The type of codes that the attribute names, for keys or for values; nothing where they are floats.
pub(crate) fn code_type<'a>(node: &'a Node, of: &str) -> Option<&'a str> {
    Some(node.text(of, "NONE")).filter(|kind| *kind != "NONE")
}

fn caches(graph: &Graph, id: NodeId, node: &Node) -> Result<Caches, String> {
    if code_type(node, "k_quant_type").or(code_type(node, "v_quant_type")).is_some() {
        return Err("its caches are codes already".to_owned());
    }
    if node.input(12).or(node.input(13)).is_some() {
        return Err("it has scales of caches already".to_owned());
    }
    let heads = usize::try_from(node.int("kv_num_heads", 0)).ok().filter(|heads| *heads > 0);
    let [past_key, past_value] = PAST.map(|slot| past(graph, id, slot));
    let [present_key, present_value] = PRESENT.map(|slot| present(graph, node, slot));
    Ok(Caches {
        node: id,
        heads: heads.ok_or("it does not say how many heads keys have (`kv_num_heads`)")?,
        rotation: (node.int("do_rotary", 0) == 1).then(|| rotation(graph, node)),
        past: [past_key?, past_value?],
        present: [present_key?, present_value?],
    })
}

/// The input of the graph in which the operator gets a past.
fn past(graph: &Graph, node: NodeId, slot: usize) -> Result<ValueId, String> {
    let Some(read) = graph.node(node).input(slot) else {
        return Err("it has no past: caches are kept by the caller where they are inputs and outputs".to_owned());
    };
    let own = Use::Input(node, slot);
    let behind_cast = graph.producer(read).filter(|(_, producer)| producer.is("Cast"));
    let (value, user) = match behind_cast.and_then(|(cast, producer)| Some((cast, producer.input(0)?))) {
        Some((cast, value)) if is_read_by(graph, read, own) => (value, Use::Input(cast, 0)),
        _ => (read, own),
    };
    let found = graph.value(value);
    match found.origin() {
        Origin::Input if is_read_by(graph, value, user) => Ok(value),
        Origin::Input => Err(format!("its past `{}` is also read by others", found.name())),
        _ => Err(format!("its past `{}` is no input of the model", found.name())),
    }
}

/// Whether nobody but `own` reads the numbers of a value; others may ask for its shape.
fn is_read_by(graph: &Graph, value: ValueId, own: Use) -> bool {
    numbers_readers(graph, value).eq([own])
}

/// Who reads numbers of a value, and not its shape alone.
fn numbers_readers(graph: &Graph, value: ValueId) -> impl Iterator<Item = Use> {
    let reads_numbers = |user: &Use| !matches!(user, Use::Input(node, _) if graph.node(*node).is("Shape"));
    graph.value(value).uses().iter().copied().filter(reads_numbers)
}

/// The output of the graph that continues a past.
fn present(graph: &Graph, node: &Node, slot: usize) -> Result<ValueId, String> {
    let Some(made) = node.output(slot) else { return Err("it returns no cache".to_owned()) };
    let cast = match graph.value(made).uses() {
        &[Use::Input(cast, 0)] => graph.node(cast).output(0).filter(|_| graph.node(cast).is("Cast")),
        _ => None,
    };
    let value = cast.unwrap_or(made);
    match numbers_readers(graph, value).collect::<Vec<_>>()[..] {
        [Use::GraphOutput(_)] => Ok(value),
        [] => Err(format!("its cache `{}` is no output of the model", graph.value(value).name())),
        _ => Err(format!("its cache `{}` is also read by others", graph.value(value).name())),
    }
}

fn rotation(graph: &Graph, node: &Node) -> Rotation {
    let columns = node.input(COSINES).and_then(|cosines| {
        let constant = graph.value(cosines).constant().and_then(|constant| tensor::shape(constant).ok());
        let declared = || {
            let last = declared_tensor(graph, cosines)?.shape.as_ref()?.dim.last()?;
            match last.value.as_ref()? {
                Dim::DimValue(columns) => usize::try_from(*columns).ok(),
                Dim::DimParam(_) => None,
            }
        };
        constant.map_or_else(declared, |shape| shape.last().copied()).filter(|columns| *columns > 0)
    });
    Rotation { channels: columns.map(|columns| 2 * columns), interleaved: node.int("rotary_interleaved", 0) == 1 }
}

#[cfg(test)]
#[path = "caches_tests.rs"]
pub(crate) mod tests;
