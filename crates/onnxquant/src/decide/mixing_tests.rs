use onnxquant_ir::Node;

use super::*;
use crate::testing::{detector, names};

/// A unit for each node, layers for each Conv.
fn units(graph: &Graph) -> Vec<Unit> {
    let unit = |(id, node): (NodeId, &Node)| Unit {
        node: id,
        tail: None,
        ceiling: None,
        kernel: if node.is("Conv") { Kernel::Linear } else { Kernel::Elementwise },
        inputs: node.inputs().iter().copied().flatten().enumerate().collect(),
        outputs: node.outputs().iter().copied().flatten().collect(),
        is_wanted: false,
    };
    graph.nodes().map(unit).collect()
}

#[test]
fn an_input_is_ruined_by_much_more_error_than_its_own_scale_makes() {
    assert!(is_ruined(1.0, 0.001));
    assert!(!is_ruined(0.005, 1e-6), "what is left is exact enough");
    assert!(!is_ruined(0.5, 0.1), "its own scale is not much better");
    assert!(!is_ruined(f64::NAN, 0.0));
}

#[test]
fn a_concat_leaves_the_codes_with_what_hands_its_numbers_on_to_an_output() {
    let model = detector();
    let graph = model.graph();
    let units = units(graph);
    let by_node: HashMap<NodeId, &Unit> = units.iter().map(|unit| (unit.node, unit)).collect();
    let seen = seen_as_floats(graph, &by_node);
    // The sum is read by a layer alone.
    assert_eq!(names(graph, seen.iter().copied()), ["b", "both", "c", "pixels", "scores", "y", "z"]);
    let concat = units.iter().find(|unit| graph.node(unit.node).is("Concat")).unwrap();
    let mut found = HashSet::new();
    take_with_followers(graph, &by_node, &seen, concat, &mut found);
    let mut types: Vec<&str> = found.iter().map(|node| graph.node(*node).op_type()).collect();
    types.sort_unstable();
    assert_eq!(types, ["Concat", "Transpose"]);
}
