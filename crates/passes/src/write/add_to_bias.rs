//! Adds a constant vector to what a layer gives, through the bias it has.
//!
//! | layer | where the vector goes |
//! |---|---|
//! | Conv, ConvTranspose | input 2, which is added where it is absent |
//! | Gemm | input 2 likewise |
//! | MatMul | the constant of an `Add` that is its only reader |
//!
//! The bias gets a new initializer, so that other readers of the old one see no change. Not possible, and
//! reported so: a bias that is no constant or not one number an output, a MatMul without such an `Add`.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId, Use, ValueId, tensor};

use crate::find::sites::Site;
use crate::layers::Bias;

/// Where the bias of a layer stands.
pub(crate) struct Slot {
    pub(crate) node: NodeId,
    pub(crate) input: usize,
    pub(crate) old: Option<ValueId>,
}

/// Whether [`add_to_bias`] would find a place.
pub fn has_bias(graph: &Graph, site: &Site) -> bool {
    slot(graph, site).is_some_and(|slot| numbers(graph, site, &slot).is_some())
}

/// Adds `vector`, one number an output channel, to the bias of `site`; `false` where it has none.
pub fn add_to_bias(graph: &mut Graph, site: &Site, vector: &[f32]) -> bool {
    let Some(slot) = slot(graph, site) else { return false };
    let Some(old) = numbers(graph, site, &slot).filter(|old| old.len() == vector.len()) else { return false };
    let sum = old.iter().zip(vector).map(|(a, b)| a + b).collect::<Vec<f32>>();
    let name = match slot.old {
        Some(old) => format!("{}_corrected", graph.value(old).name()),
        None => format!("{}_bias", graph.label(site.node)),
    };
    let dims = row_dims(graph, &slot, sum.len());
    let value = graph.add_constant(&name, tensor::from_f32_as(site.dtype, &dims, &sum));
    graph.set_input(slot.node, slot.input, Some(value));
    if slot.node == site.node {
        // Of a Gemm: 1 where there was a bias, and without meaning where there was none.
        graph.remove_attribute(slot.node, "beta");
    }
    if let Some(old) = slot.old {
        graph.remove_if_unused(old);
    }
    true
}

/// The slot of the bias; of a MatMul that of the other operand of the Add behind it.
pub(crate) fn slot(graph: &Graph, site: &Site) -> Option<Slot> {
    let node = graph.node(site.node);
    if let Bias::Input(input) = site.layer.bias() {
        return Some(Slot { node: site.node, input, old: node.input(input) });
    }
    let [Use::Input(add, input)] = graph.value(node.output(0)?).uses() else { return None };
    let other = 1 - *input.min(&1);
    let found = graph.node(*add);
    found
        .is("Add")
        .then_some(Slot { node: *add, input: other, old: found.input(other) })
        .filter(|slot| slot.old.is_some())
}

/// The shape of the old bias with `len` numbers in its last dimension: the rank of an Add's result depends on it.
pub(crate) fn row_dims(graph: &Graph, slot: &Slot, len: usize) -> Vec<usize> {
    let old = slot.old.and_then(|old| graph.value(old).constant());
    let rank = old.map_or(1, |tensor| tensor.dims.len().max(1));
    std::iter::repeat_n(1, rank - 1).chain([len]).collect()
}

/// The bias as one number an output channel; zeros where there is none.
pub(crate) fn numbers(graph: &Graph, site: &Site, slot: &Slot) -> Option<Vec<f32>> {
    let outputs = site.view.groups() * site.view.outputs();
    let Some(old) = slot.old else { return Some(vec![0.0; outputs]) };
    let tensor = graph.value(old).constant().filter(|tensor| tensor.data_type() == site.dtype as i32)?;
    let is_row = tensor.dims.iter().rev().skip(1).all(|&dim| dim == 1);
    let numbers = tensor::to_f32(tensor).ok().filter(|_| is_row && site.dtype != DataType::Undefined)?;
    match numbers.len() {
        1 => Some(vec![numbers[0]; outputs]),
        len => (len == outputs).then(|| numbers.into_owned()),
    }
}

#[cfg(test)]
#[path = "add_to_bias_tests.rs"]
mod tests;
