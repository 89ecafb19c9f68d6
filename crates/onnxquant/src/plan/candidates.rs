//! What could run on codes, from the graph and the sizes of its values alone.

use std::collections::{HashMap, HashSet};

use onnxquant_ir::{Graph, NodeId, ValueId};
use onnxquant_passes::cpu::Cpu;
use onnxquant_passes::integer::costs::{Alternative, Costs, Served};
use onnxquant_passes::integer::kernels::{Kernel, Unit, find_units};
use onnxquant_passes::integer::regions::{Regions, choose_regions};
use onnxquant_passes::integer::speed::expected_speeds;
use onnxquant_passes::sites::{LayerId, Site};

use crate::config::{Activations, Config, Target};
use crate::plan::exposed::exposed;

/// Where nobody asked for codes of activations the model must take at most this part of its time with them: a smaller gain,
/// which is estimated, is not worth what they cost in accuracy.
const WORTHWHILE: f64 = 0.85;

/// What could run on codes. All assignments of a run share it.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    units: Vec<Unit>,
    costs: Costs,
    /// The part of the time in float that regions may take.
    worthwhile: f64,
    target: Target,
    cpu: Cpu,
    /// Values that make outputs without a layer in between.
    exposed: HashSet<ValueId>,
}

impl Candidates {
    /// The operators of `graph` that `config` lets run on codes; `sizes` are the elements of its values in one sample.
    pub(crate) fn new(
        graph: &Graph,
        sites: &HashMap<NodeId, Site>,
        sizes: HashMap<ValueId, usize>,
        config: &Config,
    ) -> Self {
        let mut units = find_units(graph, sites, |value| sizes.contains_key(&value));
        if config.power_of_two {
            units.retain(|unit| !matches!(unit.kernel, Kernel::Rescale(factor) if factor.log2().fract() != 0.0));
        }
        if config.is_signed() && config.saturates() {
            // Products of two activations: no rule binds their codes.
            units.retain(|unit| unit.kernel != Kernel::Product);
        }
        if !config.target.takes().int32_biases {
            units.retain(|unit| !adds_bias(graph, sites, unit));
        }
        let is_asked_for = config.activations == Activations::Static;
        units.iter_mut().for_each(|unit| unit.is_wanted = is_asked_for && unit.kernel == Kernel::Linear);
        let alternative = match config.activations {
            Activations::Static | Activations::Float => Alternative::WeightOnly,
            _ => Alternative::Dynamic,
        };
        let worthwhile = if is_asked_for { f64::INFINITY } else { WORTHWHILE };
        let costs = Costs::new(graph, sites, sizes, alternative, config.cpu);
        Self { units, costs, worthwhile, target: config.target, cpu: config.cpu, exposed: exposed(graph) }
    }

    /// The operators, in topological order.
    pub(super) fn units(&self) -> &[Unit] {
        &self.units
    }

    /// What they cost.
    pub(super) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// What the written model is for.
    pub(super) fn target(&self) -> Target {
        self.target
    }

    /// Where integer products must be exact.
    pub(super) fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Whether `value` makes an output without a layer in between.
    pub(super) fn is_exposed(&self, value: ValueId) -> bool {
        self.exposed.contains(&value)
    }

    /// The upper end of the Clip that vanishes into the range of `value`.
    pub(super) fn ceiling(&self, value: ValueId) -> Option<f32> {
        self.units.iter().find_map(|unit| unit.ceiling.filter(|_| unit.outputs.contains(&value)))
    }

    /// The regions that take the least time without the nodes `float`, where that is worthwhile, or with all other layers
    /// where these were asked for; for accelerators all that is left.
    pub(super) fn regions(&self, graph: &Graph, float: &HashSet<NodeId>) -> Regions {
        if self.target.takes().is_strict {
            let coded = self.units.iter().filter(|unit| !float.contains(&unit.node)).cloned().collect();
            return Regions::of(graph, coded);
        }
        let regions = choose_regions(graph, &self.units, &self.costs, float);
        match regions.relative_time > self.worthwhile {
            true => Regions { relative_time: 1.0, ..Regions::default() },
            false => regions,
        }
    }

    /// How many times as fast as in float the model is expected to be, by class of processors, with these regions and with
    /// the layers beside them served so. Nothing where time does not count, or a layer is of unknown size.
    pub(super) fn speeds(&self, graph: &Graph, regions: &Regions, served: &HashMap<NodeId, Served>) -> Vec<(Cpu, f64)> {
        let is_known = served.keys().all(|layer| self.costs.knows(*layer));
        match self.target {
            Target::OrtCpu if is_known => expected_speeds(graph, &self.units, &self.costs, regions, served),
            _ => Vec::new(),
        }
    }

    /// Whether these layers save enough by quantizing their inputs at run time, beside these regions and on every class of
    /// processors; so they do where that is not known.
    pub(super) fn is_worthwhile(&self, graph: &Graph, regions: &Regions, dynamic: &HashSet<LayerId>) -> bool {
        let speeds = |served: &dyn Fn(NodeId) -> Served| {
            let served = dynamic.iter().map(|layer| (layer.node(), served(layer.node()))).collect();
            self.speeds(graph, regions, &served)
        };
        let without = speeds(&|layer| if self.costs.nbits_pays(layer) { Served::NBits(8) } else { Served::Float });
        let with = speeds(&|_| Served::Dynamic);
        with.iter().zip(&without).all(|((_, with), (_, without))| without / with <= WORTHWHILE)
    }

    /// By unit: the last layer before it, or itself where none is.
    pub(super) fn leader_of(&self) -> HashMap<NodeId, NodeId> {
        let mut leader_of: HashMap<NodeId, NodeId> = HashMap::new();
        let mut made_by: HashMap<ValueId, NodeId> = HashMap::new();
        for unit in &self.units {
            let before = unit.inputs.iter().find_map(|(_, value)| made_by.get(value));
            let leader = match before.filter(|_| unit.kernel != Kernel::Linear) {
                Some(before) => leader_of[before],
                None => unit.node,
            };
            leader_of.insert(unit.node, leader);
            made_by.extend(unit.outputs.iter().map(|value| (*value, unit.node)));
        }
        leader_of
    }

    /// MatMuls and what is not fed, over units alone, by a Conv: transformers lose too much on fixed scales.
    pub(super) fn not_behind_convolutions(&self, graph: &Graph) -> HashSet<NodeId> {
        let mut behind: HashSet<ValueId> = HashSet::new();
        let mut float = HashSet::new();
        for unit in &self.units {
            let node = graph.node(unit.node);
            let fed = unit.inputs.iter().any(|(_, value)| behind.contains(value));
            let starts = unit.kernel == Kernel::Linear && !node.is("MatMul");
            if unit.kernel != Kernel::Product && (starts || fed) {
                behind.extend(&unit.outputs);
            } else if unit.kernel != Kernel::Movement {
                float.insert(unit.node);
            }
        }
        float
    }
}

/// Whether the unit adds the bias of a layer.
fn adds_bias(graph: &Graph, sites: &HashMap<NodeId, Site>, unit: &Unit) -> bool {
    let is_constant = |value: ValueId| graph.value(value).constant().is_some();
    let is_product = |value: ValueId| graph.producer(value).is_some_and(|(node, _)| sites.contains_key(&node));
    let mut inputs = unit.inputs.iter().map(|(_, value)| *value);
    graph.node(unit.node).is("Add") && inputs.clone().any(is_constant) && inputs.any(is_product)
}

/// The values that a unit reads and makes.
pub(crate) fn values_of(unit: &Unit) -> impl Iterator<Item = ValueId> {
    unit.inputs.iter().map(|(_, value)| *value).chain(unit.outputs.iter().copied())
}

#[cfg(test)]
#[path = "candidates_tests.rs"]
mod tests;
