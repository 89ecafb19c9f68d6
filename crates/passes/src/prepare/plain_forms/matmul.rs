//! MatMul with a constant matrix on the right.

use onnxquant_ir::{Graph, NodeId, ValueId, ints_attribute, tensor};

use super::scaled::is_weight;
use crate::graph::constant_chain;
use crate::graph::insert::{append, insert};
use crate::graph::rank::rank;

/// The opset from which on the shape of a Reshape is an input.
const RESHAPE_BY_INPUT: i64 = 5;

/// Rewrites `id` where it is a MatMul of another form; returns whether.
pub(super) fn write_plain(graph: &mut Graph, id: NodeId, opset: i64) -> bool {
    let node = graph.node(id);
    let (Some(left), Some(right), true) = (node.input(0), node.input(1), node.is("MatMul")) else { return false };
    match (weight_shape(graph, left), weight_shape(graph, right)) {
        (Some(shape), None) if shape.len() == 2 => turn_round(graph, id, left, right),
        (None, Some(shape)) => opset >= RESHAPE_BY_INPUT && drop_ones(graph, id, left, right, &shape),
        _ => false,
    }
}

/// The shape of a constant that can be a weight.
fn weight_shape(graph: &Graph, value: ValueId) -> Option<Vec<usize>> {
    let declared = constant_chain::declared(graph, value).filter(|declared| is_weight(declared.dtype))?;
    Some(declared.shape)
}

/// `W x` is the transposed product of the transposed sides.
fn turn_round(graph: &mut Graph, id: NodeId, weight: ValueId, input: ValueId) -> bool {
    let Some(rank) = rank(graph, input) else { return false };
    let name = graph.value(weight).name().to_owned();
    let transposed = vec![ints_attribute("perm", &[1, 0])];
    let weight = insert(graph, id, "Transpose", &[weight], format!("{name}_transposed"), transposed);
    graph.set_input(id, 1, Some(weight));
    let mut perm: Vec<i64> = (0i64..).take(rank).collect();
    let [.., rows, columns] = perm.as_mut_slice() else {
        // A vector is both a row and a column.
        graph.set_input(id, 0, Some(input));
        return true;
    };
    std::mem::swap(rows, columns);
    let name = graph.value(input).name().to_owned();
    let swap = || vec![ints_attribute("perm", &perm)];
    let turned = insert(graph, id, "Transpose", &[input], format!("{name}_transposed"), swap());
    graph.set_input(id, 0, Some(turned));
    let behind = append(graph, id, "Transpose", format!("{name}_product"));
    swap().into_iter().for_each(|attribute| graph.set_attribute(behind, attribute));
    true
}

/// Dimensions of 1 in front of the matrix change nothing where the other side has as many dimensions.
fn drop_ones(graph: &mut Graph, id: NodeId, input: ValueId, weight: ValueId, shape: &[usize]) -> bool {
    let [ones @ .., rows, columns] = shape else { return false };
    let is_matrix = !ones.is_empty() && ones.iter().all(|&one| one == 1);
    if !is_matrix || rank(graph, input).is_none_or(|rank| rank < shape.len()) {
        return false;
    }
    let dims = [*rows, *columns].map(|dim| i64::try_from(dim).unwrap_or(i64::MAX));
    let name = graph.value(weight).name().to_owned();
    let dims = graph.add_constant(&format!("{name}_shape"), tensor::from_i64(&[2], &dims));
    let matrix = insert(graph, id, "Reshape", &[weight, dims], format!("{name}_matrix"), vec![]);
    graph.set_input(id, 1, Some(matrix));
    true
}
