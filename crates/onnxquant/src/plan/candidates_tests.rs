use onnxquant_ir::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use onnxquant_ir::{Model, tensor};

use super::*;
use crate::plan::layers::Plan;

/// `x -> Conv -> a -> Conv -> b`, and beside it a Softmax, which has no integer kernel.
fn model() -> Model {
    let info = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
    let node = |op_type: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: Some(op_type.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let weight = tensor::from_f32(&[64, 64, 3, 3], &[0.5; 64 * 64 * 9]);
    let graph = GraphProto {
        node: vec![node("Conv", &["x", "w"], "a"), node("Conv", &["a", "w"], "b"), node("Softmax", &["z"], "s")],
        initializer: vec![TensorProto { name: Some("w".to_owned()), ..weight }],
        input: vec![info("x"), info("z")],
        output: vec![info("b"), info("s")],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(21), ..OperatorSetIdProto::default() };
    let proto =
        ModelProto { ir_version: Some(10), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() };
    Model::from_proto(proto).expect("the model of a test is valid")
}

/// The regions beside a Softmax of so many elements.
fn regions(softmax: usize, activations: Activations) -> Regions {
    let model = model();
    let graph = model.graph();
    let config = Config { activations, ..Config::default() };
    let plan = Plan::new(&model, &config).expect("every layer can be written");
    let sites: HashMap<NodeId, Site> = plan.layers.iter().map(|layer| (layer.site.node, layer.site.clone())).collect();
    let values = graph.inputs().iter().map(|port| port.value);
    let values = values.chain(graph.nodes().flat_map(|(_, node)| node.outputs().iter().copied().flatten()));
    let of_softmax = |value: ValueId| ["z", "s"].contains(&graph.value(value).name());
    let sizes = values.map(|value| (value, if of_softmax(value) { softmax } else { 10_000 })).collect();
    Candidates::new(graph, &sites, sizes, &config).regions(graph, &HashSet::new())
}

#[test]
fn regions_that_save_less_than_fifteen_percent_are_for_those_who_ask_for_them() {
    // The gain of both layers is a tenth of the time, most of it, and next to nothing of it.
    for (softmax, asked, unasked) in [(2_000_000, 2, 0), (100_000, 2, 2), (100_000_000, 2, 0)] {
        let chosen = regions(softmax, Activations::Static);
        assert_eq!(chosen.units.len(), asked, "{softmax}: {}", chosen.relative_time);
        let auto = regions(softmax, Activations::Auto);
        assert_eq!(auto.units.len(), unasked, "{softmax}: {}", chosen.relative_time);
        let expected = if unasked == 0 { 1.0 } else { chosen.relative_time };
        assert_eq!(auto.relative_time, expected, "{softmax}");
    }
}
