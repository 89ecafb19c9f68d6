//! Puts the conversions of regions into the graph: as codes for the runtime, or as the same arithmetic on floats.
//!
//! Every tensor of [`Regions`] is converted once, where it is made; all who read it there read the one decoded value.
//! A tensor that a region makes and that is a graph output keeps its name behind the conversion.
//!
//! The weights and biases of the layers inside are written by [`crate::write_static`].

use std::collections::{HashMap, HashSet};

use onnxquant_ir::{Graph, NewNode, NodeId, ValueId, tensor};
use onnxquant_quant::ActivationParams;

use super::regions::{CodedTensor, Regions};
use crate::integer::fake_quantize::{fake_quantize, quantize_dequantize};

/// How conversions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// `QuantizeLinear -> DequantizeLinear`, which the runtime fuses.
    Codes,
    /// The same arithmetic with float operators, for engines without integer types.
    Floats,
}

/// Writes the conversions of all tensors; `params` by class. Returns what was decoded.
pub fn write_regions(
    graph: &mut Graph,
    regions: &Regions,
    params: &[ActivationParams],
    conversion: Conversion,
) -> HashSet<ValueId> {
    let mut decoded: HashMap<ValueId, ValueId> = HashMap::new();
    let mut replaced = Vec::new();
    for tensor in &regions.tensors {
        let own = tensor.params(params);
        match (tensor.codes_of, conversion) {
            (None, _) => drop(decoded.insert(tensor.value, write_tensor(graph, tensor, own, conversion))),
            // The operator multiplies what was decoded.
            (Some(_), Conversion::Floats) => {}
            (Some(from), Conversion::Codes) => {
                let other = decode_again(graph, tensor, decoded[&from], own);
                decoded.insert(tensor.value, other);
                replaced.push((tensor.value, decoded[&from]));
            }
        }
    }
    for (value, from) in replaced {
        graph.remove_if_unused(value);
        graph.remove_if_unused(from);
    }
    decoded.into_values().collect()
}

/// Converts a tensor for its readers; returns what they read.
fn write_tensor(graph: &mut Graph, tensor: &CodedTensor, params: ActivationParams, conversion: Conversion) -> ValueId {
    let converted = |graph: &mut Graph, value: ValueId, readers: &[(NodeId, usize)]| match conversion {
        Conversion::Codes => quantize_dequantize(graph, value, params, readers),
        Conversion::Floats => fake_quantize(graph, value, params, readers),
    };
    let producer = graph.producer(tensor.value).map(|(producer, _)| producer);
    let Some(producer) = producer.filter(|_| tensor.is_output) else {
        return converted(graph, tensor.value, &tensor.readers);
    };
    // The name must end behind the conversion: a copy of the value is made in front of it.
    let copy = NewNode {
        op_type: "Identity",
        name: String::new(),
        inputs: vec![Some(tensor.value)],
        outputs: vec![format!("{}_float", graph.value(tensor.value).name())],
        attributes: vec![],
    };
    let copy = graph.insert_after(producer, copy);
    graph.swap_outputs(producer, 0, copy);
    let float = graph.node(producer).output(0).expect("the producer took over the copy's output");
    graph.set_input(copy, 0, Some(float));
    // Behind the copy the runtime would not see that the readers read codes.
    let readers: Vec<(NodeId, usize)> = [(copy, 0)].into_iter().chain(tensor.readers.iter().copied()).collect();
    converted(graph, float, &readers)
}

/// Decodes the codes behind `decoded` on another scale for the readers of `tensor`.
fn decode_again(graph: &mut Graph, tensor: &CodedTensor, decoded: ValueId, params: ActivationParams) -> ValueId {
    let (node, found) = graph.producer(decoded).expect("a node decodes the codes");
    let (codes, zero_point) = (found.input(0), found.input(2));
    let name = graph.value(tensor.value).name().to_owned();
    let scale = graph.add_constant(&format!("{name}_scale"), tensor::from_f32(&[], &[params.scale()]));
    let new = NewNode {
        op_type: "DequantizeLinear",
        name: format!("{name}_dequantized_DequantizeLinear"),
        inputs: vec![codes, Some(scale), zero_point],
        outputs: vec![format!("{name}_dequantized")],
        attributes: vec![],
    };
    let again = graph.insert_after(node, new);
    let again = graph.node(again).output(0);
    tensor.readers.iter().for_each(|&(node, slot)| graph.set_input(node, slot, again));
    again.expect("the node was made with one output")
}

#[cfg(test)]
#[path = "write_regions_tests.rs"]
mod tests;
