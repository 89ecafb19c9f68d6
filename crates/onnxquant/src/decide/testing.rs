//! Networks and scores for the tests of decisions.

use std::collections::HashMap;

use onnxquant_calib::Measurement;
use onnxquant_ir::{Model, NodeId};
use onnxquant_passes::sites::Site;
use onnxquant_quant::{Histogram, RangeMethod};

use crate::accuracy::Accuracy;
use crate::config::{Activations, Config, Target};
use crate::plan::assignment::Assignment;
use crate::plan::candidates::Candidates;
use crate::plan::layers::Plan;
use crate::plan::scales::{Histograms, Origin, Scales};
use crate::testing::{constant, model, node};

/// What was measured where the power of the error is this part of that of the outputs.
pub(super) fn of_power(power: f64) -> Measurement<Accuracy> {
    let sqnr_db = -10.0 * power.log10();
    Measurement::Measured(Accuracy {
        sqnr_db,
        worst_sample_db: sqnr_db,
        loss: power / 2.0,
        least_exact: None,
        tokens: None,
    })
}

/// Settings under which all that can run on codes does.
pub(super) fn strict() -> Config {
    Config { activations: Activations::Static, target: Target::QdqStrict, ..Config::default() }
}

/// `x -> Conv -> v1 -> Conv -> v2 ...`, so many in a row.
pub(super) fn chain(layers: usize) -> Model {
    let value = |at: usize| format!("v{at}");
    let weight = |layer: usize| constant(&format!("w{layer}"), &[2, 2, 1, 1], &[1.0, 0.5, -0.5, 1.0]);
    let conv = |layer: usize| node("Conv", &[&value(layer), &format!("w{layer}")], &value(layer + 1));
    let nodes = (0..layers).map(conv).collect();
    model(&["v0"], nodes, (0..layers).map(weight).collect(), &[&value(layers)])
}

/// Values about 1, and one so large that it may be cut off.
pub(super) fn histograms(model: &Model, largest: f32) -> Histograms {
    let of_value = |(id, _): (NodeId, _)| {
        let mut values: Vec<f32> = (0..20_000).map(|i| ((i % 201) as f32 - 100.0) / 100.0).collect();
        values.push(largest);
        let mut histogram = Histogram::new();
        histogram.push(&values).unwrap();
        let node = model.graph().node(id);
        node.input(0).into_iter().chain(node.output(0)).map(move |value| (value, histogram.clone())).collect::<Vec<_>>()
    };
    model.graph().nodes().map(|(id, node)| (id, node.op_type())).flat_map(of_value).collect()
}

/// All layers of a chain on codes.
pub(super) fn on_codes(model: &Model, config: &Config, histograms: Histograms) -> Assignment {
    let graph = model.graph();
    let plan = Plan::new(model, config).unwrap();
    let sites: HashMap<NodeId, Site> = plan.layers.iter().map(|layer| (layer.site.node, layer.site.clone())).collect();
    let values = graph.nodes().flat_map(|(_, node)| node.input(0).into_iter().chain(node.output(0)));
    let sizes = values.map(|value| (value, 1000)).collect();
    let candidates = Candidates::new(graph, &sites, sizes, config);
    let assignment = Assignment::new(graph, candidates, &sites, config.activations);
    let (range, rules) = (RangeMethod::MinMax, assignment.rules(graph, config));
    let scales = Scales::uniform(rules, assignment.values(), &histograms, range, Origin::Settings).unwrap();
    let assignment = assignment.on_scales(graph, scales).unwrap().with_distributions(histograms);
    assert_eq!(assignment.layers(), plan.layers.len());
    assignment
}
