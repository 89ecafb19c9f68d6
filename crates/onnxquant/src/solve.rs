//! Quantizes the planned layers, stage by stage, and certifies each.

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayD, Dimension, IxDyn};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, tensor};
use onnxquant_passes::add_to_bias::has_bias;
use onnxquant_passes::runs_as::{Kernel, RunsAs};
use onnxquant_passes::write_codes::PackedWeight;
use onnxquant_quant::{
    GramStats, Granularity, LayerProblem, LayerSolution, Method, QuantError, Saturation, ScaleType, Verdict, auto,
    bias_correction, certify, corrected_error, guarded, solve,
};

use crate::calibration::{self, Calibration, LayerStats, StageStats};
use crate::config::{Config, MethodChoice};
use crate::error::Error;
use crate::integer::IntegerPlan;
use crate::plan::{Plan, PlannedLayer};
use crate::progress::{Phase, Progress};
use crate::report::LayerReport;
use crate::streams::{self, Streams};

/// The methods between which `auto` chooses.
const CANDIDATES: [Method; 4] =
    [Method::Msq, Method::Feedback, Method::MalySaab { saturation: Saturation::Max }, Method::CellWalk];

/// A layer with its codes.
pub(crate) struct SolvedLayer {
    pub(crate) planned: PlannedLayer,
    pub(crate) weight: PackedWeight,
    pub(crate) report: LayerReport,
}

impl SolvedLayer {
    /// The report on one hand, what is written on the other.
    pub(crate) fn into_parts(self) -> (LayerReport, (PlannedLayer, PackedWeight)) {
        (self.report, (self.planned, self.weight))
    }
}

/// Solves all layers of `plan`, in its order.
pub(crate) fn solve_layers(
    model: &Model,
    plan: &Plan,
    config: &Config,
    integers: &IntegerPlan,
    calibration: Option<&Calibration>,
    progress: Progress<'_>,
) -> Result<Vec<SolvedLayer>, Error> {
    let mut source = Source::new(model, config, integers, calibration)?;
    let mut solved = Vec::with_capacity(plan.layers.len());
    for stage in source.stages(model, &plan.layers, config) {
        let (layers, later) = (&plan.layers[stage.clone()], &plan.layers[stage.end..]);
        let stats = source.statistics(model, layers, later, progress)?;
        for (index, layer) in layers.iter().enumerate() {
            let weights = weights(model, layer)?;
            let fitted = fit_layer(model, config, layer, &weights, stats.as_ref().map(|stats| stats.of(index)))?;
            if let Source::Streams(streams) = &mut source {
                let decoded =
                    layer.site.view.from_matrix(fitted.decoded.view()).map_err(|e| failed(model, layer, e))?;
                streams.settle(layer, &decoded, &fitted.correction);
            }
            solved.push(fitted.layer);
            progress(Phase::Quantize, solved.len(), plan.layers.len());
        }
    }
    Ok(solved)
}

/// Where the statistics of layers come from.
enum Source<'a> {
    Nowhere,
    /// The float network alone, run once for as many layers as fit the memory.
    Float {
        calibration: &'a Calibration,
        judged: bool,
    },
    /// The float network and the one quantized so far.
    Streams(Box<Streams<'a>>),
}

impl<'a> Source<'a> {
    fn new(
        model: &'a Model,
        config: &Config,
        integers: &IntegerPlan,
        calibration: Option<&'a Calibration>,
    ) -> Result<Self, Error> {
        let judged = config.method != MethodChoice::Fixed(Method::Msq);
        let Some(calibration) = calibration else { return Ok(Self::Nowhere) };
        if config.one_pass {
            return Ok(Self::Float { calibration, judged });
        }
        let streams = Streams::new(model, integers, calibration, judged, config.memory_limit_bytes)?;
        Ok(Self::Streams(Box::new(streams)))
    }

    /// Layers that are solved together.
    fn stages(&self, model: &Model, layers: &[PlannedLayer], config: &Config) -> Vec<Range<usize>> {
        let limit = config.memory_limit_bytes;
        match self {
            Self::Nowhere => std::iter::once(0..layers.len()).collect(),
            Self::Float { judged, .. } => calibration::stages(model, layers, limit / if *judged { 2 } else { 1 }),
            Self::Streams(_) => streams::stages(model, layers, limit / 8),
        }
    }

    fn statistics(
        &mut self,
        model: &Model,
        layers: &[PlannedLayer],
        later: &[PlannedLayer],
        progress: Progress<'_>,
    ) -> Result<Option<StageStats>, Error> {
        match self {
            Self::Nowhere => Ok(None),
            Self::Float { calibration, judged } => calibration.statistics(model, layers, *judged, progress).map(Some),
            Self::Streams(streams) => streams.statistics(layers, later, progress).map(Some),
        }
    }
}

/// A solved layer, and what it does in the network.
struct FittedLayer {
    layer: SolvedLayer,
    /// `[groups, K, M]`.
    decoded: Array3<f32>,
    /// Added to the bias, one number an output.
    correction: Vec<f32>,
}

fn failed(model: &Model, layer: &PlannedLayer, source: QuantError) -> Error {
    let weight = model.graph().value(layer.site.weight).name().to_owned();
    Error::Layer { layer: layer.label.clone(), weight, source }
}

/// The weights `[groups, K, M]` of a layer; an error where one is not finite.
fn weights(model: &Model, layer: &PlannedLayer) -> Result<Array3<f32>, Error> {
    let stored = stored_weight(model, layer)?;
    if let Some((index, &value)) = stored.indexed_iter().find(|(_, weight)| !weight.is_finite()) {
        let tensor = model.graph().value(layer.site.weight).name().to_owned();
        return Err(Error::NonFinite { tensor, index: index.slice().to_vec(), value });
    }
    layer.site.view.to_matrix(stored.view()).map_err(|error| failed(model, layer, error))
}

fn fit_layer(
    model: &Model,
    config: &Config,
    layer: &PlannedLayer,
    weights: &Array3<f32>,
    stats: Option<LayerStats<'_>>,
) -> Result<FittedLayer, Error> {
    let site = &layer.site;
    let failed = |source: QuantError| failed(model, layer, source);
    let granularity = match (layer.granularity, weights.dim().1) {
        (Granularity::Block(size), k) if size >= k => Granularity::Channel,
        (granularity, _) => granularity,
    };
    let spec = config.spec(granularity).map_err(failed)?.with_scale_type(scale_type(site.dtype));
    let mut problem =
        LayerProblem::new(weights.view(), stats.as_ref().map(|stats| stats.calibration), spec).map_err(failed)?;
    problem = problem.with_options(config.solver_options().map_err(failed)?);
    let corrects_bias = has_bias(model.graph(), site);
    if !corrects_bias {
        problem = problem.with_fixed_bias();
    }
    let held_out = stats.as_ref().and_then(|stats| stats.held_out);
    let (solution, method, verdict) = choose(config, &problem, held_out).map_err(failed)?;
    let certificate = certify(&problem, &solution).map_err(failed)?;
    let decoded = solution.dequantize();
    let correction = match &stats {
        Some(stats) if corrects_bias => {
            bias_correction(weights.view(), decoded.view(), stats.calibration).map_err(failed)?
        }
        _ => Array2::zeros((weights.dim().0, weights.dim().2)),
    };
    let error_on =
        |stats: &[GramStats]| corrected_error(weights.view(), decoded.view(), correction.view(), stats).map_err(failed);
    let error = stats.as_ref().map(|stats| error_on(stats.calibration)).transpose()?;
    let held_out_error = held_out.map(error_on).transpose()?;
    let correction: Vec<f32> = correction.iter().map(|&c| c as f32).collect();
    let weight =
        PackedWeight::new(site, layer.packed_type, granularity, &solution, correction.clone()).map_err(failed)?;
    let report = LayerReport {
        label: layer.label.clone(),
        op_type: layer.op_type.clone(),
        weight_shape: site.view.weight_shape(),
        parameters: site.parameters(),
        calibration_rows: stats.as_ref().and_then(|stats| stats.calibration.first()).map(|stats| stats.n_rows()),
        bits: layer.bits,
        granularity,
        bytes: 0,
        runs_as: RunsAs { kernel: Kernel::Float, slow_because: None },
        activations: "float",
        method,
        error,
        held_out_error,
        notes: solution.notes.iter().map(ToString::to_string).collect(),
        certificate,
        verdict,
    };
    Ok(FittedLayer { layer: SolvedLayer { planned: layer.clone(), weight, report }, decoded, correction })
}

/// The weight as the operator has it.
pub(crate) fn stored_weight(model: &Model, layer: &PlannedLayer) -> Result<ArrayD<f32>, Error> {
    let stored = layer.site.weight_tensor(model.graph())?;
    let numbers = tensor::to_f32(&stored)?.into_owned();
    ArrayD::from_shape_vec(IxDyn(&layer.site.view.weight_shape()), numbers)
        .map_err(|error| Error::Internal(format!("weight of `{}`: {error}", layer.label)))
}

/// Scales have the type of the weights they stand for.
pub(crate) fn scale_type(dtype: DataType) -> ScaleType {
    match dtype {
        DataType::Float16 => ScaleType::F16,
        DataType::Bfloat16 => ScaleType::Bf16,
        _ => ScaleType::F32,
    }
}

fn choose(
    config: &Config,
    problem: &LayerProblem<'_>,
    held_out: Option<&[GramStats]>,
) -> Result<(LayerSolution, Method, Option<Verdict>), QuantError> {
    match (config.method, held_out) {
        (MethodChoice::Auto, Some(held_out)) => {
            let (solution, verdict) = auto(&CANDIDATES, problem, held_out)?;
            Ok((solution, verdict.winner().method, Some(verdict)))
        }
        (MethodChoice::Fixed(method), Some(held_out)) if config.fallback && method.walks() => {
            let (solution, verdict) = guarded(method, problem, held_out)?;
            Ok((solution, verdict.winner().method, Some(verdict)))
        }
        (MethodChoice::Auto, None) => Ok((solve(Method::Msq, problem)?, Method::Msq, None)),
        (MethodChoice::Fixed(method), Some(held_out)) => {
            Ok((solve(method, &problem.with_held_out(held_out)?)?, method, None))
        }
        (MethodChoice::Fixed(method), None) => Ok((solve(method, problem)?, method, None)),
    }
}
