//! Gemm without factors and `transA`.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::{Graph, NodeId, ValueId, ints_attribute, tensor};

use super::scaled::{is_own, is_weight, replace_constant, scaled};
use crate::graph::constant_chain;
use crate::graph::insert::insert;

/// What becomes of the input that is added.
enum Addend {
    Stays,
    Goes,
    Constant(TensorProto),
    /// Multiplied by a number before it is read.
    Product(ValueId, TensorProto),
}

/// Rewrites `id` where it is a Gemm of another form; returns whether.
pub(super) fn write_plain(graph: &mut Graph, id: NodeId) -> bool {
    let Some((weight, addend)) = plan(graph, id) else { return false };
    if let Some(weight) = weight {
        replace_constant(graph, id, 1, weight);
    }
    match addend {
        Addend::Stays => {}
        Addend::Goes => {
            let old = graph.node(id).input(2);
            graph.truncate_inputs(id, 2);
            old.into_iter().for_each(|value| graph.remove_if_unused(value));
        }
        Addend::Constant(bias) => replace_constant(graph, id, 2, bias),
        Addend::Product(value, factor) => {
            let name = graph.value(value).name().to_owned();
            let factor = graph.add_constant(&format!("{name}_beta"), factor);
            let product = insert(graph, id, "Mul", &[value, factor], format!("{name}_scaled"), vec![]);
            graph.set_input(id, 2, Some(product));
        }
    }
    if let Some(input) = graph.node(id).input(0).filter(|_| graph.node(id).int("transA", 0) != 0) {
        let name = format!("{}_transposed", graph.value(input).name());
        let turned = insert(graph, id, "Transpose", &[input], name, vec![ints_attribute("perm", &[1, 0])]);
        graph.set_input(id, 0, Some(turned));
    }
    for name in ["alpha", "beta", "transA"] {
        graph.remove_attribute(id, name);
    }
    true
}

/// The weight, where it is another one, and the addend.
fn plan(graph: &Graph, id: NodeId) -> Option<(Option<TensorProto>, Addend)> {
    let node = graph.node(id);
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let weight = node.input(1).filter(|_| node.is("Gemm"))?;
    let declared = constant_chain::declared(graph, weight)?;
    // Opsets below 7 add with a `broadcast` of their own.
    let known = is_weight(declared.dtype) && declared.shape.len() == 2 && node.attribute("broadcast").is_none();
    let has_factor = alpha != 1.0 || (beta != 1.0 && node.input(2).is_some());
    if !known || !(has_factor || node.int("transA", 0) != 0) {
        return None;
    }
    let new_weight = match alpha {
        1.0 => None,
        _ => Some(scaled(graph, weight, alpha).filter(|_| is_own(graph, weight, id))?),
    };
    let addend = match node.input(2) {
        None => Addend::Stays,
        Some(_) if beta == 1.0 => Addend::Stays,
        Some(_) if beta == 0.0 => Addend::Goes,
        Some(bias) => match constant_chain::declared(graph, bias) {
            Some(_) => Addend::Constant(scaled(graph, bias, beta)?),
            None => Addend::Product(bias, tensor::from_f32_as(declared.dtype, &[], &[beta])),
        },
    };
    Some((new_weight, addend))
}
