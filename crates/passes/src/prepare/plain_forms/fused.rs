//! Operators of the runtime's domain that do the work of two.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, NodeId, float_attribute, ints_attribute, tensor};

use super::scaled::{is_own, is_weight, replace_constant, scaled};
use crate::graph::constant_chain;
use crate::graph::insert::{append, insert};
use crate::runtime::nbits::MICROSOFT;

/// The opset from which on the bounds of a Clip are inputs.
const CLIP_BY_INPUTS: i64 = 11;

/// Writes `id` as operators of the default domain, where it is a fused layer with a constant weight; returns whether.
pub(super) fn unfuse(graph: &mut Graph, id: NodeId, opset: i64) -> bool {
    let node = graph.node(id);
    let Some(weight) = node.input(1).filter(|_| node.domain() == MICROSOFT) else { return false };
    let declared = constant_chain::declared(graph, weight).filter(|declared| is_weight(declared.dtype));
    let Some(dtype) = declared.map(|declared| declared.dtype) else { return false };
    match node.op_type() {
        "FusedMatMul" => unfuse_matmul(graph, id),
        "FusedGemm" => unfuse_activation(graph, id, "Gemm", dtype, opset),
        "FusedConv" => unfuse_activation(graph, id, "Conv", dtype, opset),
        _ => false,
    }
}

fn unfuse_matmul(graph: &mut Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let moves_input = ["transA", "transBatchA", "transBatchB"].iter().any(|name| node.int(name, 0) != 0);
    let (alpha, turned) = (node.float("alpha", 1.0), node.int("transB", 0) != 0);
    let Some(weight) = node.input(1).filter(|_| !moves_input) else { return false };
    let is_matrix = constant_chain::declared(graph, weight).is_some_and(|declared| declared.shape.len() == 2);
    if !is_matrix {
        return false;
    }
    if alpha != 1.0 {
        let Some(product) = scaled(graph, weight, alpha).filter(|_| is_own(graph, weight, id)) else { return false };
        replace_constant(graph, id, 1, product);
    }
    if let Some(weight) = graph.node(id).input(1).filter(|_| turned) {
        let name = format!("{}_transposed", graph.value(weight).name());
        let weight = insert(graph, id, "Transpose", &[weight], name, vec![ints_attribute("perm", &[1, 0])]);
        graph.set_input(id, 1, Some(weight));
    }
    for name in ["alpha", "transA", "transB", "transBatchA", "transBatchB"] {
        graph.remove_attribute(id, name);
    }
    graph.set_operator(id, "", "MatMul");
    true
}

/// An operator behind a layer and its numbers, by attribute.
struct Activation {
    op_type: &'static str,
    numbers: Vec<(&'static str, f32)>,
}

fn unfuse_activation(graph: &mut Graph, id: NodeId, op_type: &'static str, dtype: DataType, opset: i64) -> bool {
    let node = graph.node(id);
    let Some(activation) = activation(node).filter(|found| found.op_type != "Clip" || opset >= CLIP_BY_INPUTS) else {
        return false;
    };
    let sum = node.input(3).filter(|_| op_type == "Conv");
    if op_type == "Conv" {
        graph.truncate_inputs(id, 3);
    }
    for name in ["activation", "activation_params", "activation_alpha", "activation_beta", "activation_gamma"] {
        graph.remove_attribute(id, name);
    }
    graph.set_operator(id, "", op_type);
    let name = graph.label(id).to_owned();
    let mut last = id;
    if let Some(sum) = sum {
        last = append(graph, last, "Add", format!("{name}_product"));
        graph.set_input(last, 1, Some(sum));
    }
    if activation.op_type.is_empty() {
        return true;
    }
    last = append(graph, last, activation.op_type, format!("{name}_sum"));
    for (slot, (name, number)) in (1..).zip(activation.numbers) {
        match activation.op_type {
            "Clip" => {
                let bound = graph.add_constant(name, tensor::from_f32_as(dtype, &[], &[number]));
                graph.set_input(last, slot, Some(bound));
            }
            _ => graph.set_attribute(last, float_attribute(name, number)),
        }
    }
    true
}

/// The activation of a fused layer; `None` where it is not known here.
fn activation(node: &Node) -> Option<Activation> {
    let listed = node.attribute("activation_params").map(|attribute| attribute.floats.as_slice());
    let number = |index: usize, name: &str| match listed {
        Some(list) => list.get(index).copied(),
        None => node.attribute(name).map(|_| node.float(name, 0.0)),
    };
    let (alpha, beta) = (|| number(0, "activation_alpha"), || number(1, "activation_beta"));
    let (op_type, numbers) = match node.text("activation", "") {
        "" => ("", vec![]),
        "Relu" => ("Relu", vec![]),
        "Sigmoid" => ("Sigmoid", vec![]),
        "Tanh" => ("Tanh", vec![]),
        "LeakyRelu" => ("LeakyRelu", vec![("alpha", alpha()?)]),
        "HardSigmoid" => ("HardSigmoid", vec![("alpha", alpha()?), ("beta", beta()?)]),
        "Clip" => ("Clip", vec![("min", alpha()?), ("max", beta()?)]),
        _ => return None,
    };
    Some(Activation { op_type, numbers })
}
