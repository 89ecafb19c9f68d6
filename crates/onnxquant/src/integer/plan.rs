//! Which operators run on codes, and what becomes of each layer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Model, NodeId, ValueId};
use onnxquant_passes::cpu::Cpu;
use onnxquant_passes::integer::costs::{Alternative, Costs};
use onnxquant_passes::integer::kernels::{Kernel, Unit, find_units};
use onnxquant_passes::integer::regions::{Regions, choose_regions};
use onnxquant_passes::sites::{LayerId, Site};
use onnxquant_passes::write_dynamic::is_supported;
use onnxquant_quant::ActivationParams;

use super::retreat::Retreat;
use super::scales::{Histograms, Scales};
use crate::config::{Activations, Config, Target};
use crate::error::Error;
use crate::observe::Observer;
use crate::plan::{Plan, PlannedLayer};

/// Regions must take at most this part of the time in float.
const WORTHWHILE: f64 = 0.97;

/// How a layer computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    /// Activations are floats.
    WeightOnly,
    /// In a region; the codes of its input have this scale.
    Static { input_scale: f32 },
    /// The input is quantized at run time.
    Dynamic,
}

/// What does not depend on the choice of regions.
#[derive(Debug, Default)]
struct Known {
    units: Vec<Unit>,
    costs: Costs,
    target: Target,
    cpu: Cpu,
}

/// Which layers run on integers. Copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntegerPlan {
    known: Arc<Known>,
    scales: Arc<Scales>,
    distributions: Arc<Histograms>,
    /// Nodes that are not to run on codes.
    float: HashSet<NodeId>,
    /// Layers whose inputs are quantized at run time.
    pub(crate) dynamic: HashSet<LayerId>,
    /// What runs on codes with fixed scales.
    pub(crate) regions: Regions,
    /// By class of `regions`.
    pub(crate) params: Vec<ActivationParams>,
    /// Tensors whose codes have 16 bits where those of others have 8, and the leaders for which they got them.
    wide: HashSet<ValueId>,
    widened: HashSet<NodeId>,
    /// Of the first input, by node on codes.
    input_scales: HashMap<NodeId, f32>,
    /// Values whose channels were rescaled, and evened out.
    pub(super) rescaled: usize,
    pub(super) equalized: usize,
    /// How layers went back to float activations.
    pub(crate) retreat: Retreat,
}

impl IntegerPlan {
    /// The plan that takes the least time, without scales yet.
    pub(super) fn new(model: &Model, plan: &Plan, config: &Config, observer: &Observer<'_>) -> Result<Self, Error> {
        let graph = model.graph();
        let behind = observer.calibration().reach.behind(graph);
        let sites = sites(plan, |value| behind.contains_key(&value));
        let sizes = sizes(model, &sites, observer, |value| behind.contains_key(&value))?;
        let alternative = match config.activations {
            Activations::Static => Alternative::WeightOnly,
            _ => Alternative::Dynamic,
        };
        let mut units = find_units(graph, &sites, |value| sizes.contains_key(&value));
        if config.power_of_two {
            units.retain(|unit| !matches!(unit.kernel, Kernel::Rescale(factor) if factor.log2().fract() != 0.0));
        }
        if config.signed_activations && config.cpu.saturates() {
            // Products of two activations: no rule binds their codes.
            units.retain(|unit| unit.kernel != Kernel::Product);
        }
        let costs = Costs::new(graph, &sites, sizes, alternative);
        let mut found =
            Self { known: Arc::new(Known { units, costs, target: config.target, cpu: config.cpu }), ..Self::default() };
        found.float = match config.activations {
            Activations::Static => HashSet::new(),
            Activations::Auto => found.not_behind_convolutions(graph),
            _ => found.known.units.iter().map(|unit| unit.node).collect(),
        };
        found.choose(graph);
        if config.activations != Activations::Static {
            let coded: HashSet<NodeId> = found.regions.units.iter().map(|unit| unit.node).collect();
            let wanted =
                |node| config.activations == Activations::Dynamic || found.known.costs.dynamic_pays(graph, node);
            let dense =
                sites.iter().filter(|(node, site)| is_supported(site) && !coded.contains(node) && wanted(**node));
            found.dynamic = dense.map(|(_, site)| site.id()).collect();
        }
        Ok(found)
    }

    /// Whether a layer is in a region; scales need not be known yet.
    pub(super) fn is_static(&self, layer: LayerId) -> bool {
        self.regions.units.iter().any(|unit| unit.node == layer.node())
    }

    /// Whether the layer of this node gets its input quantized at run time.
    pub(super) fn is_dynamic(&self, node: NodeId) -> bool {
        self.dynamic.iter().any(|layer| layer.node() == node)
    }

    /// Whether anything runs on integers.
    pub(crate) fn is_empty(&self) -> bool {
        self.regions.units.is_empty() && self.dynamic.is_empty()
    }

    /// Whether channels may be added for the sake of the runtime's kernels.
    pub(crate) fn aligns_channels(&self) -> bool {
        self.known.target == Target::OrtCpu && !self.regions.units.is_empty()
    }

    /// Where integer products must be exact.
    pub(crate) fn cpu(&self) -> Cpu {
        self.known.cpu
    }

    /// How many layers run on integers.
    pub(crate) fn layers(&self) -> usize {
        let fixed = self.regions.units.iter().filter(|unit| unit.kernel == Kernel::Linear).count();
        fixed + self.dynamic.len()
    }

    /// How the weight of a layer is to be written.
    pub(crate) fn form(&self, layer: LayerId) -> Form {
        match self.input_scales.get(&layer.node()) {
            _ if self.dynamic.contains(&layer) => Form::Dynamic,
            Some(&input_scale) => Form::Static { input_scale },
            None => Form::WeightOnly,
        }
    }

    /// What the codes of tensors mean, and how that was found.
    pub(super) fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The distributions from which the scales were found.
    pub(super) fn distributions(&self) -> &Histograms {
        &self.distributions
    }

    /// Keeps the distributions from which the scales were found.
    pub(super) fn keep_distributions(&mut self, distributions: Histograms) {
        self.distributions = Arc::new(distributions);
    }

    /// Whether the codes of `value` have 16 bits where those of others have 8.
    pub(super) fn is_wide(&self, value: ValueId) -> bool {
        self.wide.contains(&value)
    }

    /// The upper end of the Clip that vanishes into the range of `value`.
    pub(super) fn ceiling(&self, value: ValueId) -> Option<f32> {
        self.known.units.iter().find_map(|unit| unit.ceiling.filter(|_| unit.outputs.contains(&value)))
    }

    /// Takes the scales of the tensors from `scales`.
    pub(crate) fn set_scales(&mut self, graph: &Graph, scales: Scales) -> Result<(), Error> {
        self.scales = Arc::new(scales);
        self.settle(graph)
    }

    /// Looks up what the regions' tensors mean now.
    fn settle(&mut self, graph: &Graph) -> Result<(), Error> {
        let params = self.regions.classes.iter().map(|value| Ok(self.scales.of(graph, *value)?.params));
        self.params = params.collect::<Result<Vec<_>, Error>>()?;
        let scales: HashMap<ValueId, f32> =
            self.regions.tensors.iter().map(|tensor| (tensor.value, tensor.params(&self.params).scale())).collect();
        let of_input = |unit: &Unit| Some((unit.node, *scales.get(&unit.inputs.first()?.1)?));
        self.input_scales = self.regions.units.iter().filter_map(of_input).collect();
        Ok(())
    }

    /// The layers that run on integers, each standing for itself and what follows it on codes.
    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let leader_of = self.leader_of();
        let coded = self.regions.units.iter().map(|unit| leader_of[&unit.node]);
        let leaders: BTreeSet<NodeId> = coded.chain(self.dynamic.iter().map(|layer| layer.node())).collect();
        leaders.into_iter().collect()
    }

    /// By unit: the last layer before it, or itself where none is.
    fn leader_of(&self) -> HashMap<NodeId, NodeId> {
        let mut leader_of: HashMap<NodeId, NodeId> = HashMap::new();
        let mut made_by: HashMap<ValueId, NodeId> = HashMap::new();
        for unit in &self.known.units {
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

    /// Gives the tensors of `leaders`, and of what follows them, codes of 16 bits.
    pub(super) fn widen(&mut self, graph: &Graph, leaders: &[NodeId], config: &Config) -> Result<(), Error> {
        let leader_of = self.leader_of();
        let units = self.regions.units.iter().filter(|unit| leaders.contains(&leader_of[&unit.node]));
        let values: HashSet<ValueId> = units.flat_map(values_of).collect();
        let tensors = self.regions.tensors.iter().filter(|tensor| values.contains(&tensor.value));
        let classes: BTreeSet<ValueId> = tensors.map(|tensor| self.regions.classes[tensor.class]).collect();
        self.wide.extend(&classes);
        self.widened.extend(leaders);
        let scales = self.scales.again(graph, self, &classes, config)?;
        self.set_scales(graph, scales)
    }

    /// The same plan with scales of `values` to be found for codes of 16 bits.
    pub(super) fn with_wide(&self, values: &[ValueId]) -> Self {
        let mut plan = self.clone();
        plan.wide.extend(values);
        plan
    }

    /// Whether the tensors of this leader got codes of 16 bits.
    pub(super) fn is_widened(&self, leader: NodeId) -> bool {
        self.widened.contains(&leader)
    }

    /// Keeps activations of `leaders` and what follows them in float and chooses anew.
    pub(crate) fn keep_in_float(&mut self, graph: &Graph, leaders: &[NodeId]) -> Result<(), Error> {
        let leader_of = self.leader_of();
        self.dynamic.retain(|layer| !leaders.contains(&layer.node()));
        let units = self.known.units.iter().map(|unit| unit.node);
        self.float.extend(units.filter(|node| leaders.contains(&leader_of[node])));
        self.choose(graph);
        self.settle(graph)
    }

    /// The same plan with nothing but `leader` and what follows it on integers.
    pub(crate) fn only(&self, graph: &Graph, leader: NodeId) -> Result<Self, Error> {
        let leader_of = self.leader_of();
        let coded = self.regions.units.iter().filter(|unit| leader_of[&unit.node] == leader).cloned().collect();
        let mut only = Self { regions: Regions::of(graph, coded), ..self.clone() };
        only.dynamic.retain(|layer| layer.node() == leader);
        only.settle(graph)?;
        Ok(only)
    }

    /// Time that `leader` and what follows it save on integers, without conversions at the ends of regions; 0 where none
    /// is saved, or time does not count.
    pub(super) fn saved_ns(&self, graph: &Graph, leader: NodeId) -> f64 {
        if self.known.target == Target::QdqStrict {
            return 0.0;
        }
        if self.is_dynamic(leader) {
            return self.known.costs.saved_dynamic(graph, leader).max(0.0);
        }
        let leader_of = self.leader_of();
        let units = self.regions.units.iter().filter(|unit| leader_of[&unit.node] == leader);
        units.map(|unit| self.known.costs.saved_on_codes(graph, unit)).sum::<f64>().max(0.0)
    }

    fn choose(&mut self, graph: &Graph) {
        if self.known.target == Target::QdqStrict {
            let coded = self.known.units.iter().filter(|unit| !self.float.contains(&unit.node)).cloned().collect();
            self.regions = Regions::of(graph, coded);
            return;
        }
        self.regions = choose_regions(graph, &self.known.units, &self.known.costs, &self.float);
        if self.regions.relative_time > WORTHWHILE {
            self.regions = Regions { relative_time: 1.0, ..Regions::default() };
        }
    }

    /// MatMuls and what is not fed, over units alone, by a Conv: transformers lose too much on fixed scales.
    fn not_behind_convolutions(&self, graph: &Graph) -> HashSet<NodeId> {
        let mut behind: HashSet<ValueId> = HashSet::new();
        let mut float = HashSet::new();
        for unit in &self.known.units {
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

/// The values that a unit reads and makes.
pub(super) fn values_of(unit: &Unit) -> impl Iterator<Item = ValueId> {
    unit.inputs.iter().map(|(_, value)| *value).chain(unit.outputs.iter().copied())
}

/// The layers of the plan that integers may serve; not those whose input is `unseen`.
fn sites(plan: &Plan, unseen: impl Fn(ValueId) -> bool) -> HashMap<NodeId, Site> {
    let is_usable = |layer: &&PlannedLayer| layer.site.dtype == DataType::Float && !unseen(layer.site.input);
    let usable = plan.layers.iter().filter(is_usable);
    usable.map(|layer| (layer.site.node, layer.site.clone())).collect()
}

/// Elements of every float value that a region could touch, in the first calibration sample, but for those `unseen`.
fn sizes(
    model: &Model,
    sites: &HashMap<NodeId, Site>,
    observer: &Observer<'_>,
    unseen: impl Fn(ValueId) -> bool,
) -> Result<HashMap<ValueId, usize>, Error> {
    let graph = model.graph();
    let candidates = find_units(graph, sites, |_| true);
    // The result of a layer tells its size, also where an activation behind it vanishes into the codes.
    let inner = |unit: &Unit| graph.node(unit.node).output(0);
    let touched = candidates
        .iter()
        .flat_map(|unit| values_of(unit).chain(inner(unit)))
        .filter(|value| graph.value(*value).constant().is_none());
    let values: BTreeSet<ValueId> = touched.filter(|value| !unseen(*value)).collect();
    let names: Vec<String> = values.iter().map(|value| graph.value(*value).name().to_owned()).collect();
    let sizes = observer.sizes(model, &names)?;
    Ok(values.into_iter().zip(sizes).filter_map(|(value, size)| Some((value, size?))).collect())
}
