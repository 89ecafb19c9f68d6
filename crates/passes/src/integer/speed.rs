//! Estimates how many times as fast a written graph is as in float.

use std::collections::HashMap;

use onnxquant_ir::{Graph, NodeId};

use super::costs::{Costs, Served};
use super::kernels::Unit;
use super::regions::{Regions, time_with_regions, time_without_regions};
use crate::runtime::cpu::Cpu;

/// The time of `graph` in float over that with these regions and with the layers beside them `served` so, by class of
/// processors that counts. What of the graph is not of known size counts little.
pub fn expected_speeds(
    graph: &Graph,
    units: &[Unit],
    costs: &Costs,
    regions: &Regions,
    served: &HashMap<NodeId, Served>,
) -> Vec<(Cpu, f64)> {
    let speed = |float: f64, written: f64| if float > 0.0 { float / written.max(1.0) } else { 1.0 };
    // Sums of floats depend on their order.
    let mut beside: Vec<(NodeId, Served)> = served.iter().map(|(layer, served)| (*layer, *served)).collect();
    beside.sort_unstable_by_key(|(layer, _)| *layer);
    let classes = costs.classes().map(|class| {
        let class = class.against_floats();
        let float = time_without_regions(graph, units, &class);
        let beside: f64 = beside.iter().map(|(layer, served)| class.saved_as(graph, *layer, *served)).sum();
        (class.cpu(), speed(float, time_with_regions(graph, float, &class, regions) - beside))
    });
    classes.collect()
}

#[cfg(test)]
#[path = "speed_tests.rs"]
mod tests;
