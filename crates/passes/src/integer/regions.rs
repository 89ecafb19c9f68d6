//! Chooses the regions of a graph that run on 8-bit codes.
//!
//! # Problem
//!
//! Every [`Unit`] runs on codes or in float. Each choice has its time; besides, wherever codes meet floats a
//! `QuantizeLinear` or `DequantizeLinear` goes over the whole tensor. A single Conv among float nodes may cost more
//! than it saves, and a slow integer kernel may pay because the chain around it stays on codes.
//!
//! # Method
//!
//! The sum of all times is least for a minimum cut between a source (codes) and a sink (floats):
//!
//! ```text
//! source -> unit        time in float               a value made by p and read by r...
//! unit   -> sink        time on codes               p -> b     DequantizeLinear,   b -> r   infinite
//!                                                   a -> p     QuantizeLinear,     r -> a   infinite
//! ```
//!
//! `b` stands with the floats if any reader does, `a` with the codes if any reader does, so that a value is
//! converted once, however many read it. The minimum over all 2^units choices is found exactly.
//!
//! # Cost
//!
//! A maximum flow over some thousand edges, once for each class of processors that counts; milliseconds.
//!
//! # References
//!
//! Greig, Porteous, Seheult, *Exact maximum a posteriori estimation for binary images*, 1989 (energies of this form).

use std::collections::{HashMap, HashSet};

use onnxquant_ir::{Graph, Node, NodeId, Origin, Use, ValueId};
use onnxquant_quant::ActivationParams;
use petgraph::algo::ford_fulkerson;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::costs::Costs;
use super::costs::class::ClassCosts;
use super::kernels::{Kernel, Unit};

/// More than any sum of times, and far from overflow.
const NEVER: u64 = 1 << 50;

/// A tensor that is stored as codes.
#[derive(Clone, Debug, PartialEq)]
pub struct CodedTensor {
    /// The float value.
    pub value: ValueId,
    /// Tensors of one class have one zero point, and one scale up to their factor.
    pub class: usize,
    /// The scale over that of the class.
    pub factor: f32,
    /// The tensor has the codes of this one.
    pub codes_of: Option<ValueId>,
    /// Inputs that read the decoded codes.
    pub readers: Vec<(NodeId, usize)>,
    /// The value is a graph output, which is decoded from the codes.
    pub is_output: bool,
}

/// The chosen regions.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    /// Units that run on codes, in execution order.
    pub units: Vec<Unit>,
    /// The tensors between them and at their borders.
    pub tensors: Vec<CodedTensor>,
    /// By class: the value whose range gives the scale.
    pub classes: Vec<ValueId>,
    /// Estimated time of the whole graph relative to float, on the class of processors where that is most; 1 where no
    /// region pays.
    pub relative_time: f64,
}

impl CodedTensor {
    /// Scale and zero point, from those of the class.
    pub fn params(&self, classes: &[ActivationParams]) -> ActivationParams {
        classes[self.class].times(self.factor)
    }
}

impl Regions {
    /// These units on codes, whatever time it takes.
    pub fn of(graph: &Graph, units: Vec<Unit>) -> Regions {
        let (tensors, classes) = coded_tensors(graph, &units);
        Regions { units, tensors, classes, relative_time: 1.0 }
    }
}

/// The regions that take the least time with the units that are [wanted](Unit::is_wanted) on codes: the cut of one class of
/// processors whose time relative to float is least on the class where it is worst. None where that is slower than float and
/// nobody wants it. `float` names nodes that must stay in float, wanted or not.
pub fn choose_regions(graph: &Graph, units: &[Unit], costs: &Costs, float: &HashSet<NodeId>) -> Regions {
    let regions = costs.classes().map(|class| {
        let chosen = cut(graph, units, &class, float);
        let coded = units.iter().zip(&chosen).filter(|(_, coded)| **coded).map(|(unit, _)| unit.clone()).collect();
        let regions = Regions::of(graph, coded);
        Regions { relative_time: worst_time(graph, units, costs, &regions), ..regions }
    });
    let best = regions.min_by(|a, b| a.relative_time.total_cmp(&b.relative_time));
    let is_wanted = units.iter().any(|unit| unit.is_wanted && !float.contains(&unit.node));
    best.filter(|regions| is_wanted || regions.relative_time <= 1.0).unwrap_or_else(|| Regions::of(graph, Vec::new()))
}

/// Estimated time of the graph with these regions over that without any, on the class where that is most.
fn worst_time(graph: &Graph, units: &[Unit], costs: &Costs, regions: &Regions) -> f64 {
    costs.classes().map(|class| relative_time(graph, units, &class, regions)).fold(0.0, f64::max)
}

/// For every unit whether it stands on the side of the codes.
fn cut(graph: &Graph, units: &[Unit], costs: &ClassCosts<'_>, float: &HashSet<NodeId>) -> Vec<bool> {
    let mut network = DiGraph::<(), u64>::new();
    let (source, sink) = (network.add_node(()), network.add_node(()));
    let nodes: Vec<NodeIndex> = units.iter().map(|_| network.add_node(())).collect();
    let owner: HashMap<NodeId, usize> = units
        .iter()
        .enumerate()
        .flat_map(|(i, unit)| [Some(unit.node), unit.tail].into_iter().flatten().map(move |n| (n, i)))
        .collect();
    let maker: HashMap<ValueId, usize> =
        units.iter().enumerate().flat_map(|(i, unit)| unit.outputs.iter().map(move |value| (*value, i))).collect();
    for (unit, &node) in units.iter().zip(&nodes) {
        let is_float = float.contains(&unit.node);
        let on_codes = if is_float { NEVER } else { costs.on_codes(graph, unit) };
        let in_float = if unit.is_wanted && !is_float { NEVER } else { costs.in_float(graph, unit) };
        network.add_edge(source, node, in_float);
        network.add_edge(node, sink, on_codes);
    }
    let mut values: Vec<ValueId> =
        units.iter().flat_map(|unit| unit.inputs.iter().map(|(_, v)| *v).chain(unit.outputs.iter().copied())).collect();
    values.sort_unstable();
    values.dedup();
    for value in values.into_iter().filter(|value| graph.value(*value).origin() != Origin::Constant) {
        // Whoever reads it as codes, if it can.
        let reads_codes = |user: &Use| match user {
            Use::Input(node, slot) => owner
                .get(node)
                .copied()
                .filter(|&i| units[i].node == *node && units[i].inputs.iter().any(|(s, v)| s == slot && *v == value)),
            _ => None,
        };
        let uses = graph.value(value).uses();
        let readers: Vec<usize> = uses.iter().filter_map(reads_codes).collect();
        let always_float = readers.len() < uses.len();
        let producer = maker.get(&value).map(|&i| nodes[i]);
        let wanted = network.add_node(());
        network.add_edge(wanted, producer.unwrap_or(sink), costs.quantize(value));
        for &reader in &readers {
            network.add_edge(nodes[reader], wanted, NEVER);
        }
        let Some(&made_by) = maker.get(&value) else { continue };
        let decode = match units[made_by].may_write_floats(graph) {
            true => 0,
            false => costs.dequantize(value),
        };
        if always_float {
            network.add_edge(nodes[made_by], sink, decode);
        } else {
            let floats = network.add_node(());
            network.add_edge(nodes[made_by], floats, decode);
            for &reader in &readers {
                network.add_edge(floats, nodes[reader], NEVER);
            }
        }
    }
    let reached = source_side(&network, source, sink);
    nodes.iter().map(|node| reached.contains(node)).collect()
}

/// The nodes that the source still reaches when the network is saturated.
fn source_side(network: &DiGraph<(), u64>, source: NodeIndex, sink: NodeIndex) -> HashSet<NodeIndex> {
    let (_, flows) = ford_fulkerson(network, source, sink);
    let mut reached = HashSet::from([source]);
    let mut open = vec![source];
    while let Some(node) = open.pop() {
        let onward = network.edges_directed(node, petgraph::Outgoing);
        let onward = onward.filter(|edge| flows[edge.id().index()] < *edge.weight()).map(|edge| edge.target());
        let back = network.edges_directed(node, petgraph::Incoming);
        let back = back.filter(|edge| flows[edge.id().index()] > 0).map(|edge| edge.source());
        for next in onward.chain(back).collect::<Vec<_>>() {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}

/// Estimated time of the graph with these regions over that without any.
fn relative_time(graph: &Graph, units: &[Unit], costs: &ClassCosts<'_>, regions: &Regions) -> f64 {
    let without = time_without_regions(graph, units, costs);
    time_with_regions(graph, without, costs, regions) / without.max(1.0)
}

/// Estimated time of the graph without regions.
pub(super) fn time_without_regions(graph: &Graph, units: &[Unit], costs: &ClassCosts<'_>) -> f64 {
    let known: HashMap<NodeId, &Unit> = units.iter().map(|unit| (unit.node, unit)).collect();
    let tails: HashSet<NodeId> = units.iter().filter_map(|unit| unit.tail).collect();
    let time = |(id, node): (NodeId, &Node)| match known.get(&id) {
        Some(unit) => costs.in_float(graph, unit) as f64,
        None if tails.contains(&id) => 0.0,
        None => costs.other(node),
    };
    graph.nodes().map(time).sum()
}

/// The same with these, from the time without.
pub(super) fn time_with_regions(graph: &Graph, without: f64, costs: &ClassCosts<'_>, regions: &Regions) -> f64 {
    let saved: f64 = regions.units.iter().map(|unit| costs.unit(graph, unit).saved()).sum();
    without - saved + conversions(graph, costs, regions)
}

/// Time of the conversions: Q before regions and DQ behind them.
fn conversions(graph: &Graph, costs: &ClassCosts<'_>, regions: &Regions) -> f64 {
    let made: Vec<ValueId> = regions.units.iter().flat_map(|unit| unit.outputs.iter().copied()).collect();
    let reads = |node: NodeId| regions.units.iter().any(|unit| unit.node == node);
    let conversion = |tensor: &CodedTensor| {
        if graph.value(tensor.value).constant().is_some() {
            0
        } else if !made.contains(&tensor.value) {
            costs.quantize(tensor.value)
        } else if tensor.is_output || tensor.readers.iter().any(|(node, _)| !reads(*node)) {
            costs.dequantize(tensor.value)
        } else {
            0
        }
    };
    regions.tensors.iter().map(|tensor| conversion(tensor) as f64).sum()
}

/// The tensors that units on codes read and write, and their classes.
fn coded_tensors(graph: &Graph, units: &[Unit]) -> (Vec<CodedTensor>, Vec<ValueId>) {
    let reads: HashSet<(NodeId, usize)> =
        units.iter().flat_map(|unit| unit.inputs.iter().map(|(slot, _)| (unit.node, *slot))).collect();
    let mut made: HashMap<ValueId, &Unit> = HashMap::new();
    let mut values: Vec<ValueId> = Vec::new();
    for unit in units {
        values.extend(unit.inputs.iter().map(|(_, value)| *value));
        made.extend(unit.outputs.iter().map(|value| (*value, unit)));
        values.extend(unit.outputs.iter().filter(|value| {
            let uses = graph.value(**value).uses();
            let coded = |user: &Use| matches!(user, Use::Input(node, slot) if reads.contains(&(*node, *slot)));
            !unit.may_write_floats(graph) || uses.iter().any(coded)
        }));
    }
    let mut seen = HashSet::new();
    values.retain(|value| seen.insert(*value));
    // The class of a moved value is that of the value it came from, which stands earlier.
    let mut classes: Vec<ValueId> = Vec::new();
    let mut class_of: HashMap<ValueId, (usize, f32)> = HashMap::new();
    let mut tensors = Vec::new();
    for value in values {
        let (from, times) = match made.get(&value).map(|unit| (unit.kernel, unit.inputs[0].1)) {
            Some((Kernel::Movement, from)) => (Some(from), 1.0),
            Some((Kernel::Rescale(factor), from)) => (Some(from), factor),
            _ => (None, 1.0),
        };
        let codes_of = from.filter(|_| matches!(made.get(&value).map(|unit| unit.kernel), Some(Kernel::Rescale(_))));
        let known = from.and_then(|from| class_of.get(&from)).map(|&(class, factor)| (class, factor * times));
        let (class, factor) = known.unwrap_or_else(|| {
            classes.push(value);
            (classes.len() - 1, 1.0)
        });
        class_of.insert(value, (class, factor));
        let from_codes = made.contains_key(&value);
        let inputs = graph.value(value).uses().iter().filter_map(|user| match user {
            Use::Input(node, slot) if from_codes || reads.contains(&(*node, *slot)) => Some((*node, *slot)),
            _ => None,
        });
        let readers = inputs.collect();
        let is_output = from_codes && graph.is_output(value);
        tensors.push(CodedTensor { value, class, factor, codes_of, readers, is_output });
    }
    (tensors, classes)
}

#[cfg(test)]
#[path = "regions_tests.rs"]
mod tests;
