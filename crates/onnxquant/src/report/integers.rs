//! What runs on integers, and why.

use onnxquant_calib::Measurement;
use onnxquant_ir::{Graph, Model, NodeId, ValueId};
use onnxquant_passes::integer::kernels::Kernel;
use onnxquant_quant::{ActivationParams, RangeMethod, outline};
use schemars::JsonSchema;
use serde::Serialize;

use crate::accuracy::Accuracy;
use crate::config::{Activations, Config};
use crate::decide::trail::{Alone, JudgedBy, Round, Trail, Weights};
use crate::observe::observer::CacheReport;
use crate::plan::assignment::Assignment;
use crate::plan::scales::Origin;

/// Bins in which values are counted.
const BINS: usize = 40;

/// What runs on integers.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct IntegerReport {
    /// Layers in regions that store activations as codes on fixed scales.
    pub static_layers: usize,
    /// Layers whose input is quantized at run time.
    pub dynamic_layers: usize,
    /// Other operators that run on codes.
    pub other_operators: usize,
    /// Tensors with a scale of their own.
    pub scales: usize,
    /// Estimated time of the regions' graph over that in float; 1 where no region pays.
    pub relative_time: f64,
    /// Inputs of layers on scales made at run time whose channels were rescaled.
    pub rescaled: usize,
    /// Tensors on fixed scales whose channels were evened out.
    pub equalized: usize,
    /// The tensors with a scale of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorReport>,
    /// The file of statistics, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheReport>,
    /// The opset that codes of activations need, where the model could not be raised to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed_opset: Option<i64>,
    /// The SQNR at which integer layers were left, in dB: asked for, or that of `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted_sqnr_db: Option<f64>,
    /// The loss that integer layers could make, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_loss: Option<f64>,
    /// What single layers do to the outputs; measured only where some had to stay in float.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sensitivity: Vec<Sensitivity>,
    /// How accuracy was bought: what went back to float, round by round; the first round has all on integers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trade: Vec<Trade>,
}

/// A tensor that is stored as codes on a fixed scale.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TensorReport {
    /// Its name in the float model.
    pub name: String,
    /// How its range was found.
    pub range: RangeMethod,
    /// Why so.
    pub why: Origin,
    /// What the codes mean.
    #[serde(flatten)]
    pub params: ActivationParams,
    /// The expected squared error of the codes over the mean square of the values, on the calibration samples.
    pub relative_error: f64,
    /// What the least and the greatest code stand for: values beyond are clipped.
    pub code_range: [f32; 2],
    /// The least and the greatest value that was seen.
    pub seen: [f32; 2],
    /// Values in bins of equal width between these.
    pub counts: Vec<u64>,
}

/// A round of the search for layers that must stay in float.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Trade {
    /// Layers that went back to float activations, with what follows them on codes; empty in the first round. Rounds after
    /// one that was more than enough try fewer of its layers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to_float: Vec<String>,
    /// Layers whose activations got 16 bits, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to_16_bits: Vec<String>,
    /// Layers left on integers.
    pub integer_layers: usize,
    /// How exact the outputs of held-out samples are.
    #[serde(flatten)]
    pub accuracy: Measurement<Accuracy>,
    /// Estimated time of the regions' graph over that in float.
    pub relative_time: f64,
    /// What the weights were then.
    pub weights: Weights,
    /// Who says how exact the outputs are.
    pub judged_by: JudgedBy,
}

/// The outputs when one layer alone reads integers.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Sensitivity {
    /// Its name, or its first output's.
    pub label: String,
    /// How exact the outputs of held-out samples are then.
    #[serde(flatten)]
    pub accuracy: Measurement<Accuracy>,
    /// Time that integers save there, estimated, in nanoseconds a sample.
    pub saved_ns: f64,
}

impl IntegerReport {
    /// What runs on integers of the float model with this graph, and how that was found.
    pub(super) fn new(
        model: &Model,
        config: &Config,
        (assignment, trail): (&Assignment, &Trail),
        cache: Option<CacheReport>,
    ) -> Option<Self> {
        if config.activations == Activations::Float {
            return None;
        }
        let (graph, regions) = (model.graph(), assignment.regions());
        let needed = config.activation_opset();
        let static_layers = regions.units.iter().filter(|unit| unit.kernel == Kernel::Linear).count();
        Some(Self {
            static_layers,
            dynamic_layers: assignment.dynamic().len(),
            other_operators: regions.units.len() - static_layers,
            scales: regions.classes.len(),
            relative_time: regions.relative_time,
            rescaled: trail.rescaled,
            equalized: trail.equalized,
            tensors: regions.classes.iter().filter_map(|value| TensorReport::of(graph, assignment, *value)).collect(),
            cache,
            needed_opset: (model.opset("").unwrap_or(0) < needed).then_some(needed),
            wanted_sqnr_db: config.wanted_sqnr_db(),
            max_loss: config.max_loss,
            sensitivity: trail.alone.iter().map(|alone| Sensitivity::new(graph, alone)).collect(),
            trade: trail.rounds.iter().map(|round| Trade::new(graph, round)).collect(),
        })
    }
}

impl TensorReport {
    fn of(graph: &Graph, assignment: &Assignment, value: ValueId) -> Option<Self> {
        let scale = assignment.scales().of(graph, value).ok()?;
        let relative_error = assignment.distributions().relative_error(graph, value, scale.params).ok()?;
        let histogram = assignment.distributions().of(graph, value).ok()?;
        Some(Self {
            name: graph.value(value).name().to_owned(),
            range: scale.range,
            why: scale.origin,
            params: scale.params,
            relative_error,
            code_range: scale.params.range().into(),
            seen: [histogram.min(), histogram.max()],
            counts: outline(histogram, BINS),
        })
    }
}

impl Sensitivity {
    fn new(graph: &Graph, found: &Alone) -> Self {
        let label = graph.label(found.leader).to_owned();
        Self { label, accuracy: found.accuracy.clone(), saved_ns: found.saved_ns }
    }
}

impl Trade {
    fn new(graph: &Graph, round: &Round) -> Self {
        let labels = |nodes: &[NodeId]| nodes.iter().map(|node| graph.label(*node).to_owned()).collect();
        Self {
            to_float: labels(&round.to_float),
            to_16_bits: labels(&round.to_16_bits),
            integer_layers: round.integer_layers,
            accuracy: round.accuracy.clone(),
            relative_time: round.relative_time,
            weights: round.weights,
            judged_by: round.judged_by,
        }
    }
}
