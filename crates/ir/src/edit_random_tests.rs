//! Any edits that are allowed leave a graph without violations.

use std::collections::HashSet;

use onnxquant_proto::onnx::GraphProto;
use proptest::prelude::*;

use super::tests::relu;
use super::*;
use crate::model::Model;
use crate::tensor;
use crate::testing::{branching, graph, model, nested, node, number};
use crate::verify::verify;

/// One edit; the numbers choose among what there is.
#[derive(Clone, Debug)]
enum Edit {
    AddConstant,
    InsertBefore(usize, usize, usize),
    InsertAfter(usize, usize),
    SetInput(usize, usize, usize),
    ReplaceUses(usize, usize),
    TruncateInputs(usize, usize),
    TruncateOutputs(usize, usize),
    TakeOver(usize, usize),
    SwapOutputs(usize, usize),
    RemoveNode(usize),
    RemoveIfUnused(usize),
    NodeToConstant(usize),
    UnlistInput(usize),
    SetTensor(usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let n = || 0usize..64;
    let edit = prop_oneof![
        Just(Edit::AddConstant),
        (n(), n(), n()).prop_map(|(a, b, c)| Edit::InsertBefore(a, b, c)),
        (n(), n()).prop_map(|(a, b)| Edit::InsertAfter(a, b)),
        (n(), 0usize..4, n()).prop_map(|(a, b, c)| Edit::SetInput(a, b, c)),
        (n(), n()).prop_map(|(a, b)| Edit::ReplaceUses(a, b)),
        (n(), 0usize..3).prop_map(|(a, b)| Edit::TruncateInputs(a, b)),
        (n(), 0usize..3).prop_map(|(a, b)| Edit::TruncateOutputs(a, b)),
        (n(), n()).prop_map(|(a, b)| Edit::TakeOver(a, b)),
        (n(), n()).prop_map(|(a, b)| Edit::SwapOutputs(a, b)),
        n().prop_map(Edit::RemoveNode),
        n().prop_map(Edit::RemoveIfUnused),
        n().prop_map(Edit::NodeToConstant),
        n().prop_map(Edit::UnlistInput),
        n().prop_map(Edit::SetTensor),
    ];
    prop::collection::vec(edit, 0..40)
}

/// What may be read at `position` in the order.
fn available(graph: &Graph, position: usize) -> Vec<ValueId> {
    let made = graph.order()[..position].iter().flat_map(|&id| graph.node(id).outputs().iter().copied().flatten());
    let given = graph.values().filter(|(_, value)| !matches!(value.origin(), Origin::Output(..))).map(|(id, _)| id);
    given.chain(made).collect()
}

fn pick<T: Copy>(list: &[T], index: usize) -> Option<T> {
    list.get(index % list.len().max(1)).copied()
}

/// Makes the edit where it keeps the order of execution; what the graph refuses must change nothing.
fn apply(model: &mut Model, edit: &Edit) -> Option<()> {
    let graph = model.graph_mut();
    let order = graph.order().to_vec();
    let values = graph.values().map(|(id, _)| id).collect::<Vec<_>>();
    let at = |node: NodeId| order.iter().position(|&id| id == node).expect("picked from the order");
    match *edit {
        Edit::AddConstant => drop(graph.add_constant("w", number(""))),
        Edit::InsertBefore(node, a, b) => {
            let node = pick(&order, node)?;
            let readable = available(graph, at(node));
            let inputs = vec![pick(&readable, a), None, pick(&readable, b)];
            let outputs = vec!["a".to_owned(), "deep0".to_owned()];
            graph
                .insert_before(node, NewNode { op_type: "Sum", name: "n".into(), inputs, outputs, attributes: vec![] });
        }
        Edit::InsertAfter(node, a) => {
            let node = pick(&order, node)?;
            let input = pick(&available(graph, at(node) + 1), a)?;
            graph.insert_after(node, relu(input, "r"));
        }
        Edit::SetInput(node, slot, a) => {
            let node = pick(&order, node)?;
            let value = pick(&available(graph, at(node)), a).filter(|_| a % 5 != 0);
            graph.set_input(node, slot, value);
        }
        Edit::ReplaceUses(old, new) => {
            let old = pick(&values, old)?;
            let first = graph.value(old).uses().iter().filter_map(|user| match user {
                Use::Input(node, _) => Some(at(*node)),
                _ => None,
            });
            let new = pick(&available(graph, first.min().unwrap_or(0)), new)?;
            graph.replace_uses(old, new).ok()?;
        }
        Edit::TruncateInputs(node, len) => graph.truncate_inputs(pick(&order, node)?, len),
        Edit::TruncateOutputs(node, len) => graph.truncate_outputs(pick(&order, node)?, len).ok()?,
        Edit::TakeOver(node, value) => {
            let value = pick(&values, value)?;
            // Only an earlier node may take a value over, or one that nothing but outputs reads.
            let node = match graph.value(value).origin() {
                Origin::Output(maker, _) => order[node % (at(maker) + 1)],
                _ => pick(&order, node)?,
            };
            graph.take_over_output(node, 0, value).ok()?;
        }
        Edit::SwapOutputs(a, b) => {
            let (a, b) = (pick(&order, a)?, pick(&order, b)?);
            let between = (at(a).min(at(b)) + 1)..=at(a).max(at(b));
            let outputs = [graph.node(a).output(0), graph.node(b).output(0)];
            let read_between = order[between].iter().any(|&id| {
                let node = graph.node(id);
                outputs.iter().flatten().any(|out| node.inputs().contains(&Some(*out)) || node.captures().contains(out))
            });
            (!read_between).then(|| graph.swap_outputs(a, 0, b))?;
        }
        Edit::RemoveNode(node) => graph.remove_node(pick(&order, node)?).ok()?,
        Edit::RemoveIfUnused(value) => graph.remove_if_unused(pick(&values, value)?),
        Edit::NodeToConstant(node) => drop(graph.node_to_constant(pick(&order, node)?, number("")).ok()?),
        Edit::UnlistInput(value) => graph.unlist_input(pick(&values, value)?),
        Edit::SetTensor(value) => {
            let value = pick(graph.initializers(), value)?;
            graph.set_tensor(value, tensor::from_f32(&[2], &[1.0, 2.0]));
        }
    }
    Some(())
}

fn starting_point() -> GraphProto {
    let nodes = vec![
        node("Relu", &["x"], &["a"]),
        node("Split", &["a"], &["b", "d"]),
        nested(2, "b"),
        branching("c", "z", vec![node("Add", &["w", "a"], &["inner"])], "inner"),
        node("Sum", &["d", "v", "", "y"], &["s"]),
        node("Relu", &["s"], &["t"]),
    ];
    graph("x c v", "v w", nodes, "t z")
}

proptest! {
    #[test]
    fn random_edits_leave_no_violation(edits in edits()) {
        let mut model = model(starting_point());
        for edit in &edits {
            let before = model.to_proto();
            if apply(&mut model, edit).is_none() {
                prop_assert_eq!(&model.to_proto(), &before, "refused {:?}", edit);
            }
            let found = verify(&model);
            prop_assert!(found.is_empty(), "after {:?}: {:?}", edit, found);
        }
        let written = model.to_proto();
        let again = Model::from_proto(written.clone());
        prop_assert_eq!(again.map(|again| again.to_proto()), Ok(written.clone()));
        let outputs = written.graph.unwrap().output;
        prop_assert_eq!(outputs.iter().map(|port| port.name()).collect::<HashSet<_>>(), HashSet::from(["t", "z"]));
    }
}
