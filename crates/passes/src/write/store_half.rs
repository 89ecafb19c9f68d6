//! Stores floats that were f16 or bf16 before they were raised ([`crate::raise_type`]) in their type again.
//!
//! What is left in float would take twice the bytes of the model that was given. A `Cast` makes f32 of it: ONNX Runtime does
//! that when it loads the model; rows that a `Gather` takes from a table it makes f32 as they are taken.
//!
//! Numbers that passes changed since, and short tensors, stay f32.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, TensorProto};
use onnxquant_ir::{Graph, NodeId, TensorError, Use, ValueId, int_attribute, tensor};

use crate::graph::insert::{append, insert};
use crate::raise_type::RaisedType;

/// Shorter tensors are not worth a node.
const LEAST_BYTES: usize = 4096;

/// Changes the main graph; returns how many tensors it stored so.
pub fn store_half(graph: &mut Graph, raised: &RaisedType) -> Result<usize, TensorError> {
    let named: Vec<ValueId> = raised.tensors.iter().filter_map(|name| graph.find(name)).collect();
    let mut count = 0;
    for value in named {
        let Some(half) = half(graph, value, raised.from)? else { continue };
        let readers: Vec<(NodeId, usize)> = graph.value(value).uses().iter().filter_map(input).collect();
        // Names that bodies or callers know stay.
        if readers.is_empty() || readers.len() < graph.value(value).uses().len() {
            continue;
        }
        let name = graph.value(value).name().to_owned();
        let half = graph.add_constant(&format!("{name}_half"), half);
        if readers.iter().all(|&(node, slot)| slot == 0 && graph.node(node).is("Gather")) {
            readers.into_iter().for_each(|(gather, _)| cast_rows(graph, gather, half, &name));
        } else {
            let first = graph.order().iter().copied().find(|id| readers.iter().any(|(node, _)| node == id));
            let Some(first) = first else { continue };
            let float = insert(graph, first, "Cast", &[half], format!("{name}_float"), vec![to_float()]);
            readers.into_iter().for_each(|(node, slot)| graph.set_input(node, slot, Some(float)));
        }
        graph.remove_if_unused(value);
        count += 1;
    }
    Ok(count)
}

fn input(found: &Use) -> Option<(NodeId, usize)> {
    match found {
        Use::Input(node, slot) => Some((*node, *slot)),
        _ => None,
    }
}

fn to_float() -> AttributeProto {
    int_attribute("to", i64::from(DataType::Float as i32))
}

/// The numbers of a constant in their type before, if it is long and still has these numbers.
fn half(graph: &Graph, value: ValueId, dtype: DataType) -> Result<Option<TensorProto>, TensorError> {
    let Some(tensor) = graph.value(value).constant() else { return Ok(None) };
    if tensor::data_type(tensor) != Ok(DataType::Float) || graph.is_output(value) {
        return Ok(None);
    }
    let numbers = tensor::to_f32(tensor)?;
    if numbers.len() * size_of::<f32>() < LEAST_BYTES {
        return Ok(None);
    }
    let half = TensorProto { dims: tensor.dims.clone(), ..tensor::from_f32_as(dtype, &[], &numbers) };
    let is_exact = tensor::to_f32(&half)?.iter().zip(numbers.iter()).all(|(a, b)| a.to_bits() == b.to_bits());
    Ok(is_exact.then_some(half))
}

/// Lets `gather` take rows of the half table, and makes them f32.
fn cast_rows(graph: &mut Graph, gather: NodeId, half: ValueId, name: &str) {
    graph.set_input(gather, 0, Some(half));
    let cast = append(graph, gather, "Cast", format!("{name}_rows"));
    graph.set_attribute(cast, to_float());
}
