//! Keeps a Relu, a Clip or the shape of a bias from standing between ONNX Runtime and a fused MatMul.
//!
//! `DequantizeLinear -> MatMul` becomes `MatMulNBits`, but not where the only reader of the MatMul is a Relu
//! or Clip (the runtime takes these for the redundant clips of a quantized activation), and not where a Gemm
//! was fused with the Relu before. Then the weight would be dequantized at every run, 5 to 15 times slower
//! than float. So
//!
//! | before | after |
//! |---|---|
//! | `Gemm(x, w, b) -> Relu` | `Gemm(x, w) -> Add(b) -> Relu`: the runtime takes the Add into `MatMulNBits` |
//! | `MatMul -> Relu`, `MatMul -> Add -> Relu`, `Gemm(x, w) -> Relu` | `... -> Max(0)` |
//! | the same with `Clip(low, high)` | `... -> Max(low) -> Min(high)` |
//!
//! A bias that is not of shape `[M]` is not fused with a Gemm either, nor one of shape `[1, M]` with a MatMul of an input
//! with two dimensions: it becomes `[M]`, for a MatMul where the input is known to have as many.
//!
//! The results are the same. Left alone: a Clip whose bounds are attributes (below opset
//! 11), other activations, readers that are not the only one.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NewNode, NodeId, ValueId, tensor};

use crate::find::sites::Site;
use crate::graph::rank::rank;
use crate::graph::readers;
use crate::layers::{self, Channels};
use crate::write::add_to_bias::{numbers, slot};

/// Rewrites what follows `site`, a MatMul or Gemm with a quantized weight.
pub fn keep_fusible(graph: &mut Graph, site: &Site) {
    let layer = site.node;
    flatten_bias(graph, site);
    let Some(after) = only_reader(graph, layer) else { return };
    let clip = if graph.node(after).is("Add") { only_reader(graph, after) } else { Some(after) };
    let Some(clip) = clip.filter(|&clip| graph.node(clip).is("Relu") || graph.node(clip).is("Clip")) else { return };
    match graph.node(layer).input(2) {
        Some(bias) if clip == after => split_bias(graph, layer, bias),
        _ => replace_clip(graph, clip, site.dtype),
    }
}

/// Gives a bias the shape `[M]`, where that leaves the shape of the result.
fn flatten_bias(graph: &mut Graph, site: &Site) {
    let Some(slot) = slot(graph, site) else { return };
    let Some(row) = slot.old.and_then(|bias| graph.value(bias).constant()) else { return };
    let Some(numbers) = numbers(graph, site, &slot).filter(|numbers| row.dims != [numbers.len() as i64]) else {
        return;
    };
    let of_gemm = slot.node == site.node;
    if of_gemm || row.dims.len() == 2 && row.dims[1] > 1 && has_rows(graph, site.input, LONGEST_PROOF) {
        let name = row.name().to_owned();
        let flat = graph.add_constant(&name, tensor::from_f32_as(site.dtype, &[numbers.len()], &numbers));
        graph.set_input(slot.node, slot.input, Some(flat));
        slot.old.into_iter().for_each(|old| graph.remove_if_unused(old));
    }
}

/// Nodes that are followed upwards to prove a rank.
const LONGEST_PROOF: usize = 12;

/// Whether `value` is known to have two dimensions or more.
fn has_rows(graph: &Graph, value: ValueId, steps: usize) -> bool {
    if let Some(rank) = rank(graph, value) {
        return rank > 1;
    }
    let Some((_, node)) = graph.producer(value).filter(|_| steps > 0) else { return false };
    let mut inputs = node.inputs().iter().flatten();
    match node.op_type() {
        "Flatten" => true,
        _ if layers::layer(node).is_some_and(|layer| layer.channels() != Channels::Last) => true,
        // The result has the rank of the operand with the most dimensions.
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Where" => {
            inputs.any(|&input| has_rows(graph, input, steps - 1))
        }
        "MatMul" => inputs.all(|&input| has_rows(graph, input, steps - 1)),
        "Relu" | "Gelu" | "Erf" | "Sigmoid" | "Tanh" | "Clip" | "Sqrt" | "Softmax" | "LayerNormalization"
        | "Identity" | "Cast" | "Dropout" => inputs.next().is_some_and(|&input| has_rows(graph, input, steps - 1)),
        _ => false,
    }
}

/// The node that alone reads the only output of `node`.
fn only_reader(graph: &Graph, node: NodeId) -> Option<NodeId> {
    readers::only_reader(graph, graph.node(node).output(0)?).map(|(reader, _)| reader)
}

fn split_bias(graph: &mut Graph, gemm: NodeId, bias: ValueId) {
    let Some(result) = graph.node(gemm).output(0) else { return };
    let base = graph.value(result).name().to_owned();
    let name =
        if graph.node(gemm).name().is_empty() { String::new() } else { format!("{}_bias", graph.node(gemm).name()) };
    graph.truncate_inputs(gemm, 2);
    let add = NewNode { op_type: "Add", name, outputs: vec![format!("{base}_before_bias")], ..NewNode::default() };
    let add = graph.insert_after(gemm, add);
    let Some(product) = graph.node(add).output(0) else { return };
    // The Gemm takes the new name and the Add the old one, which readers know.
    graph.swap_outputs(gemm, 0, add);
    graph.set_input(add, 0, Some(product));
    graph.set_input(add, 1, Some(bias));
}

fn replace_clip(graph: &mut Graph, clip: NodeId, dtype: DataType) {
    if graph.node(clip).is("Relu") {
        let zero = graph.add_constant("relu_zero", tensor::from_f32_as(dtype, &[], &[0.0]));
        graph.set_op_type(clip, "Max");
        graph.set_input(clip, 1, Some(zero));
        return;
    }
    let (data, low, high) = (graph.node(clip).input(0), graph.node(clip).input(1), graph.node(clip).input(2));
    match (low, high) {
        (Some(low), None) => {
            graph.set_op_type(clip, "Max");
            graph.set_input(clip, 1, Some(low));
            graph.truncate_inputs(clip, 2);
        }
        (low, Some(high)) => {
            let data = low.map_or(data, |low| Some(clip_low(graph, clip, data, low)));
            graph.set_op_type(clip, "Min");
            graph.set_input(clip, 0, data);
            graph.set_input(clip, 1, Some(high));
            graph.truncate_inputs(clip, 2);
        }
        (None, None) => {}
    }
}

fn clip_low(graph: &mut Graph, clip: NodeId, data: Option<ValueId>, low: ValueId) -> ValueId {
    let base = graph.label(clip).to_owned();
    let inputs = vec![data, Some(low)];
    let max = NewNode {
        op_type: "Max",
        name: format!("{base}_low"),
        inputs,
        outputs: vec![format!("{base}_low_output")],
        attributes: vec![],
    };
    let max = graph.insert_before(clip, max);
    graph.node(max).output(0).expect("the node was made with one output")
}

#[cfg(test)]
#[path = "keep_fusible_tests.rs"]
mod tests;
