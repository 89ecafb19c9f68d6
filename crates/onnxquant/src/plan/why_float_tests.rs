use std::collections::HashMap;

use onnxquant_ir::Model;

use super::*;
use crate::config::{Config, Target};
use crate::plan::candidates::Candidates;
use crate::plan::layers::Plan;
use crate::testing::{constant, model, node};

/// A Conv, a ConvTranspose, a MatMul, and a Gemm whose bias is a matrix.
fn network() -> Model {
    let nodes = vec![
        node("Conv", &["x", "k"], "a"),
        node("ConvTranspose", &["a", "k"], "b"),
        node("MatMul", &["b", "w"], "c"),
        node("Gemm", &["z", "w", "m"], "d"),
    ];
    let constants = vec![
        constant("k", &[1, 1, 1, 1], &[0.5]),
        constant("w", &[2, 2], &[0.5, 1.0, -1.0, 0.25]),
        constant("m", &[2, 2], &[0.1, 0.2, 0.3, 0.4]),
    ];
    model(&["x", "z"], nodes, constants, &["c", "d"])
}

/// What is said of every layer, where those of `unseen` inputs are not computed.
fn reasons(activations: Activations, unseen: &str) -> Vec<Option<WhyFloat>> {
    let model = network();
    let graph = model.graph();
    let config = Config { activations, target: Target::OrtCpu, ..Config::default() };
    let plan = Plan::new(&model, &config).expect("every layer can be written");
    let name = |layer: &PlannedLayer| graph.value(layer.site.input).name().to_owned();
    let seen = plan.layers.iter().filter(|layer| name(layer) != unseen);
    let sites: HashMap<_, _> = seen.map(|layer| (layer.site.node, layer.site.clone())).collect();
    let values = graph.inputs().iter().map(|port| port.value);
    let values = values.chain(graph.nodes().flat_map(|(_, node)| node.outputs().iter().copied().flatten()));
    let sizes = values.map(|value| (value, 4)).collect();
    let candidates = Candidates::new(graph, &sites, sizes, &config);
    // Without scales nothing in a region counts as being on codes.
    let assignment = Assignment::new(graph, candidates, &sites, activations);
    let why = |layer: &PlannedLayer| WhyFloat::of(graph, layer, &assignment, activations, name(layer) != unseen);
    plan.layers.iter().map(why).collect()
}

#[test]
fn every_layer_that_stays_in_float_has_its_reason() {
    let fixed = reasons(Activations::Static, "b");
    let expected = [WhyFloat::Accuracy, WhyFloat::NoKernel, WhyFloat::NotComputed, WhyFloat::Bias];
    assert_eq!(fixed, expected.map(Some));
    let dynamic = reasons(Activations::Dynamic, "z");
    let conv = Some(WhyFloat::NoDynamicKernel);
    assert_eq!(dynamic, [conv, conv, None, Some(WhyFloat::NotComputed)]);
    assert_eq!(reasons(Activations::Auto, "b"), [None; 4], "nobody asked for integers there");
}

#[test]
fn reasons_are_words() {
    let all = [
        WhyFloat::Type(DataType::Float16),
        WhyFloat::NoKernel,
        WhyFloat::NoDynamicKernel,
        WhyFloat::Bias,
        WhyFloat::NotComputed,
        WhyFloat::Beside,
        WhyFloat::Accuracy,
    ];
    let texts: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), all.len());
    assert!(texts.iter().any(|text| text.contains("FLOAT16")));
}
