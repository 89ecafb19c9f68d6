//! Moves zero padding from a Pad into the Convs that read it.
//!
//! A Conv pads with zeros itself, so that
//!
//! ```text
//! Pad(x, p) -> Conv(pads = q)    is    Conv(x, pads = p + q)
//! ```
//!
//! Exact, and one pass over the data less. Of several Pads in a row all go.
//!
//! Not folded: other modes and other values than 0, amounts that are computed (see [`crate::fold_integers`]) or
//! negative, padding of batch or channels, a Pad whose output is read by anything but the data slot of Convs or
//! is a graph output, and Convs that choose their padding themselves (`auto_pad` of `SAME_*`) or whose number
//! of dimensions does not show. Subgraphs are not entered.

use onnxquant_ir::{Graph, GraphError, Model, Node, NodeId, Use, ValueId, ints_attribute, tensor};

use crate::graph::constant_chain;

/// Folds wherever it is exact; returns the number of Pads removed.
pub fn fold_pads(model: &mut Model) -> Result<usize, GraphError> {
    let graph = model.graph_mut();
    let pads = graph.nodes().filter(|(_, node)| node.is("Pad")).map(|(id, _)| id).collect::<Vec<_>>();
    let mut folded = 0;
    // From the last to the first: what reads the first of two Pads is a Conv when the second is gone.
    for pad in pads.into_iter().rev() {
        if let Some(fold) = plan(graph, pad) {
            apply(graph, pad, fold)?;
            folded += 1;
        }
    }
    Ok(folded)
}

/// Everything the fold writes, computed before anything is changed.
struct Fold {
    data: ValueId,
    /// Each Conv with its new `pads`.
    convs: Vec<(NodeId, Vec<i64>)>,
}

fn plan(graph: &Graph, pad: NodeId) -> Option<Fold> {
    let node = graph.node(pad);
    let data = node.input(0)?;
    if node.text("mode", "constant") != "constant" || node.outputs().len() != 1 || !pads_zeros(graph, node) {
        return None;
    }
    let padded = graph.value(node.output(0)?);
    let conv = |user: &Use| match *user {
        Use::Input(reader, 0) => Some((reader, joint_pads(graph, node, graph.node(reader))?)),
        _ => None,
    };
    let convs = padded.uses().iter().map(conv).collect::<Option<Vec<_>>>()?;
    (!convs.is_empty()).then_some(Fold { data, convs })
}

/// Whether the value that is filled in is known to be 0, which is the default.
fn pads_zeros(graph: &Graph, pad: &Node) -> bool {
    let zeros = |value| {
        let tensor = graph.value(value).constant();
        let numbers = tensor.and_then(|tensor| tensor::to_f32(tensor).ok());
        numbers.is_some_and(|numbers| numbers.iter().all(|&x| x == 0.0))
    };
    pad.float("value", 0.0) == 0.0 && pad.input(2).is_none_or(zeros)
}

/// The `pads` that `conv` needs when it reads what `pad` reads.
fn joint_pads(graph: &Graph, pad: &Node, conv: &Node) -> Option<Vec<i64>> {
    let spatial = spatial_dimensions(graph, conv).filter(|_| conv.is("Conv"))?;
    let amounts = amounts(graph, pad, spatial + 2)?;
    let own = own_pads(conv, spatial)?;
    let (begins, ends) = amounts.split_at(spatial + 2);
    let (fixed, begins) = begins.split_at(2);
    let (also_fixed, ends) = ends.split_at(2);
    if fixed.iter().chain(also_fixed).any(|&amount| amount != 0) {
        return None;
    }
    begins.iter().chain(ends).zip(own).map(|(&a, b)| a.checked_add(b).filter(|_| a >= 0 && b >= 0)).collect()
}

fn spatial_dimensions(graph: &Graph, conv: &Node) -> Option<usize> {
    match conv.ints("kernel_shape").filter(|kernel| !kernel.is_empty()) {
        Some(kernel) => Some(kernel.len()),
        None => constant_chain::declared(graph, conv.input(1)?)?.shape.len().checked_sub(2),
    }
}

/// The amounts of a Pad: before each of `rank` dimensions, then after each.
pub(super) fn amounts(graph: &Graph, pad: &Node, rank: usize) -> Option<Vec<i64>> {
    let list = |slot: usize| {
        let tensor = graph.value(pad.input(slot)?).constant()?;
        tensor::to_i64(tensor).ok()
    };
    let given = if pad.input(1).is_some() { list(1)? } else { pad.ints("pads")?.to_vec() };
    let axes = match pad.input(3) {
        Some(_) => constant_chain::positions(&list(3)?, rank)?,
        None => (0..rank).collect(),
    };
    let twice = axes.iter().enumerate().any(|(index, axis)| axes[..index].contains(axis));
    if twice || given.len() != 2 * axes.len() {
        return None;
    }
    let mut amounts = vec![0; 2 * rank];
    for (index, &axis) in axes.iter().enumerate() {
        amounts[axis] = given[index];
        amounts[rank + axis] = given[axes.len() + index];
    }
    Some(amounts)
}

/// The zeros that a Conv adds itself, where they do not depend on the size of its input.
fn own_pads(conv: &Node, spatial: usize) -> Option<Vec<i64>> {
    let listed = conv.ints("pads").filter(|pads| !pads.is_empty());
    match (conv.text("auto_pad", "NOTSET"), listed) {
        ("NOTSET" | "", Some(pads)) => Some(pads.to_vec()).filter(|pads| pads.len() == 2 * spatial),
        ("NOTSET" | "" | "VALID", None) => Some(vec![0; 2 * spatial]),
        _ => None,
    }
}

fn apply(graph: &mut Graph, pad: NodeId, fold: Fold) -> Result<(), GraphError> {
    let arguments = graph.node(pad).inputs().iter().skip(1).copied().flatten().collect::<Vec<_>>();
    for (conv, pads) in fold.convs {
        graph.set_input(conv, 0, Some(fold.data));
        graph.remove_attribute(conv, "auto_pad");
        graph.set_attribute(conv, ints_attribute("pads", &pads));
    }
    graph.remove_node(pad)?;
    arguments.into_iter().for_each(|value| graph.remove_if_unused(value));
    Ok(())
}

#[cfg(test)]
#[path = "fold_pad_tests.rs"]
mod tests;
