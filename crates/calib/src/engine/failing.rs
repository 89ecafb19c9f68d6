//! Finds the nodes of a model that the engine cannot run, so that the rest of it can be run without them.
//!
//! # Problem
//!
//! One operator that the engine lacks, or on which it fails, keeps it from computing what depends on it, not what does
//! not.
//!
//! # Method
//!
//! - [`unknown_operators`] asks the engine which operators it has. That costs nothing.
//! - [`failing_nodes`] tries: the engine runs one sample through all nodes that do not depend on one that is known to
//!   fail. Where it cannot, the shortest beginning of these that it cannot run is found by halving; the last node there
//!   is the one. Messages of the engine are not interpreted.
//!
//! A node is listed where it does not depend on another one listed.
//!
//! # Guarantee
//!
//! The engine has run all that depends on no listed node, for that sample.
//!
//! # Cost
//!
//! For each failing node as many plans as the number of nodes has binary digits.

use std::collections::HashSet;

use onnxquant_proto::bodies;
use onnxquant_proto::onnx::{GraphProto, ModelProto, NodeProto};

use super::blocked::{BlockedNode, Fault, PANICKED};
use super::contract::Engine;
use super::open::open_session_for;
use crate::data::CalibSet;
use crate::error::CalibError;
use crate::graph::{all_nodes, reads};

/// A model on more nodes of which the engine fails is not run.
const MOST_FAILING: usize = 16;

/// The nodes of the main graph whose operators the engine does not have, or that hold such operators.
///
/// Local functions must have been inlined, see [`crate::inline_functions`].
pub fn unknown_operators(engine: &dyn Engine, model: &ModelProto) -> Vec<BlockedNode> {
    let Some(graph) = &model.graph else { return Vec::new() };
    let unknown = |node: &NodeProto| engine.unknown(node);
    let unknown_inside = |node: &NodeProto| {
        let (inner, why) = bodies(node).flat_map(all_nodes).find_map(|inner| Some((inner, unknown(inner)?)))?;
        Some(format!("inside it, {}: {why}", BlockedNode::new(inner, why, Fault::Unknown)))
    };
    let reason = |node: &NodeProto| unknown(node).map(str::to_owned).or_else(|| unknown_inside(node));
    let (mut found, mut behind) = (Vec::new(), HashSet::new());
    for node in &graph.node {
        if !extend(&mut behind, node)
            && let Some(reason) = reason(node)
        {
            behind.extend(node.output.iter().map(String::as_str));
            found.push(BlockedNode::new(node, reason, Fault::Unknown));
        }
    }
    found
}

/// Nodes on which the engine fails beside those `known` to fail, found by running a sample.
///
/// # Errors
/// Data that cannot be read, and a model of which there is too much that the engine cannot run.
pub fn failing_nodes(
    engine: &dyn Engine,
    model: &ModelProto,
    known: &[BlockedNode],
    data: &CalibSet,
    sample: usize,
) -> Result<Vec<BlockedNode>, CalibError> {
    let nothing = GraphProto::default();
    let graph = model.graph.as_ref().unwrap_or(&nothing);
    let loaded = data.load(sample)?;
    let failure = |nodes: &[&NodeProto]| {
        let session = open_session_for(engine, model, &results(nodes), data, &[sample]);
        session.and_then(|session| session.run(&loaded)).err()
    };
    let (mut found, mut runs) = (Vec::new(), 0);
    loop {
        let left = left(graph, known.iter().chain(&found));
        let Some(mut error) = failure(&left) else { return Ok(found) };
        if found.len() == MOST_FAILING || left.len() <= runs {
            return Err(error);
        }
        let mut fails = left.len();
        while fails - runs > 1 {
            let middle = runs.midpoint(fails);
            match failure(&left[..middle]) {
                None => runs = middle,
                Some(of_middle) => (fails, error) = (middle, of_middle),
            }
        }
        let reason = match error {
            CalibError::Load { detail, .. } | CalibError::Run { detail, .. } => detail,
            other => other.to_string(),
        };
        let fault = if reason.starts_with(PANICKED) { Fault::Panic } else { Fault::Error };
        found.push(BlockedNode::new(left[fails - 1], reason, fault));
        runs = fails - 1;
    }
}

/// The nodes that depend on no blocked one, in their order.
fn left<'a>(graph: &'a GraphProto, blocked: impl Iterator<Item = &'a BlockedNode>) -> Vec<&'a NodeProto> {
    let mut behind: HashSet<&str> = blocked.flat_map(|node| &node.outputs).map(String::as_str).collect();
    let is_blocked = |behind: &HashSet<&str>, node: &NodeProto| node.output.iter().any(|o| behind.contains(o.as_str()));
    graph.node.iter().filter(|node| !is_blocked(&behind, node) && !extend(&mut behind, node)).collect()
}

/// Whether the node reads a value of `behind`, to which what it makes is added then.
fn extend<'a>(behind: &mut HashSet<&'a str>, node: &'a NodeProto) -> bool {
    let depends = reads(node).any(|name| behind.contains(name));
    if depends {
        behind.extend(node.output.iter().map(String::as_str).filter(|output| !output.is_empty()));
    }
    depends
}

/// What `nodes` make and none of them reads.
fn results(nodes: &[&NodeProto]) -> Vec<String> {
    let read: HashSet<&str> = nodes.iter().flat_map(|node| reads(node)).collect();
    let made = nodes.iter().flat_map(|node| &node.output);
    made.filter(|name| !name.is_empty() && !read.contains(name.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::contract::{Given, Session};
    use crate::graph::label;
    use crate::testing::node;
    use onnxquant_proto::onnx::AttributeProto;

    /// Knows one domain and two operators.
    struct Small;

    impl Engine for Small {
        fn name(&self) -> &str {
            "small"
        }

        fn unknown(&self, node: &NodeProto) -> Option<&'static str> {
            match (node.domain(), node.op_type()) {
                ("" | "ai.onnx", "Relu" | "If") => None,
                ("" | "ai.onnx", _) => Some("it does not know this operator"),
                _ => Some("it knows no operators of this domain"),
            }
        }

        fn open(&self, _: &ModelProto, _: &[String], _: &Given) -> Result<Box<dyn Session>, CalibError> {
            Err(CalibError::BadModel("nothing is run here".into()))
        }
    }

    fn found(nodes: Vec<NodeProto>) -> Vec<String> {
        let graph = GraphProto { node: nodes, ..GraphProto::default() };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        unknown_operators(&Small, &model).iter().map(|node| format!("{node}: {}", node.reason)).collect()
    }

    #[test]
    fn unknown_operators_are_listed_where_they_depend_on_no_other() {
        let foreign = NodeProto { domain: Some("org.example".into()), ..node("Relu", &["x"], "b") };
        let nodes = vec![
            node("Relu", &["x"], "r"),
            node("SequenceEmpty", &[], "s"),
            foreign,
            node("SequenceInsert", &["s", "r"], "t"),
            node("Odd", &["r", "b"], "u"),
            NodeProto { domain: Some("ai.onnx".into()), ..node("Relu", &["r"], "v") },
        ];
        let expected = [
            "`s` (SequenceEmpty): it does not know this operator",
            "`b` (Relu of domain `org.example`): it knows no operators of this domain",
        ];
        assert_eq!(found(nodes), expected);
    }

    #[test]
    fn bodies_with_unknown_operators_block_the_node_that_holds_them() {
        let body = GraphProto { node: vec![node("Odd", &["x"], "inner")], ..GraphProto::default() };
        let mut branch = node("If", &["c"], "y");
        branch.attribute.push(AttributeProto { g: Some(Box::new(body)), ..AttributeProto::default() });
        assert_eq!(found(vec![branch]), ["`y` (If): inside it, `inner` (Odd): it does not know this operator"]);
    }

    #[test]
    fn what_depends_on_a_blocked_node_is_left_out() {
        let nodes = vec![
            node("Odd", &["x"], "a"),
            node("Relu", &["x"], "b"),
            node("Add", &["a", "b"], "c"),
            node("Relu", &["b"], "d"),
        ];
        let graph = GraphProto { node: nodes, ..GraphProto::default() };
        let odd = BlockedNode::new(&graph.node[0], "", Fault::Unknown);
        let left = left(&graph, [&odd].into_iter());
        assert_eq!(left.iter().map(|node| label(node)).collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!(results(&left), ["d"]);
    }
}
