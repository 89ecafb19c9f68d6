//! Puts the nodes of a message in order.
//!
//! # Problem
//!
//! ONNX wants nodes listed behind those whose results they read. Tools that edit files do not always keep to that
//! (converters to float16 append their Casts at the end), and ONNX Runtime sorts what it reads.
//!
//! # Method
//!
//! Nodes are taken in the order of the file, each behind the nodes that it still waits for: a depth-first search from
//! every node in turn. A node reads its inputs and what its bodies read of the graph around them. The bodies of If, Loop
//! and Scan and local functions are sorted alike.
//!
//! # Guarantee
//!
//! Nodes move only to before a node that reads them; where none has to, the message stays as it is.
//!
//! # Cost
//!
//! As many steps as there are nodes and names that they read.
//!
//! # Failure
//!
//! Nodes that read each other in a circle have no order: they are named.

use std::collections::{HashMap, HashSet};

use onnxquant_proto::captured_names;
use onnxquant_proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use crate::violation::Violation;

/// Sorts the main graph, all bodies and all functions; returns how many nodes had to move.
pub(crate) fn sort(model: &mut ModelProto) -> Result<usize, Violation> {
    let mut moved = model.graph.as_mut().map_or(Ok(0), sort_graph)?;
    for function in &mut model.functions {
        let given: HashSet<&str> = function.input.iter().map(String::as_str).collect();
        moved += sort_nodes(&mut function.node, &given)?;
    }
    Ok(moved)
}

fn sort_graph(graph: &mut GraphProto) -> Result<usize, Violation> {
    let inputs = graph.input.iter().map(ValueInfoProto::name);
    let given: HashSet<&str> = inputs.chain(graph.initializer.iter().map(TensorProto::name)).collect();
    sort_nodes(&mut graph.node, &given)
}

/// `given` are the values that are there before any node; a node that makes one of them makes an invalid graph.
fn sort_nodes(nodes: &mut Vec<NodeProto>, given: &HashSet<&str>) -> Result<usize, Violation> {
    let mut moved = 0;
    for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
        for body in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
            moved += sort_graph(body)?;
        }
    }
    let reads = reads(nodes, given);
    if reads.iter().enumerate().all(|(node, makers)| makers.iter().all(|&maker| maker < node)) {
        return Ok(moved);
    }
    let Order { order, moved: here } = Order::of(&reads).map_err(|circle| named(nodes, &circle))?;
    let mut unsorted: Vec<Option<NodeProto>> = std::mem::take(nodes).into_iter().map(Some).collect();
    nodes.extend(order.into_iter().filter_map(|node| unsorted[node].take()));
    Ok(moved + here)
}

/// For every node the nodes of this graph that make what it reads.
fn reads(nodes: &[NodeProto], given: &HashSet<&str>) -> Vec<Vec<usize>> {
    let mut makers = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for name in node.output.iter().map(String::as_str).filter(|name| !name.is_empty() && !given.contains(name)) {
            makers.entry(name).or_insert(index);
        }
    }
    let of_node = |node: &NodeProto| {
        let names = node.input.iter().map(String::as_str).chain(captured_names(node));
        names.filter_map(|name| makers.get(name).copied()).collect()
    };
    nodes.iter().map(of_node).collect()
}

/// An order of nodes.
struct Order {
    order: Vec<usize>,
    /// Nodes that came before their turn.
    moved: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Waiting,
    Open,
    Done,
}

impl Order {
    /// Every node behind those that it reads; nodes in a circle where there is no such order.
    fn of(reads: &[Vec<usize>]) -> Result<Self, Vec<usize>> {
        let mut marks = vec![Mark::Waiting; reads.len()];
        let mut found = Self { order: Vec::with_capacity(reads.len()), moved: 0 };
        for first in 0..reads.len() {
            if marks[first] == Mark::Waiting {
                found.take(first, reads, &mut marks)?;
            }
        }
        Ok(found)
    }

    /// Takes the node `first` and before it whatever it waits for.
    fn take(&mut self, first: usize, reads: &[Vec<usize>], marks: &mut [Mark]) -> Result<(), Vec<usize>> {
        // Nodes that wait for the one above them, each with how many of its reads are settled.
        let mut stack = vec![(first, 0)];
        marks[first] = Mark::Open;
        while let Some((node, settled)) = stack.last_mut() {
            let Some(&maker) = reads[*node].get(*settled) else {
                marks[*node] = Mark::Done;
                self.moved += usize::from(*node > first);
                self.order.push(*node);
                stack.pop();
                continue;
            };
            *settled += 1;
            match marks[maker] {
                Mark::Done => {}
                Mark::Waiting => {
                    marks[maker] = Mark::Open;
                    stack.push((maker, 0));
                }
                Mark::Open => {
                    return Err(stack.iter().map(|(node, _)| *node).skip_while(|node| *node != maker).collect());
                }
            }
        }
        Ok(())
    }
}

fn named(nodes: &[NodeProto], circle: &[usize]) -> Violation {
    let label = |node: &NodeProto| match node.name() {
        "" => node.output.first().cloned().unwrap_or_default(),
        name => name.to_owned(),
    };
    let describe = |&node: &usize| format!("`{}` ({})", label(&nodes[node]), nodes[node].op_type());
    Violation::Cycle { nodes: circle.iter().map(describe).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::testing::{branching, graph, graph_attribute, message, node, with};
    use onnxquant_proto::onnx::FunctionProto;
    use proptest::prelude::*;

    fn outputs(nodes: &[NodeProto]) -> String {
        nodes.iter().map(|node| node.output[0].as_str()).collect::<Vec<_>>().join(" ")
    }

    fn relu(input: &str, output: &str) -> NodeProto {
        node("Relu", &[input], &[output])
    }

    #[test]
    fn nodes_move_only_to_before_a_reader() {
        // Casts stand at the end, as converters leave them.
        let nodes = vec![
            relu("x", "a"),
            node("Add", &["a_cast", "b_cast"], &["b"]),
            relu("x", "c"),
            relu("b", "d"),
            relu("c", "b_cast"),
            relu("a", "a_cast"),
            relu("x", "e"),
        ];
        let mut proto = message(graph("x", "", nodes, "d e"));
        assert_eq!(sort(&mut proto), Ok(3));
        let sorted = proto.graph.as_ref().map(|graph| outputs(&graph.node)).unwrap_or_default();
        assert_eq!(sorted, "a a_cast c b_cast b d e");
        let before = proto.clone();
        assert_eq!(sort(&mut proto), Ok(0));
        assert_eq!(proto, before);
        let model = Model::from_proto(proto).unwrap();
        assert_eq!(model.nodes_sorted(), 0);
    }

    #[test]
    fn bodies_what_they_capture_and_functions_are_sorted() {
        let body = vec![relu("p", "q"), relu("late", "p")];
        let nodes = vec![branching("c", "y", body, "q"), relu("x", "late")];
        let mut proto = message(graph("x c", "", nodes, "y"));
        let function = FunctionProto { node: vec![relu("f", "g"), relu("e", "f")], ..FunctionProto::default() };
        proto.functions.push(function);
        // One of the main graph, one in each branch, one in the function.
        assert_eq!(sort(&mut proto), Ok(4));
        let main = proto.graph.unwrap_or_default();
        assert_eq!(outputs(&main.node), "late y");
        for attribute in &main.node[1].attribute {
            assert_eq!(outputs(&attribute.g.as_ref().unwrap().node), "p q");
        }
        assert_eq!(outputs(&proto.functions[0].node), "f g");
    }

    #[test]
    fn an_imported_model_says_how_many_nodes_moved() {
        let nodes = vec![relu("h", "y"), relu("x", "h")];
        let model = Model::from_proto(message(graph("x", "", nodes, "y"))).unwrap();
        assert_eq!(model.nodes_sorted(), 1);
        assert_eq!(model.graph().nodes().map(|(_, node)| node.op_type()).collect::<Vec<_>>(), ["Relu"; 2]);
        let again = model.with_message(model.to_proto()).unwrap();
        assert_eq!((again.nodes_sorted(), again.to_proto()), (1, model.to_proto()));
    }

    #[test]
    fn a_circle_is_named_wherever_it_is() {
        let circle = || vec![relu("b", "a"), relu("x", "other"), relu("a", "b")];
        let refused = |nodes: Vec<NodeProto>| {
            let found = Model::from_proto(message(graph("x c", "", nodes, "")));
            found.err().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let text = "nodes read each other in a circle: `a` (Relu) reads `b` (Relu) reads `a` (Relu)";
        assert_eq!(refused(circle()), text);
        assert_eq!(refused(vec![branching("c", "y", circle(), "a")]), text);
        assert!(refused(vec![relu("y", "y")]).ends_with("`y` (Relu) reads `y` (Relu)"));
        // What a body captures of what the node makes is a circle as well.
        let loops = graph_attribute("body", graph("i", "", vec![], "y"));
        assert!(refused(vec![with(node("Loop", &["x"], &["y"]), vec![loops])]).contains("`y` (Loop) reads `y` (Loop)"));
    }

    proptest! {
        #[test]
        fn any_shuffle_of_a_chain_with_side_branches_is_sorted(
            parents in proptest::collection::vec(any::<prop::sample::Index>(), 1..40), seed in any::<u64>(),
        ) {
            let name = |index: usize| format!("v{index}");
            let reader = |(index, parent): (usize, &prop::sample::Index)| {
                let input = if index == 0 { "x".to_owned() } else { name(parent.index(index)) };
                relu(&input, &name(index))
            };
            let mut nodes: Vec<NodeProto> = parents.iter().enumerate().map(reader).collect();
            nodes.sort_by_key(|node| node.output[0].bytes().fold(seed, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17)
            }));
            let count = nodes.len();
            let mut proto = message(graph("x", "", nodes, "v0"));
            prop_assert!(sort(&mut proto).is_ok());
            let sorted = proto.graph.unwrap_or_default().node;
            prop_assert_eq!(sorted.len(), count);
            let reads = reads(&sorted, &HashSet::new());
            prop_assert!(reads.iter().enumerate().all(|(node, makers)| makers.iter().all(|&maker| maker < node)));
        }
    }
}
