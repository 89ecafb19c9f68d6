//! Writes hard sigmoids as the runtime computes them fastest: as one operator in float, spelled out on codes.
//!
//! # Problem
//!
//! Exporters spell HardSwish, `x * clip(x + 3, 0, 6) / 6`, with four operators, each a pass over the tensor. ONNX Runtime
//! computes `HardSigmoid` in one, and fuses `Conv -> HardSigmoid -> Mul` into the Conv. On 8-bit codes there is no
//! `HardSigmoid`, but an addition, with the Clip in the range of its codes and the factor in their scale.
//!
//! # Method
//!
//! | [`fuse_hard_sigmoids`] finds | and writes |
//! |---|---|
//! | `Add(x, c) -> Clip(0, h) -> Div(h)` | `HardSigmoid(x)` with alpha = 1 / h, beta = c / h |
//! | `Add(x, c) -> Clip(0, h) -> Mul(y) -> Div(h)` | `HardSigmoid(x) -> Mul(y)` |
//!
//! | [`expand_hard_sigmoids`] finds | and writes |
//! |---|---|
//! | `HardSigmoid(x)` | `Add(x, beta / alpha) -> Clip(0, 1 / alpha) -> Mul(alpha)` |
//! | `HardSwish(x)` | the same with alpha = 1/6, beta = 1/2, then `Mul(x)` |
//!
//! # Guarantee
//!
//! Exact in real arithmetic; results change by rounding only. The second undoes what the first writes, and the other
//! way round.
//!
//! # Failure
//!
//! Left alone: values between that anything else reads, constants that are computed, overridable, no single number or
//! not f32, a Clip that does not begin at 0, a factor other than `1 / h`, alpha that is not positive, and in expanding
//! models with floats of other types. Subgraphs are not entered.

use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, GraphError, Model, Node, NodeId, Use, ValueId, float_attribute, tensor};

use crate::graph::insert::insert;
use crate::graph::readers::only_reader;

/// How far `h` times the factor may be from 1, which is not exact in f32 for 1/6.
const TOLERANCE: f64 = 1e-6;

/// Fuses wherever it is exact; returns the number of hard sigmoids.
pub fn fuse_hard_sigmoids(model: &mut Model) -> Result<usize, GraphError> {
    let graph = model.graph_mut();
    let clips = graph.nodes().filter(|(_, node)| node.is("Clip")).map(|(id, _)| id).collect::<Vec<_>>();
    let mut fused = 0;
    for clip in clips {
        if let Some(found) = Spelled::find(graph, clip) {
            found.fuse(graph)?;
            fused += 1;
        }
    }
    Ok(fused)
}

/// Spells out every hard sigmoid; returns their number.
pub fn expand_hard_sigmoids(model: &mut Model) -> Result<usize, GraphError> {
    let graph = model.graph_mut();
    let other = |&id: &ValueId| {
        let dtype = graph.value(id).tensor().map(|tensor| tensor.data_type());
        [DataType::Float16, DataType::Bfloat16, DataType::Double].iter().any(|&other| dtype == Some(other as i32))
    };
    if graph.initializers().iter().any(other) {
        return Ok(0);
    }
    let wanted = |node: &Node| node.is("HardSigmoid") && node.float("alpha", 0.2) > 0.0 || node.is("HardSwish");
    let found = graph.nodes().filter(|(_, node)| wanted(node)).map(|(id, _)| id).collect::<Vec<_>>();
    for &node in &found {
        expand(graph, node);
    }
    Ok(found.len())
}

/// What a value may be raised to without any effect: its only readers are a hard sigmoid, which is 0 there, and the
/// product with that.
pub fn floor(graph: &Graph, value: ValueId) -> Option<f32> {
    let [Use::Input(a, _), Use::Input(b, _)] = graph.value(value).uses() else { return None };
    [(*a, *b), (*b, *a)].into_iter().find_map(|(add, product)| {
        let clip = only_reader(graph, graph.node(add).output(0)?)?.0;
        let found = Spelled::find(graph, clip).filter(|found| found.add == add && found.data == value)?;
        let gates = found.product.or_else(|| only_reader(graph, graph.node(found.scale.0).output(0)?));
        (gates?.0 == product && graph.node(product).is("Mul")).then_some(-found.shift)
    })
}

/// Whether `node` belongs to a hard sigmoid that will be one operator where it stays in float.
pub(crate) fn is_scaled_clip(graph: &Graph, node: NodeId) -> bool {
    let before = graph.node(node).inputs().iter().flatten().find_map(|&value| graph.producer(value));
    before.is_some_and(|(clip, found)| {
        found.is("Clip") && Spelled::find(graph, clip).is_some_and(|found| found.scale.0 == node)
    })
}

/// Whether the Clip is that of a hard sigmoid.
pub(crate) fn is_clip(graph: &Graph, clip: NodeId) -> bool {
    graph.node(clip).is("Clip") && Spelled::find(graph, clip).is_some()
}

/// A hard sigmoid that is spelled out.
struct Spelled {
    add: NodeId,
    data: ValueId,
    shift: f32,
    clip: NodeId,
    ceiling: f32,
    /// A Mul between Clip and factor, with the slot that reads the Clip.
    product: Option<(NodeId, usize)>,
    /// The Mul or Div by a number, with the slot that reads what is before.
    scale: (NodeId, usize),
}

impl Spelled {
    fn find(graph: &Graph, clip: NodeId) -> Option<Self> {
        let node = graph.node(clip);
        let sum = node.input(0)?;
        let (low, ceiling) = (end(graph, node, 1, "min")?, end(graph, node, 2, "max")?);
        let (add, found) = graph.producer(sum)?;
        let alone = only_reader(graph, sum)?.0 == clip;
        if !alone || !found.is("Add") || low != 0.0 || !ceiling.is_normal() || ceiling < 0.0 {
            return None;
        }
        let shifted = |slot: usize| Some((found.input(slot)?, number(graph, found.input(1 - slot)?)?));
        let (data, shift) = shifted(0).or_else(|| shifted(1))?;
        let after = only_reader(graph, node.output(0)?)?;
        let fits = |reader: (NodeId, usize)| {
            let factor = factor(graph, graph.node(reader.0), reader.1)?;
            ((f64::from(ceiling) * factor - 1.0).abs() <= TOLERANCE).then_some(reader)
        };
        let (product, scale) = match fits(after) {
            Some(scale) => (None, scale),
            None if graph.node(after.0).is("Mul") => {
                (Some(after), fits(only_reader(graph, graph.node(after.0).output(0)?)?)?)
            }
            None => return None,
        };
        shift.is_finite().then_some(Self { add, data, shift, clip, ceiling, product, scale })
    }

    fn fuse(self, graph: &mut Graph) -> Result<(), GraphError> {
        let Self { add, data, shift, clip, ceiling, product, scale, .. } = self;
        let orphans: Vec<ValueId> = [add, clip, scale.0]
            .iter()
            .flat_map(|&node| graph.node(node).inputs().iter().copied().flatten())
            .filter(|&value| graph.value(value).constant().is_some())
            .collect();
        let sum = graph.node(add).output(0);
        graph.set_op_type(clip, "HardSigmoid");
        graph.set_input(clip, 0, Some(data));
        graph.truncate_inputs(clip, 1);
        ["min", "max"].iter().for_each(|name| drop(graph.remove_attribute(clip, name)));
        graph.set_attribute(clip, float_attribute("alpha", 1.0 / ceiling));
        graph.set_attribute(clip, float_attribute("beta", shift / ceiling));
        // What the factor made is made by what stands before it.
        let last = product.map_or(clip, |(product, _)| product);
        graph.set_input(scale.0, scale.1, None);
        if let Some(result) = graph.node(scale.0).output(0) {
            graph.take_over_output(last, 0, result)?;
        }
        graph.remove_node(scale.0)?;
        sum.into_iter().chain(orphans).for_each(|value| graph.remove_if_unused(value));
        Ok(())
    }
}

/// An f32 constant that is one number and adds no dimensions.
fn number(graph: &Graph, value: ValueId) -> Option<f32> {
    let tensor = graph.value(value).constant().filter(|tensor| tensor.data_type() == DataType::Float as i32)?;
    let numbers = tensor::to_f32(tensor).ok().filter(|numbers| numbers.len() == 1 && tensor.dims.len() <= 1)?;
    Some(numbers[0])
}

/// One end of a Clip: a constant, or the attribute of old opsets.
fn end(graph: &Graph, clip: &Node, slot: usize, name: &str) -> Option<f32> {
    match clip.input(slot) {
        Some(value) => number(graph, value),
        None => clip.attribute(name).map(AttributeProto::f),
    }
}

/// By what a Mul or Div multiplies what it reads in `slot`.
fn factor(graph: &Graph, node: &Node, slot: usize) -> Option<f64> {
    let other = f64::from(number(graph, node.input(1usize.checked_sub(slot)?)?)?);
    match (node.is("Mul"), node.is("Div") && slot == 0) {
        (true, _) => Some(other),
        (_, true) => Some(1.0 / other),
        _ => None,
    }
}

fn expand(graph: &mut Graph, node: NodeId) {
    let found = graph.node(node);
    let is_swish = found.is("HardSwish");
    let (alpha, beta) = match is_swish {
        true => (1.0 / 6.0, 0.5),
        false => (f64::from(found.float("alpha", 0.2)), f64::from(found.float("beta", 0.5))),
    };
    let (Some(x), Some(result)) = (found.input(0), found.output(0)) else { return };
    let base = graph.value(result).name().to_owned();
    let scalar = |graph: &mut Graph, suffix: &str, number: f64| {
        graph.add_constant(&format!("{base}_{suffix}"), tensor::from_f32(&[], &[number as f32]))
    };
    let shift = scalar(graph, "shift", beta / alpha);
    let (low, high) = (scalar(graph, "low", 0.0), scalar(graph, "high", 1.0 / alpha));
    let alpha = scalar(graph, "alpha", alpha);
    let sum = insert(graph, node, "Add", &[x, shift], format!("{base}_shifted"), vec![]);
    let clipped = insert(graph, node, "Clip", &[sum, low, high], format!("{base}_clipped"), vec![]);
    ["alpha", "beta"].iter().for_each(|name| drop(graph.remove_attribute(node, name)));
    graph.set_op_type(node, "Mul");
    if is_swish {
        let gate = insert(graph, node, "Mul", &[clipped, alpha], format!("{base}_gate"), vec![]);
        graph.set_input(node, 1, Some(gate));
    } else {
        graph.set_input(node, 0, Some(clipped));
        graph.set_input(node, 1, Some(alpha));
    }
}

#[cfg(test)]
#[path = "hard_sigmoid_tests.rs"]
mod tests;
