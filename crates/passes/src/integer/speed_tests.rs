use onnxquant_ir::Model;

use super::*;
use crate::integer::costs::Alternative;
use crate::integer::kernels::find_units;
use crate::integer::regions::choose_regions;
use crate::testing::{floats, model, node, only_site, site_map};

/// What every value has as elements.
const SIZE: usize = 300_000;

fn costs(model: &Model, alternative: Alternative, cpu: Cpu) -> Costs {
    let graph = model.graph();
    let values = graph.inputs().iter().map(|port| port.value);
    let values = values.chain(graph.nodes().flat_map(|(_, node)| node.outputs().iter().copied().flatten()));
    Costs::new(graph, &site_map(model), values.map(|value| (value, SIZE)).collect(), alternative, cpu)
}

fn speeds(model: &Model, costs: &Costs, regions: &Regions, served: &HashMap<NodeId, Served>) -> Vec<(Cpu, f64)> {
    let units = find_units(model.graph(), &site_map(model), |_| true);
    expected_speeds(model.graph(), &units, costs, regions, served)
}

fn of_one_layer() -> Model {
    model("x", vec![("w", floats(&[600, 500], 1))], vec![node("MatMul", &["x", "w"], &["y"], vec![])], "y")
}

#[test]
fn layer_is_as_fast_as_it_is_served_whatever_regions_are_weighed_against() {
    let model = of_one_layer();
    let layer = only_site(&model).node;
    for alternative in [Alternative::WeightOnly, Alternative::Dynamic] {
        let costs = costs(&model, alternative, Cpu::Portable);
        let speed = |served| speeds(&model, &costs, &Regions::default(), &[(layer, served)].into());
        assert_eq!(speed(Served::Float), [(Cpu::Vnni, 1.0), (Cpu::Avx2, 1.0)]);
        // Of 8 bits it is faster with VNNI, and slower without.
        let [(_, vnni), (_, avx2)] = speed(Served::NBits(8))[..] else { panic!("there are two classes") };
        assert!(vnni > 1.2 && avx2 < 0.8, "{vnni} {avx2}");
        for (cpu, dynamic) in speed(Served::Dynamic) {
            assert!(dynamic > 1.5, "{cpu}: {dynamic}");
        }
    }
}

#[test]
fn regions_are_as_fast_as_their_time_says() {
    let weights = vec![("w", floats(&[64, 64, 3, 3], 1))];
    let nodes = vec![
        node("Conv", &["x", "w"], &["a"], vec![]),
        node("Conv", &["a", "w"], &["b"], vec![]),
        node("Softmax", &["b"], &["y"], vec![]),
    ];
    let model = model("x", weights, nodes, "y");
    let units = find_units(model.graph(), &site_map(&model), |_| true);
    let costs = costs(&model, Alternative::WeightOnly, Cpu::Vnni);
    let regions = choose_regions(model.graph(), &units, &costs, &Default::default());
    assert_eq!(regions.units.len(), 2);
    let [(Cpu::Vnni, speed)] = speeds(&model, &costs, &regions, &HashMap::new())[..] else { panic!("one class") };
    assert!((speed * regions.relative_time - 1.0).abs() < 1e-9 && speed > 1.5, "{speed}");
}
