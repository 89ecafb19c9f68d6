//! Decides which layers run on integers, and on which scales.
//!
//! | scheme | Conv | MatMul, Gemm |
//! |---|---|---|
//! | static | regions | regions |
//! | dynamic | weights only | codes of the input made at run time |
//! | auto | regions | in a region behind a Conv, else codes made at run time |
//!
//! Regions come from [`onnxquant_passes::integer`]; the scales of their tensors from distributions over the
//! calibration samples. Where held-out samples show too large an error, layers go back to weight-only, the most
//! sensitive first ([`IntegerPlan::retreat`]).

use std::collections::{BTreeSet, HashMap, HashSet};

use onnxquant_calib::{collect_histograms, observe_sizes};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Model, NodeId, ValueId, tensor};
use onnxquant_passes::fake_quantize::ActivationParams;
use onnxquant_passes::hard_sigmoid::floor;
use onnxquant_passes::integer::costs::{Alternative, Costs};
use onnxquant_passes::integer::kernels::{Kernel, Unit, find_units};
use onnxquant_passes::integer::regions::{Regions, choose_regions};
use onnxquant_passes::sites::Site;
use onnxquant_passes::write_dynamic::is_supported;
use onnxquant_quant::{ActivationGrid, Histogram, RangeMethod, choose_range};

use crate::calibration::Calibration;
use crate::config::{Activations, Config, Target};
use crate::error::Error;
use crate::plan::Plan;
use crate::progress::{Phase, Progress};
use crate::report::{IntegerReport, LayerReport, Sensitivity};
use crate::rescale::rescale;

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

/// Which layers run on integers.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntegerPlan {
    units: Vec<Unit>,
    costs: Costs,
    histograms: HashMap<ValueId, Histogram>,
    range: Option<RangeMethod>,
    target: Target,
    /// Nodes that are not to run on codes.
    float: HashSet<NodeId>,
    /// Layers whose inputs are quantized at run time.
    pub(crate) dynamic: HashSet<NodeId>,
    /// What runs on codes with fixed scales.
    pub(crate) regions: Regions,
    /// Values whose channels were rescaled.
    pub(crate) rescaled: usize,
    /// By class of `regions`.
    pub(crate) params: Vec<ActivationParams>,
}

impl IntegerPlan {
    /// The plan that takes the least time, without scales yet.
    fn new(model: &Model, plan: &Plan, config: &Config, calibration: &Calibration) -> Result<Self, Error> {
        let graph = model.graph();
        let sites = sites(plan);
        let sizes = sizes(model, &sites, calibration)?;
        let alternative = match config.activations {
            Activations::Static => Alternative::WeightOnly,
            _ => Alternative::Dynamic,
        };
        let units = find_units(graph, &sites, |value| sizes.contains_key(&value));
        let mut found = Self {
            costs: Costs::new(graph, &sites, sizes, alternative),
            range: config.range,
            target: config.target,
            units,
            ..Self::default()
        };
        found.float = match config.activations {
            Activations::Static => HashSet::new(),
            Activations::Auto => found.not_behind_convolutions(graph),
            _ => found.units.iter().map(|unit| unit.node).collect(),
        };
        found.choose(graph);
        if config.activations != Activations::Static {
            let coded: HashSet<NodeId> = found.regions.units.iter().map(|unit| unit.node).collect();
            let wanted = |node| config.activations == Activations::Dynamic || found.costs.dynamic_pays(graph, node);
            let dense =
                sites.iter().filter(|(node, site)| is_supported(site) && !coded.contains(node) && wanted(**node));
            found.dynamic = dense.map(|(node, _)| *node).collect();
        }
        Ok(found)
    }

    /// Whether anything runs on integers.
    pub(crate) fn is_empty(&self) -> bool {
        self.regions.units.is_empty() && self.dynamic.is_empty()
    }

    /// Whether channels may be added for the sake of the runtime's kernels.
    pub(crate) fn aligns_channels(&self) -> bool {
        self.target == Target::OrtCpu && !self.regions.units.is_empty()
    }

    /// How the weight of `node` is to be written.
    pub(crate) fn form(&self, node: NodeId) -> Form {
        if self.dynamic.contains(&node) {
            return Form::Dynamic;
        }
        let unit = self.regions.units.iter().find(|unit| unit.node == node);
        let input = unit.and_then(|unit| unit.inputs.first()).map(|(_, value)| *value);
        let tensor = input.and_then(|value| self.regions.tensors.iter().find(|tensor| tensor.value == value));
        tensor.map_or(Form::WeightOnly, |tensor| Form::Static { input_scale: tensor.params(&self.params).scale })
    }

    /// The layers that run on integers, each standing for itself and what follows it on codes.
    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let leader_of = self.leader_of();
        let coded = self.regions.units.iter().map(|unit| leader_of[&unit.node]);
        let leaders: BTreeSet<NodeId> = coded.chain(self.dynamic.iter().copied()).collect();
        leaders.into_iter().collect()
    }

    /// By unit: the last layer before it, or itself where none is.
    fn leader_of(&self) -> HashMap<NodeId, NodeId> {
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

    /// Keeps activations of `leaders` and what follows them in float and chooses anew.
    pub(crate) fn retreat(&mut self, graph: &Graph, leaders: &[NodeId]) -> Result<(), Error> {
        let leader_of = self.leader_of();
        self.dynamic.retain(|node| !leaders.contains(node));
        let units = self.units.iter().map(|unit| unit.node);
        self.float.extend(units.filter(|node| leaders.contains(&leader_of[node])));
        self.choose(graph);
        self.fit_params(graph)
    }

    /// The same plan with nothing but `leader` and what follows it on integers.
    pub(crate) fn only(&self, graph: &Graph, leader: NodeId) -> Result<Self, Error> {
        let leader_of = self.leader_of();
        let coded = self.regions.units.iter().filter(|unit| leader_of[&unit.node] == leader).cloned().collect();
        let mut only = Self { regions: Regions::of(graph, coded), ..self.clone() };
        only.dynamic.retain(|node| *node == leader);
        only.fit_params(graph)?;
        Ok(only)
    }

    fn choose(&mut self, graph: &Graph) {
        if self.target == Target::QdqStrict {
            let coded = self.units.iter().filter(|unit| !self.float.contains(&unit.node)).cloned().collect();
            self.regions = Regions::of(graph, coded);
            return;
        }
        self.regions = choose_regions(graph, &self.units, &self.costs, &self.float);
        if self.regions.relative_time > WORTHWHILE {
            self.regions = Regions { relative_time: 1.0, ..Regions::default() };
        }
    }

    /// MatMuls and what is not fed, over units alone, by a Conv: transformers lose too much on fixed scales.
    fn not_behind_convolutions(&self, graph: &Graph) -> HashSet<NodeId> {
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

    /// Gathers the distribution of every tensor that a region may store as codes.
    fn observe(&mut self, model: &Model, calibration: &Calibration, progress: Progress<'_>) -> Result<(), Error> {
        let graph = model.graph();
        let units = &self.regions.units;
        let touched = units.iter().flat_map(values_of);
        let values: BTreeSet<ValueId> = touched.filter(|value| graph.value(*value).constant().is_none()).collect();
        if values.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = values.iter().map(|value| graph.value(*value).name().to_owned()).collect();
        let session = calibration.session(model, &names, &calibration.split.calibration)?;
        let report = |state: onnxquant_calib::Progress| progress(Phase::Calibrate, state.done, state.total);
        let histograms = collect_histograms(&session, &calibration.data, &calibration.split.calibration, &report)?;
        self.histograms = values.into_iter().zip(histograms).collect();
        Ok(())
    }

    fn fit_params(&mut self, graph: &Graph) -> Result<(), Error> {
        let params = self.regions.classes.iter().map(|value| self.params_of(graph, *value));
        self.params = params.collect::<Result<Vec<_>, Error>>()?;
        Ok(())
    }

    fn params_of(&self, graph: &Graph, value: ValueId) -> Result<ActivationParams, Error> {
        let grid = ActivationGrid::Unsigned;
        let (lower, upper) = match (graph.value(value).constant(), self.histograms.get(&value)) {
            (Some(constant), _) => {
                let mut histogram = Histogram::new();
                histogram.push(&tensor::to_f32(constant)?)?;
                choose_range(&histogram, RangeMethod::MinMax, grid)
            }
            (None, Some(histogram)) => {
                choose_range(histogram, self.range.unwrap_or(RangeMethod::MeanSquaredError), grid)
            }
            (None, None) => return Err(Error::Internal(format!("`{}` was not observed", graph.value(value).name()))),
        };
        let lower = floor(graph, value).map_or(lower, |floor| lower.max(floor));
        let params = onnxquant_quant::ActivationParams::from_range(lower, upper, grid);
        let ceiling = self.units.iter().find_map(|unit| unit.ceiling.filter(|_| unit.outputs.contains(&value)));
        let params = ceiling.map_or(params, |ceiling| params.below(ceiling));
        Ok(ActivationParams { scale: params.scale(), zero_point: params.zero_point(), signed: false })
    }
}

/// The values that a unit reads and makes.
fn values_of(unit: &Unit) -> impl Iterator<Item = ValueId> {
    unit.inputs.iter().map(|(_, value)| *value).chain(unit.outputs.iter().copied())
}

/// The layers of the plan that integers may serve.
fn sites(plan: &Plan) -> HashMap<NodeId, Site> {
    let usable = plan.layers.iter().filter(|layer| layer.site.dtype == DataType::Float);
    usable.map(|layer| (layer.site.node, layer.site.clone())).collect()
}

/// Elements of every float value that a region could touch, in the first calibration sample.
fn sizes(
    model: &Model,
    sites: &HashMap<NodeId, Site>,
    calibration: &Calibration,
) -> Result<HashMap<ValueId, usize>, Error> {
    let graph = model.graph();
    let candidates = find_units(graph, sites, |_| true);
    let touched = candidates.iter().flat_map(values_of).filter(|value| graph.value(*value).constant().is_none());
    let values: BTreeSet<ValueId> = touched.collect();
    let names: Vec<String> = values.iter().map(|value| graph.value(*value).name().to_owned()).collect();
    let Some(&sample) = calibration.split.calibration.first().filter(|_| !names.is_empty()) else {
        return Ok(HashMap::new());
    };
    let session = calibration.session(model, &names, &[sample])?;
    let sizes = observe_sizes(&session, &calibration.data, sample)?;
    Ok(values.into_iter().zip(sizes).filter_map(|(value, size)| Some((value, size?))).collect())
}

/// The integer plan of `config`; empty where activations stay floats.
///
/// Channels of values are rescaled where that makes the codes of activations finer; the layers of `plan` are found
/// anew then.
pub(crate) fn plan_integers(
    model: &mut Model,
    plan: &mut Plan,
    config: &Config,
    calibration: &Calibration,
    progress: Progress<'_>,
) -> Result<IntegerPlan, Error> {
    if config.activations == Activations::Float || plan.layers.is_empty() {
        return Ok(IntegerPlan::default());
    }
    let mut integers = IntegerPlan::new(model, plan, config, calibration)?;
    let rescaled = rescale(model, plan, config, &integers.dynamic, calibration, progress)?;
    if rescaled > 0 {
        integers = IntegerPlan { rescaled, ..IntegerPlan::new(model, plan, config, calibration)? };
    }
    integers.observe(model, calibration, progress)?;
    integers.fit_params(model.graph())?;
    Ok(integers)
}

impl IntegerPlan {
    /// Says of every layer what becomes of its input, and of the model what runs on integers.
    pub(crate) fn report(
        &self,
        config: &Config,
        plan: &Plan,
        layers: &mut [LayerReport],
        sensitivity: Vec<Sensitivity>,
    ) -> Option<IntegerReport> {
        if config.activations == Activations::Float {
            return None;
        }
        for (layer, planned) in layers.iter_mut().zip(&plan.layers) {
            layer.activations = match self.form(planned.site.node) {
                Form::WeightOnly => "float",
                Form::Static { .. } => "static",
                Form::Dynamic => "dynamic",
            };
        }
        let static_layers = self.regions.units.iter().filter(|unit| unit.kernel == Kernel::Linear).count();
        Some(IntegerReport {
            static_layers,
            dynamic_layers: self.dynamic.len(),
            other_operators: self.regions.units.len() - static_layers,
            scales: self.regions.classes.len(),
            relative_time: self.regions.relative_time,
            rescaled: self.rescaled,
            wanted_sqnr_db: config.wanted_sqnr_db(),
            sensitivity,
        })
    }
}
