//! Keeps the caches of attention as codes of 8 bits.
//!
//! # Shapes and units
//!
//! | | in the file | |
//! |---|---|---|
//! | `past`, `present` | int8 `[batch, heads, tokens, head size]` | inputs and outputs of the graph |
//! | scales, inputs 12 and 13 | f32 `[heads, 1, head size]` | real numbers per code step, one a head and channel |
//!
//! # Method
//!
//! [`write_caches`] gives the operator the scales and changes the types of inputs and outputs. The kernel of ONNX Runtime, from
//! 1.27 on, then computes
//!
//! ```text
//! code = clamp(round(x / scale), -128, 127)
//! ```
//!
//! of each new key, after it was rotated, and of each value, and attends to codes, those of the new tokens included.
//!
//! [`open_caches`] lets callers that have floats run such a model: their past becomes codes before the operator, and its codes
//! become floats behind it. What lies between is the same operator.
//!
//! # Guarantee
//!
//! The codes of an opened model's past are those that the operator would have made of the same floats.
//!
//! # References
//!
//! `GroupQueryAttention` in ONNX Runtime's ContribOperators.md; tried in the versions 1.26 (which fails when it runs) to 1.32.

use std::collections::HashMap;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, GraphError, NodeId, Origin, ValueId, int_attribute, tensor, text_attribute};

use crate::find::caches::{Caches, PAST, PRESENT, code_type, is_attention};
use crate::graph::declared::declared_tensor;
use crate::graph::insert::{append, append_to, insert};

/// Where the operator reads scales of keys and of values.
const SCALES: [usize; 2] = [12, 13];
/// Attributes that say which codes share a scale.
const KINDS: [&str; 2] = ["k_quant_type", "v_quant_type"];
/// What the tensors are called.
const NAMES: [&str; 2] = ["key", "value"];
/// The codes.
const STEPS: [f32; 2] = [-128.0, 127.0];

/// Caches with the scales of their codes.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaledCaches {
    /// What they are.
    pub caches: Caches,
    /// Channels of a head.
    pub head_size: usize,
    /// Of keys and of values: by head and channel, all finite and above 0.
    pub scales: [Vec<f32>; 2],
}

impl ScaledCaches {
    /// Keys and values of one token, in numbers.
    pub fn numbers_per_token(&self) -> usize {
        2 * self.caches.heads * self.head_size
    }
}

/// Types of inputs of a graph, by name.
#[derive(Clone, Debug, Default)]
pub struct InputTypes(HashMap<String, DataType>);

impl InputTypes {
    /// As `graph` declares them.
    pub fn of(graph: &Graph) -> Self {
        let declared = |value: ValueId| DataType::try_from(declared_tensor(graph, value)?.elem_type()).ok();
        let named = |value: ValueId| Some((graph.value(value).name().to_owned(), declared(value)?));
        Self(graph.inputs().iter().filter_map(|port| named(port.value)).collect())
    }

    /// Bytes of a number of the input `name`.
    pub fn bytes(&self, name: &str) -> usize {
        match self.0.get(name) {
            Some(DataType::Float16 | DataType::Bfloat16) => 2,
            Some(DataType::Int8 | DataType::Uint8) => 1,
            _ => 4,
        }
    }

    /// Codes are opened to floats where the other graph has codes, too: scales differ.
    fn get(&self, name: &str) -> DataType {
        self.0.get(name).copied().filter(|dtype| *dtype != DataType::Int8).unwrap_or(DataType::Float)
    }
}

/// Makes the caches codes.
///
/// # Errors
/// A defect of this pass: the graph is not what the caches were found in.
pub fn write_caches(graph: &mut Graph, found: &[ScaledCaches]) -> Result<(), GraphError> {
    for scaled in found {
        let Caches { node, heads, past, present, .. } = scaled.caches;
        for at in 0..2 {
            own_past(graph, node, PAST[at], past[at]);
            own_present(graph, node, PRESENT[at], present[at])?;
            graph.set_element_type(past[at], DataType::Int8);
            graph.set_element_type(present[at], DataType::Int8);
            let scales = tensor::from_f32(&[heads, 1, scaled.head_size], &scaled.scales[at]);
            let name = format!("{}_{}_scale", graph.value(present[at]).name(), NAMES[at]);
            let scales = graph.add_constant(&name, scales);
            graph.set_input(node, SCALES[at], Some(scales));
            graph.set_attribute(node, text_attribute(KINDS[at], "PER_CHANNEL"));
        }
        graph.set_attribute(node, int_attribute("kv_cache_bit_width", 8));
    }
    Ok(())
}

/// Lets the operator read its past without a `Cast`.
fn own_past(graph: &mut Graph, node: NodeId, slot: usize, past: ValueId) {
    let read = graph.node(node).input(slot);
    graph.set_input(node, slot, Some(past));
    read.into_iter().for_each(|read| graph.remove_if_unused(read));
}

/// Lets the operator return its cache without one.
fn own_present(graph: &mut Graph, node: NodeId, slot: usize, present: ValueId) -> Result<(), GraphError> {
    match graph.value(present).origin() {
        Origin::Output(cast, _) if cast != node => {
            graph.set_input(cast, 0, None);
            graph.take_over_output(node, slot, present)?;
            graph.remove_node(cast)
        }
        _ => Ok(()),
    }
}

/// Lets floats be the inputs and outputs of caches that are codes of 8 bits with constant scales, inputs in the types that
/// `types` has for them. Tells how many there were.
pub fn open_caches(graph: &mut Graph, types: &InputTypes) -> usize {
    let attention: Vec<NodeId> = graph.nodes().filter(|(_, node)| is_attention(node)).map(|(id, _)| id).collect();
    let mut opened = 0;
    for node in attention {
        for at in 0..2 {
            let Some(scales) = scales(graph, node, at) else { continue };
            open_past(graph, node, PAST[at], &scales, types);
            open_present(graph, node, PRESENT[at], &scales);
            opened += 1;
        }
    }
    opened
}

/// Whether any cache of the graph is codes that [`open_caches`] opens.
pub fn has_codes(graph: &Graph) -> bool {
    graph.nodes().any(|(id, node)| is_attention(node) && (0..2).any(|at| scales(graph, id, at).is_some()))
}

/// Scales of keys or of values for `[1, heads, 1, channels]`, where these are codes of 8 bits.
fn scales(graph: &Graph, node: NodeId, at: usize) -> Option<(Vec<usize>, Vec<f32>)> {
    let found = graph.node(node);
    let kind = code_type(found, KINDS[at])?;
    let past = found.input(PAST[at])?;
    let is_codes = declared_tensor(graph, past)?.elem_type() == DataType::Int8 as i32;
    if !is_codes || found.int("kv_cache_bit_width", 0) != 8 || graph.value(past).origin() != Origin::Input {
        return None;
    }
    let scales = tensor::to_f32(graph.value(found.input(SCALES[at])?).constant()?).ok()?.into_owned();
    let heads = usize::try_from(found.int("kv_num_heads", 0)).ok().filter(|heads| *heads > 0)?;
    let is_whole = !scales.is_empty() && scales.len() % heads == 0;
    let shape = match kind {
        "PER_TENSOR" => vec![1; 4],
        _ if is_whole => vec![1, heads, 1, scales.len() / heads],
        _ => return None,
    };
    (shape.iter().product::<usize>() == scales.len()).then_some((shape, scales))
}

/// Makes codes of a past of floats.
fn open_past(
    graph: &mut Graph,
    node: NodeId,
    slot: usize,
    (shape, scales): &(Vec<usize>, Vec<f32>),
    types: &InputTypes,
) {
    let Some(past) = graph.node(node).input(slot) else { return };
    let name = graph.value(past).name().to_owned();
    let dtype = types.get(&name);
    graph.set_element_type(past, dtype);
    let [low, high] = STEPS.map(|step| tensor::from_f32(&[], &[step]));
    let constants = [("scale", tensor::from_f32(shape, scales)), ("lowest", low), ("highest", high)];
    let [scale, low, high] = constants.map(|(what, constant)| graph.add_constant(&format!("{name}_{what}"), constant));
    let to = |dtype: DataType| vec![int_attribute("to", dtype as i64)];
    let mut write = |op_type, inputs: &[ValueId], what: &str, attributes| {
        insert(graph, node, op_type, inputs, format!("{name}_{what}"), attributes)
    };
    let real = match dtype {
        DataType::Float => past,
        _ => write("Cast", &[past], "real", to(DataType::Float)),
    };
    let steps = write("Div", &[real, scale], "steps", vec![]);
    let rounded = write("Round", &[steps], "rounded", vec![]);
    let above = write("Max", &[rounded, low], "above", vec![]);
    let within = write("Min", &[above, high], "within", vec![]);
    let codes = write("Cast", &[within], "codes", to(DataType::Int8));
    graph.set_input(node, slot, Some(codes));
}

/// Makes floats of the codes that are returned.
fn open_present(graph: &mut Graph, node: NodeId, slot: usize, (shape, scales): &(Vec<usize>, Vec<f32>)) {
    let Some(present) = graph.node(node).output(slot) else { return };
    let name = graph.value(present).name().to_owned();
    graph.set_element_type(present, DataType::Float);
    let scale = graph.add_constant(&format!("{name}_scale"), tensor::from_f32(shape, scales));
    let cast = append_to(graph, (node, slot), "Cast", format!("{name}_codes"));
    graph.set_attribute(cast, int_attribute("to", DataType::Float as i64));
    let product = append(graph, cast, "Mul", format!("{name}_steps"));
    graph.set_input(product, 1, Some(scale));
}

#[cfg(test)]
#[path = "write_caches_tests.rs"]
mod tests;
