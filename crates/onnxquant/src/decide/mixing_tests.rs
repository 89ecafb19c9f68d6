use onnxquant_ir::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use onnxquant_ir::{Model, Node};

use super::*;

fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// Boxes and scores in one output, scores also in a Conv; `k` is a constant.
fn detector() -> Model {
    let info = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
    let constant =
        TensorProto { name: Some("k".to_owned()), ..onnxquant_ir::tensor::from_f32(&[1, 1, 1, 1], &[120.0]) };
    let graph = GraphProto {
        node: vec![
            node("Conv", &["x", "k"], "b"),
            node("Conv", &["x", "k"], "c"),
            node("Mul", &["b", "k"], "pixels"),
            node("Sigmoid", &["c"], "scores"),
            node("Concat", &["pixels", "scores"], "both"),
            node("Transpose", &["both"], "y"),
            node("Conv", &["x", "k"], "d"),
            node("Add", &["d", "x"], "sum"),
            node("Relu", &["sum"], "r"),
            node("Conv", &["r", "k"], "z"),
        ],
        initializer: vec![constant],
        input: vec![info("x")],
        output: vec![info("y"), info("z")],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(17), ..OperatorSetIdProto::default() };
    let proto =
        ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() };
    Model::from_proto(proto).unwrap_or_else(|violations| panic!("{violations:?}"))
}

fn names(graph: &Graph, values: impl IntoIterator<Item = ValueId>) -> Vec<&str> {
    let mut names: Vec<&str> = values.into_iter().map(|value| graph.value(value).name()).collect();
    names.sort_unstable();
    names
}

/// A unit for each node, layers for each Conv.
fn units(graph: &Graph) -> Vec<Unit> {
    let unit = |(id, node): (NodeId, &Node)| Unit {
        node: id,
        tail: None,
        ceiling: None,
        kernel: if node.is("Conv") { Kernel::Linear } else { Kernel::Elementwise },
        inputs: node.inputs().iter().copied().flatten().enumerate().collect(),
        outputs: node.outputs().iter().copied().flatten().collect(),
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
