//! Which values a network must keep where it is cut, so that the rest can be computed from them.
//!
//! After a piece has run, some nodes have been computed and some have not. What the latter read of the former is kept.
//! Not kept, because it costs nothing to compute again: constants, and what is computed from shapes and constants
//! alone (the engine has to see how a Reshape's target follows from an input's shape; it cannot take it as data). Of a
//! value of which only the shape is still asked for, only the shape is kept.

use std::collections::{BTreeSet, HashMap, HashSet};

use onnxquant_proto::bodies;
use onnxquant_proto::onnx::{GraphProto, NodeProto};

use crate::graph::{needed_nodes, reads};

/// What is kept of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Keep {
    Shape,
    Elements,
}

/// A graph, with what can be computed without data.
pub(super) struct Cutter<'a> {
    graph: &'a GraphProto,
    /// Inputs of the graph: every sample has them.
    inputs: HashSet<&'a str>,
    /// Constants, and what follows from them and from shapes.
    free: HashSet<&'a str>,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(graph: &'a GraphProto) -> Self {
        let mut free: HashSet<&str> = graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
        let inputs = graph.input.iter().filter_map(|i| i.name.as_deref()).filter(|name| !free.contains(name)).collect();
        for node in &graph.node {
            if asks_shape(node) || (repeats(node) && reads(node).all(|name| free.contains(name))) {
                free.extend(node.output.iter().map(String::as_str));
            }
        }
        Self { graph, inputs, free }
    }

    /// What is computed on the way to `wanted` when the values `given` are known.
    pub(super) fn made(&self, wanted: &[String], given: &HashSet<&str>) -> impl Iterator<Item = &'a str> {
        let needed = needed_nodes(self.graph, wanted, given);
        let nodes = self.graph.node.iter().zip(needed).filter(|(_, needed)| *needed);
        nodes.flat_map(|(node, _)| &node.output).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// What must be kept of the values `made` to compute the values `later`.
    pub(super) fn kept(&self, made: &HashSet<String>, later: &[String]) -> Vec<(String, Keep)> {
        let known = made.iter().map(String::as_str).filter(|name| !self.free.contains(name));
        let given: HashSet<&str> = known.chain(self.inputs.iter().copied()).collect();
        let needed = needed_nodes(self.graph, later, &given);
        let mut kept: HashMap<&str, Keep> = HashMap::new();
        let mut keep = |name: &str, how: Keep| {
            if let Some(name) = given.get(name).filter(|name| !self.inputs.contains(**name)) {
                let known = kept.entry(name).or_insert(how);
                *known = how.max(*known);
            }
        };
        later.iter().for_each(|name| keep(name, Keep::Elements));
        for (node, _) in self.graph.node.iter().zip(needed).filter(|(_, needed)| *needed) {
            let how = if asks_shape(node) { Keep::Shape } else { Keep::Elements };
            reads(node).for_each(|name| keep(name, how));
        }
        let sorted: BTreeSet<(String, Keep)> = kept.into_iter().map(|(name, how)| (name.to_owned(), how)).collect();
        sorted.into_iter().collect()
    }
}

fn asks_shape(node: &NodeProto) -> bool {
    node.domain().is_empty() && matches!(node.op_type(), "Shape" | "Size")
}

/// Whether a node gives the same from the same inputs, and nothing is hidden inside it.
fn repeats(node: &NodeProto) -> bool {
    let random =
        node.op_type().starts_with("Random") || matches!(node.op_type(), "Multinomial" | "Bernoulli" | "Dropout");
    !random && bodies(node).next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;
    use onnxquant_proto::onnx::{TensorProto, ValueInfoProto};

    /// `a -> b -> c`, where c is reshaped as a was and added to b.
    fn graph() -> GraphProto {
        GraphProto {
            node: vec![
                node("MatMul", &["x", "w"], "a"),
                node("Shape", &["a"], "s"),
                node("Concat", &["s", "one"], "t"),
                node("Relu", &["a"], "b"),
                node("MatMul", &["b", "w"], "c"),
                node("Reshape", &["c", "t"], "d"),
                node("Add", &["d", "b"], "y"),
            ],
            initializer: ["w", "one"]
                .map(|name| TensorProto { name: Some(name.into()), ..TensorProto::default() })
                .to_vec(),
            input: vec![ValueInfoProto { name: Some("x".into()), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        }
    }

    #[test]
    fn shapes_are_followed_back_to_the_values_they_belong_to() {
        let graph = graph();
        let cutter = Cutter::new(&graph);
        let made = |wanted: &str| -> HashSet<String> {
            cutter.made(&[wanted.into()], &HashSet::from(["x"])).map(str::to_owned).collect()
        };
        assert_eq!(made("b"), HashSet::from(["a", "b"].map(str::to_owned)));
        let kept = |made: &HashSet<String>, later: &str| cutter.kept(made, &[later.into()]);
        let (a, b) = (("a".to_owned(), Keep::Shape), ("b".to_owned(), Keep::Elements));
        assert_eq!(kept(&made("b"), "y"), [a, b.clone()]);
        assert_eq!(kept(&made("b"), "c"), std::slice::from_ref(&b));
        assert_eq!(kept(&made("b"), "b"), [b]);
        assert_eq!(kept(&made("a"), "b"), [("a".to_owned(), Keep::Elements)]);
        assert_eq!(kept(&made("x"), "y"), [], "inputs of the graph are always there");
    }
}
