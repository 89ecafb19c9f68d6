//! Checks every invariant of a model and lists all violations.
//!
//! Run after import, after each pass and before writing. Checked here: the two sides of every edge agree;
//! the order is topological, captures included; tensors hold what they declare; names are unique, and inner
//! ones do not shadow outer ones that they see, but for initializers and inputs that do so in the file; operator domains
//! are imported; Q/DQ nodes have legal scales, zero points and axes, and an opset high enough for their types.
//!
//! Not checked: shapes of intermediate values, and the rules of single operators other than Q/DQ.

mod edges;
mod functions;
mod quantization;

use std::collections::HashMap;

use onnxquant_proto::onnx::TensorProto;
use onnxquant_proto::{MAX_OPSET, given_names, made_names};

use crate::domain::plain_domain;
use crate::graph::{Graph, Node, Origin};
use crate::ids::{Marks, NodeId};
use crate::model::Model;
use crate::violation::Violation;
use crate::{subgraph, tensor};

/// All violations of `model`, in a fixed order.
pub fn verify(model: &Model) -> Vec<Violation> {
    let graph = model.graph();
    let mut violations = Vec::new();
    imports(model, &mut violations);
    functions::recursion(model, &mut violations);
    edges::edges(graph, &mut violations);
    if violations.iter().any(|violation| matches!(violation, Violation::BrokenEdge { .. })) {
        return violations; // the rest walks along the edges
    }
    order(graph, &mut violations);
    shadowing(graph, &mut violations);
    tensors(graph, &mut violations);
    for (id, node) in graph.nodes() {
        domains(model, id, node, &mut violations);
        bodies(graph, id, node, &mut violations);
        if node.is("DequantizeLinear") || node.is("QuantizeLinear") {
            let found = quantization::problem(model, node);
            violations.extend(found.map(|problem| Violation::Quantization { node: graph.describe(id), problem }));
        }
    }
    violations
}

fn imports(model: &Model, violations: &mut Vec<Violation>) {
    for import in model.opsets() {
        let (domain, version) = (plain_domain(import.domain()), import.version());
        if version < 1 || (domain.is_empty() && version > MAX_OPSET) {
            violations.push(Violation::Opset { domain: domain.to_owned(), version });
        }
    }
}

/// The subgraphs without which a control flow node means nothing.
fn bodies(graph: &Graph, id: NodeId, node: &Node, violations: &mut Vec<Violation>) {
    let needed: &[&'static str] = match node.op_type() {
        "If" if node.is("If") => &["then_branch", "else_branch"],
        "Loop" | "Scan" if node.domain().is_empty() => &["body"],
        _ => &[],
    };
    let missing = needed.iter().filter(|name| node.attribute(name).is_none_or(|attribute| attribute.g.is_none()));
    violations.extend(missing.map(|&attribute| Violation::NoBody { node: graph.describe(id), attribute }));
}

fn order(graph: &Graph, violations: &mut Vec<Violation>) {
    let mut made = Marks::none_of(&graph.values);
    for (id, node) in graph.nodes() {
        let reads = node.inputs().iter().copied().flatten().chain(node.captures().iter().copied());
        for value in reads {
            if matches!(graph.value(value).origin(), Origin::Output(..)) && !made.has(value) {
                let name = graph.value(value).name().to_owned();
                violations.push(Violation::NotTopological { node: graph.describe(id), name });
            }
        }
        for value in node.outputs().iter().flatten() {
            made.add(*value);
        }
    }
}

/// Initializers and inputs of subgraphs may shadow outer names in a file, and so may what nodes in them make where the outer
/// value is not there yet: the branches that optimum merges call their outputs as the If calls its own. What they make
/// must differ from every value that they see: runtimes refuse anything else. That an edit gives an outer value such a name
/// is a defect.
fn shadowing(graph: &Graph, violations: &mut Vec<Violation>) {
    let of_file = |name: &str| graph.shadowed.contains(name);
    let mut given = subgraph::shadowed_names(graph, given_names);
    given.retain(|(_, name)| !of_file(name));
    let mut made = subgraph::shadowed_names(graph, made_names);
    if !made.is_empty() {
        let places: HashMap<NodeId, usize> = graph.order().iter().enumerate().map(|(place, &id)| (id, place)).collect();
        let is_seen = |node: NodeId, name: &str| match graph.find(name).map(|value| graph.value(value).origin()) {
            Some(Origin::Output(maker, _)) => places.get(&maker) < places.get(&node),
            _ => true,
        };
        made.retain(|&(node, name)| is_seen(node, name) || !of_file(name));
    }
    let violation =
        |(id, name): (NodeId, &str)| Violation::Shadowed { node: graph.describe(id), name: name.to_owned() };
    violations.extend(given.into_iter().chain(made).map(violation));
}

fn tensors(graph: &Graph, violations: &mut Vec<Violation>) {
    let check = |tensor: &TensorProto| tensor::check_payload(tensor).err().map(Violation::Tensor);
    let constants = graph.values().filter_map(|(_, value)| value.tensor());
    let of_node = |node| subgraph::attribute_tensors(node).collect::<Vec<_>>();
    let attributes = graph.nodes().flat_map(|(_, node)| of_node(&node.proto));
    violations.extend(constants.chain(attributes).filter_map(check));
}

fn domains(model: &Model, id: NodeId, node: &Node, violations: &mut Vec<Violation>) {
    if model.opset(node.domain()).is_none() && !model.calls_function(&node.proto) {
        let domain = node.domain().to_owned();
        violations.push(Violation::DomainNotImported { node: model.graph().describe(id), domain });
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
