//! Which operators run on codes, on which scales, and what becomes of each layer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use onnxquant_ir::{Graph, NodeId, ValueId};
use onnxquant_passes::cpu::Cpu;
use onnxquant_passes::integer::costs::Served;
use onnxquant_passes::integer::kernels::{Kernel, Unit};
use onnxquant_passes::integer::regions::Regions;
use onnxquant_passes::sites::{LayerId, Site};
use onnxquant_passes::weight_form::WeightForm;
use onnxquant_passes::write_caches::ScaledCaches;
use onnxquant_passes::write_dynamic::is_supported;
use onnxquant_quant::ActivationParams;

use crate::config::{Activations, Config, Target};
use crate::error::Error;
use crate::plan::candidates::{Candidates, values_of};
use crate::plan::layers::PlannedLayer;
use crate::plan::scales::{Histograms, Rules, Scales};

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

/// Which layers run on integers, and on which scales.
///
/// It does not change: what takes layers back or finds other scales makes another one of it, and both share what they
/// have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Assignment {
    candidates: Arc<Candidates>,
    scales: Arc<Scales>,
    distributions: Arc<Histograms>,
    /// Nodes that are not to run on codes.
    float: HashSet<NodeId>,
    /// Layers whose inputs are quantized at run time.
    dynamic: HashSet<LayerId>,
    /// What runs on codes with fixed scales.
    regions: Regions,
    /// By class of `regions`.
    params: Vec<ActivationParams>,
    /// Tensors whose codes have 16 bits where those of others have 8, and the leaders for which they got them.
    wide: HashSet<ValueId>,
    widened: HashSet<NodeId>,
    /// Of the first input, by node on codes.
    input_scales: HashMap<NodeId, f32>,
    /// Caches that are codes.
    caches: Arc<[ScaledCaches]>,
}

impl Assignment {
    /// What takes the least time, without scales yet; `sites` are the layers that integers may serve.
    pub(crate) fn new(
        graph: &Graph,
        candidates: Candidates,
        sites: &HashMap<NodeId, Site>,
        activations: Activations,
    ) -> Self {
        let float = match activations {
            Activations::Static => HashSet::new(),
            Activations::Auto => candidates.not_behind_convolutions(graph),
            _ => candidates.units().iter().map(|unit| unit.node).collect(),
        };
        let regions = candidates.regions(graph, &float);
        let mut dynamic = HashSet::new();
        if matches!(activations, Activations::Dynamic | Activations::Auto) {
            let coded: HashSet<NodeId> = regions.units.iter().map(|unit| unit.node).collect();
            let wanted = |node| activations == Activations::Dynamic || candidates.costs().dynamic_pays(graph, node);
            let dense =
                sites.iter().filter(|(node, site)| is_supported(site) && !coded.contains(node) && wanted(**node));
            dynamic = dense.map(|(_, site)| site.id()).collect();
        }
        if activations == Activations::Auto && !candidates.is_worthwhile(graph, &regions, &dynamic) {
            dynamic.clear();
        }
        Self { candidates: Arc::new(candidates), float, dynamic, regions, ..Self::default() }
    }

    /// Whether a MatMul or Gemm is as fast with codes of 8 bits in `MatMulNBits` as in float where the model is served; one
    /// of unknown size is.
    pub(crate) fn nbits_pays(&self, layer: NodeId) -> bool {
        self.candidates.costs().nbits_pays(layer)
    }

    /// How many times as fast as in float the model is expected to be, by class of processors, where its layers have these
    /// forms; nothing where that cannot be told.
    pub(crate) fn expected_speeds(&self, graph: &Graph, layers: &[PlannedLayer]) -> Vec<(Cpu, f64)> {
        let served = |layer: &PlannedLayer| {
            let served = match (self.form(layer.site.id()), layer.form) {
                (Form::Static { .. }, _) => Served::Codes,
                (Form::Dynamic, _) => Served::Dynamic,
                (Form::WeightOnly, WeightForm::NBits { bits, .. }) => Served::NBits(bits),
                (Form::WeightOnly, WeightForm::Folded(_)) => Served::Float,
                // It depends on the version whether that is fused.
                (Form::WeightOnly, WeightForm::Dequantize(_)) => return None,
            };
            Some((layer.site.node, served))
        };
        let Some(mut served) = layers.iter().map(served).collect::<Option<HashMap<_, _>>>() else { return Vec::new() };
        served.retain(|_, served| *served != Served::Codes);
        self.candidates.speeds(graph, &self.regions, &served)
    }

    /// The same with these caches as codes.
    pub(crate) fn with_caches(&self, caches: Vec<ScaledCaches>) -> Self {
        Self { caches: caches.into(), ..self.clone() }
    }

    /// Caches that are codes.
    pub(crate) fn caches(&self) -> &[ScaledCaches] {
        &self.caches
    }

    /// What runs on codes with fixed scales.
    pub(crate) fn regions(&self) -> &Regions {
        &self.regions
    }

    /// By class of the [regions](Self::regions): what the codes mean.
    pub(crate) fn params(&self) -> &[ActivationParams] {
        &self.params
    }

    /// Layers whose inputs are quantized at run time.
    pub(crate) fn dynamic(&self) -> &HashSet<LayerId> {
        &self.dynamic
    }

    /// Whether a layer is in a region; scales need not be known yet.
    pub(crate) fn is_static(&self, layer: LayerId) -> bool {
        self.regions.units.iter().any(|unit| unit.node == layer.node())
    }

    /// Whether the layer of this node gets its input quantized at run time.
    pub(crate) fn is_dynamic(&self, node: NodeId) -> bool {
        self.dynamic.iter().any(|layer| layer.node() == node)
    }

    /// Whether the runtime has a kernel on codes for this node.
    pub(crate) fn could_run(&self, node: NodeId) -> bool {
        self.candidates.units().iter().any(|unit| unit.node == node)
    }

    /// Whether nothing runs on integers.
    pub(crate) fn is_empty(&self) -> bool {
        self.regions.units.is_empty() && self.dynamic.is_empty()
    }

    /// Whether channels may be added for the sake of the runtime's kernels.
    pub(crate) fn aligns_channels(&self) -> bool {
        self.candidates.target() == Target::OrtCpu && !self.regions.units.is_empty()
    }

    /// Whether biases of layers on codes are codes too.
    pub(crate) fn has_int32_biases(&self) -> bool {
        self.candidates.target().takes().int32_biases
    }

    /// Where integer products must be exact.
    pub(crate) fn cpu(&self) -> Cpu {
        self.candidates.cpu()
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
    pub(crate) fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The distributions from which the scales were found.
    pub(crate) fn distributions(&self) -> &Histograms {
        &self.distributions
    }

    /// What the scales of tensors must obey.
    pub(crate) fn rules<'a>(&'a self, graph: &'a Graph, config: &'a Config) -> Rules<'a> {
        Rules { graph, candidates: &self.candidates, wide: &self.wide, config }
    }

    /// Tensors whose codes have 16 bits where those of others have 8.
    pub(crate) fn wide(&self) -> &HashSet<ValueId> {
        &self.wide
    }

    /// Whether the tensors of this leader got codes of 16 bits.
    pub(crate) fn is_widened(&self, leader: NodeId) -> bool {
        self.widened.contains(&leader)
    }

    /// The values that the regions read and make.
    pub(crate) fn values(&self) -> BTreeSet<ValueId> {
        self.regions.units.iter().flat_map(values_of).collect()
    }

    /// The layers that run on integers, each standing for itself and what follows it on codes.
    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let leader_of = self.candidates.leader_of();
        let coded = self.regions.units.iter().map(|unit| leader_of[&unit.node]);
        let leaders: BTreeSet<NodeId> = coded.chain(self.dynamic.iter().map(|layer| layer.node())).collect();
        leaders.into_iter().collect()
    }

    /// Time that `leader` and what follows it save on integers, without conversions at the ends of regions; 0 where none
    /// is saved, or time does not count.
    pub(crate) fn saved_ns(&self, graph: &Graph, leader: NodeId) -> f64 {
        let costs = self.candidates.costs();
        if self.candidates.target().takes().is_strict {
            return 0.0;
        }
        if self.is_dynamic(leader) {
            return costs.saved_dynamic(graph, leader).max(0.0);
        }
        let leader_of = self.candidates.leader_of();
        let units = self.regions.units.iter().filter(|unit| leader_of[&unit.node] == leader);
        units.map(|unit| costs.saved_on_codes(graph, unit)).sum::<f64>().max(0.0)
    }

    /// The same with these nodes in float, chosen anew and without scales.
    pub(crate) fn without(&self, graph: &Graph, nodes: &HashSet<NodeId>) -> Self {
        let mut less = self.clone();
        if !nodes.is_empty() {
            less.float.extend(nodes);
            less.choose(graph);
        }
        less
    }

    /// The same with the distributions from which the scales were found.
    pub(crate) fn with_distributions(&self, distributions: Histograms) -> Self {
        Self { distributions: Arc::new(distributions), ..self.clone() }
    }

    /// The same on these scales, without the nodes whose kernels do not take them.
    pub(crate) fn on_scales(&self, graph: &Graph, scales: Scales) -> Result<Self, Error> {
        Self { scales: Arc::new(scales), ..self.clone() }.settled_within_kernels(graph)
    }

    /// The same with codes of 16 bits for the tensors of `leaders` and of what follows them.
    pub(crate) fn widen(&self, graph: &Graph, leaders: &[NodeId], config: &Config) -> Result<Self, Error> {
        let leader_of = self.candidates.leader_of();
        let units = self.regions.units.iter().filter(|unit| leaders.contains(&leader_of[&unit.node]));
        let values: HashSet<ValueId> = units.flat_map(values_of).collect();
        let tensors = self.regions.tensors.iter().filter(|tensor| values.contains(&tensor.value));
        let classes: BTreeSet<ValueId> = tensors.map(|tensor| self.regions.classes[tensor.class]).collect();
        let mut wider = self.clone();
        wider.wide.extend(&classes);
        wider.widened.extend(leaders);
        let scales = self.scales.again(wider.rules(graph, config), &self.distributions, &classes)?;
        wider.on_scales(graph, scales)
    }

    /// The same with `leaders` and what follows them in float, chosen anew.
    pub(crate) fn keep_in_float(&self, graph: &Graph, leaders: &[NodeId]) -> Result<Self, Error> {
        let leader_of = self.candidates.leader_of();
        let mut less = self.clone();
        less.dynamic.retain(|layer| !leaders.contains(&layer.node()));
        let units = self.candidates.units().iter().map(|unit| unit.node);
        less.float.extend(units.filter(|node| leaders.contains(&leader_of[node])));
        less.choose(graph);
        less.settled_within_kernels(graph)
    }

    /// The same with nothing but `leader` and what follows it on integers.
    pub(crate) fn only(&self, graph: &Graph, leader: NodeId) -> Result<Self, Error> {
        let leader_of = self.candidates.leader_of();
        let coded = self.regions.units.iter().filter(|unit| leader_of[&unit.node] == leader).cloned().collect();
        let mut only = Self { regions: Regions::of(graph, coded), ..self.clone() };
        only.dynamic.retain(|layer| layer.node() == leader);
        only.settle(graph)?;
        Ok(only)
    }

    /// Looks up what the regions' tensors mean now, and chooses again without nodes whose kernels do not take that.
    fn settled_within_kernels(mut self, graph: &Graph) -> Result<Self, Error> {
        loop {
            self.settle(graph)?;
            let refused = self.nodes_of_refused_scales(graph);
            if refused.is_empty() {
                return Ok(self);
            }
            self.float.extend(refused);
            self.choose(graph);
        }
    }

    /// Nodes in regions whose kernels do not take the scales of what they read and make.
    fn nodes_of_refused_scales(&self, graph: &Graph) -> Vec<NodeId> {
        let scales = self.scale_of();
        let scale = |value: Option<&ValueId>| value.and_then(|value| scales.get(value)).copied();
        let is_refused = |unit: &&Unit| {
            let input = unit.inputs.first().map(|(_, value)| value);
            let pair = scale(input).zip(scale(unit.outputs.first()));
            pair.is_some_and(|(input, output)| !unit.takes_scales(graph, input, output))
        };
        self.regions.units.iter().filter(is_refused).map(|unit| unit.node).collect()
    }

    /// Looks up what the regions' tensors mean now.
    fn settle(&mut self, graph: &Graph) -> Result<(), Error> {
        let params = self.regions.classes.iter().map(|value| Ok(self.scales.of(graph, *value)?.params));
        self.params = params.collect::<Result<Vec<_>, Error>>()?;
        let scales = self.scale_of();
        let of_input = |unit: &Unit| Some((unit.node, *scales.get(&unit.inputs.first()?.1)?));
        self.input_scales = self.regions.units.iter().filter_map(of_input).collect();
        Ok(())
    }

    /// The scale of every tensor of the regions.
    fn scale_of(&self) -> HashMap<ValueId, f32> {
        self.regions.tensors.iter().map(|tensor| (tensor.value, tensor.params(&self.params).scale())).collect()
    }

    fn choose(&mut self, graph: &Graph) {
        self.regions = self.candidates.regions(graph, &self.float);
    }
}
