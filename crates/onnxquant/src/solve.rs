//! Quantizes the planned layers, stage by stage, and certifies each.

use std::collections::HashMap;
use std::ops::Range;

use ndarray::{Array3, ArrayD, Axis, Dimension, IxDyn};
use onnxquant_calib::OutputComparison;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, tensor};
use onnxquant_passes::add_to_bias::has_bias;
use onnxquant_passes::cpu::pair_rule;
use onnxquant_passes::embeddings::CodedTable;
use onnxquant_passes::runs_as::{Kernel, RunsAs};
use onnxquant_passes::weight_form::WeightForm;
use onnxquant_passes::write_codes::PackedWeight;
use onnxquant_quant::{
    Certificate, Certified, GramStats, LayerProblem, LayerSolution, Method, Outcome, PairRule, QuantError, QuantSpec,
    Saturation, ScaleType, Verdict, auto, certify, corrected_error, guarded, solve,
};
use serde::{Deserialize, Serialize};

use crate::calibration::{self, Calibration, LayerStats, StageStats};
use crate::config::{Config, MethodChoice};
use crate::embeddings::TableReport;
use crate::error::Error;
use crate::integer::{Form, IntegerPlan};
use crate::plan::{Plan, PlannedLayer};
use crate::progress::{Phase, Progress};
use crate::reach::Reach;
use crate::report::LayerReport;
use crate::state::State;
use crate::streams::{self, Streams};
use crate::tied::Tied;

/// Levels up to which pinning saturated weights first pays, inputs up to which its time is worth it, and rows an input
/// from which it holds on other data: see the README's table.
const PINNED_LEVELS: usize = 16;
const PINNED_INPUTS: usize = 2048;
const PINNED_ROWS: usize = 4;

/// The methods between which `auto` chooses.
fn candidates(problem: &LayerProblem<'_>) -> [Method; 4] {
    let (levels, inputs) = (problem.spec().grid().levels(), problem.inputs());
    let rows = problem.stats().and_then(|stats| stats.first()).map_or(0, GramStats::n_rows);
    let pins = levels <= PINNED_LEVELS && inputs <= PINNED_INPUTS && rows >= PINNED_ROWS * inputs;
    let feedback = if pins { Method::Saturate } else { Method::Feedback };
    [Method::Msq, feedback, Method::MalySaab { saturation: Saturation::Max }, Method::CellWalk]
}

/// Multiply-adds that walks over all layers may take before `auto` does without them: two minutes on one core.
const WALK_BUDGET: f64 = 1.2e12;

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

/// What layers are solved with.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) model: &'a Model,
    pub(crate) config: &'a Config,
    /// How many layers the model has.
    pub(crate) layers: usize,
    pub(crate) integers: &'a IntegerPlan,
    /// The samples, where the engine sees a layer on them.
    pub(crate) calibration: Option<&'a Calibration>,
    /// What the engine sees, where there are samples.
    pub(crate) reach: Option<&'a Reach>,
    pub(crate) state: Option<&'a State>,
    pub(crate) progress: Progress<'a>,
}

/// Solves all layers of `plan`, in its order; with two streams also the outputs of held-out samples. Stages that an
/// earlier run has solved are not solved again.
pub(crate) fn solve_layers(
    job: Job<'_>,
    plan: &Plan,
    tables: &[(CodedTable, TableReport)],
) -> Result<(Vec<SolvedLayer>, Option<Vec<OutputComparison>>), Error> {
    let Job { model, config, progress, .. } = job;
    let mut source = Source::new(job, plan, tables)?;
    let mut tied = TiedCodes::new(job, &plan.layers)?;
    let state = job.state.map(|state| state.layers(plan)).transpose()?;
    let mut layers_solved = Vec::with_capacity(plan.layers.len());
    // Stages solved by an earlier run, through which the networks have not gone yet.
    let mut kept_stages: Vec<Range<usize>> = Vec::new();
    for stage in source.stages(model, &plan.layers, config) {
        let (layers, later) = (&plan.layers[stage.clone()], &plan.layers[stage.end..]);
        let kept = state.as_ref().map(|state| state.stage(stage.start, layers)).transpose()?.flatten();
        let is_kept = kept.is_some();
        let solved = match kept {
            Some(kept) => {
                kept_stages.push(stage.clone());
                kept
            }
            None => {
                for earlier in kept_stages.drain(..) {
                    let (layers, later) = (&plan.layers[earlier.clone()], &plan.layers[earlier.end..]);
                    source.pass(layers, later, progress)?;
                }
                let stats = source.statistics(model, layers, later, progress)?;
                tied.solve(job, &plan.layers, stage.start)?;
                solve_stage(job, (stage.start, layers), stats.as_ref(), &tied)?
            }
        };
        for ((index, layer), solved) in stage.zip(layers).zip(solved) {
            if let Some(state) = state.as_ref().filter(|_| !is_kept) {
                state.keep(index, layer, &solved)?;
            }
            let mut solved = solved.into_layer(layer).map_err(|error| failed(model, layer, error))?;
            solved.report.is_first_reader = tied.tied.is_first(index);
            if let Source::Streams(streams) = &mut source {
                streams.settle(layer, &solved.weight)?;
            }
            layers_solved.push(solved);
        }
        progress(Phase::Quantize, layers_solved.len(), plan.layers.len());
    }
    let Source::Streams(mut streams) = source else { return Ok((layers_solved, None)) };
    for earlier in kept_stages {
        let (layers, later) = (&plan.layers[earlier.clone()], &plan.layers[earlier.end..]);
        streams.pass(layers, later, progress)?;
    }
    Ok((layers_solved, Some(streams.finish(progress)?)))
}

/// Solves layers that do not depend on each other, of which the first is layer `start`.
fn solve_stage(
    job: Job<'_>,
    (start, layers): (usize, &[PlannedLayer]),
    stats: Option<&StageStats>,
    tied: &TiedCodes,
) -> Result<Vec<Solved>, Error> {
    let solve = |(at, layer): (usize, &PlannedLayer)| {
        let weights = weights(job.model, layer)?;
        let stats = stats.and_then(|stats| stats.of(at));
        let found = match tied.of(start + at) {
            Some(found) => found,
            None => find_codes(job, layer, &weights, stats.as_ref())?,
        };
        let solved = describe(job, layer, &weights, stats.as_ref(), found)?;
        (job.progress)(Phase::Quantize, start + at + 1, job.layers);
        Ok(solved)
    };
    layers.iter().enumerate().map(solve).collect()
}

/// The codes of tied layers, once they are needed.
struct TiedCodes {
    tied: Tied,
    /// By the first layer of each group.
    found: Option<HashMap<usize, Found>>,
}

impl TiedCodes {
    fn new(job: Job<'_>, layers: &[PlannedLayer]) -> Result<Self, Error> {
        Ok(Self { tied: Tied::find(job, layers)?, found: None })
    }

    /// Solves the groups that have layers at `from` or behind it, unless that was done.
    fn solve(&mut self, job: Job<'_>, layers: &[PlannedLayer], from: usize) -> Result<(), Error> {
        if self.found.is_none() {
            let find = |layer: &PlannedLayer, weights: &Array3<f32>, stats: Option<LayerStats<'_>>| {
                find_codes(job, layer, weights, stats.as_ref())
            };
            self.found = Some(self.tied.solve(job, layers, from, judges(job.config), find)?);
        }
        Ok(())
    }

    /// Those of `layer`, where it is tied.
    fn of(&self, layer: usize) -> Option<Found> {
        let group = self.tied.with(layer)?;
        let mut found = self.found.as_ref()?.get(&group[0])?.clone();
        // It is of the readers together.
        found.solution.promise = None;
        found.readers = group.len();
        Some(found)
    }
}

/// Whether held-out samples have statistics of their own.
fn judges(config: &Config) -> bool {
    config.method != MethodChoice::Fixed(Method::Msq)
}

/// Where the statistics of layers come from.
pub(crate) enum Source<'a> {
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
    fn new(job: Job<'a>, plan: &Plan, tables: &[(CodedTable, TableReport)]) -> Result<Self, Error> {
        let Job { model, config, integers, calibration, .. } = job;
        let judged = judges(config);
        let Some(calibration) = calibration.filter(|_| !plan.layers.is_empty()) else { return Ok(Self::Nowhere) };
        if config.one_pass {
            return Ok(Self::float(calibration, judged));
        }
        let streams = Streams::new(model, integers, plan, tables, calibration, judged, config)?;
        Ok(Self::Streams(Box::new(streams)))
    }

    /// The float network; held-out samples are gathered apart where results are `judged` on them.
    pub(crate) fn float(calibration: &'a Calibration, judged: bool) -> Self {
        Self::Float { calibration, judged }
    }

    /// Layers that are solved together.
    pub(crate) fn stages(&self, model: &Model, layers: &[PlannedLayer], config: &Config) -> Vec<Range<usize>> {
        let limit = config.memory_limit_bytes;
        match self {
            Self::Nowhere => std::iter::once(0..layers.len()).collect(),
            Self::Float { judged, .. } => calibration::stages(model, layers, limit / if *judged { 2 } else { 1 }),
            Self::Streams(_) => streams::stages(model, layers, limit / 8),
        }
    }

    /// Goes on to the inputs of `layers`, which are solved already.
    fn pass(&mut self, layers: &[PlannedLayer], later: &[PlannedLayer], progress: Progress<'_>) -> Result<(), Error> {
        match self {
            Self::Nowhere | Self::Float { .. } => Ok(()),
            Self::Streams(streams) => streams.pass(layers, later, progress),
        }
    }

    pub(crate) fn statistics(
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

/// What the solver found for a layer.
pub(crate) struct Solved {
    pub(crate) solution: LayerSolution,
    /// Added to the bias, one number an output.
    pub(crate) correction: Vec<f32>,
    pub(crate) findings: Findings,
}

/// What is known of a solution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Findings {
    pub(crate) saturating_pairs: Option<usize>,
    pub(crate) calibration_rows: Option<usize>,
    pub(crate) method: Method,
    pub(crate) error: Option<f64>,
    pub(crate) held_out_error: Option<f64>,
    pub(crate) notes: Vec<String>,
    pub(crate) certificate: Certificate,
    pub(crate) verdict: Option<Verdict>,
}

impl Solved {
    /// The codes of `layer` as they are written, and the report.
    pub(crate) fn into_layer(self, layer: &PlannedLayer) -> Result<SolvedLayer, QuantError> {
        let Self { solution, correction, findings } = self;
        let (site, alphabet) = (&layer.site, solution.alphabet);
        let weight = PackedWeight::new(site, layer.packed_type, layer.granularity, &solution, correction)?;
        let report = LayerReport {
            label: layer.label.clone(),
            op_type: layer.op_type.clone(),
            weight_shape: site.view.weight_shape(),
            parameters: site.parameters(),
            is_first_reader: true,
            calibration_rows: findings.calibration_rows,
            bits: layer.bits,
            alphabet,
            granularity: layer.granularity,
            bytes: 0,
            runs_as: RunsAs { kernel: Kernel::Float, slow_because: None },
            activations: "float",
            saturating_pairs: findings.saturating_pairs,
            method: findings.method,
            error: findings.error,
            held_out_error: findings.held_out_error,
            notes: findings.notes,
            certificate: findings.certificate,
            verdict: findings.verdict,
        };
        Ok(SolvedLayer { planned: layer.clone(), weight, report })
    }
}

pub(crate) fn failed(model: &Model, layer: &PlannedLayer, source: QuantError) -> Error {
    let weight = model.graph().value(layer.site.weight).name().to_owned();
    Error::Layer { layer: layer.label.clone(), weight, source }
}

/// The weights `[groups, K, M]` of a layer; an error where one is not finite.
pub(crate) fn weights(model: &Model, layer: &PlannedLayer) -> Result<Array3<f32>, Error> {
    let stored = stored_weight(model, layer)?;
    if !stored.iter().all(|weight| weight.is_finite()) {
        return Err(non_finite(model, layer, &stored));
    }
    layer.site.view.to_matrix(stored.view()).map_err(|error| failed(model, layer, error))
}

/// That a weight is not finite: which one.
fn non_finite(model: &Model, layer: &PlannedLayer, stored: &ArrayD<f32>) -> Error {
    let tensor = model.graph().value(layer.site.weight).name().to_owned();
    let bad = stored.indexed_iter().find(|(_, weight)| !weight.is_finite());
    let (index, value) = bad.map_or((Vec::new(), f32::NAN), |(index, &value)| (index.slice().to_vec(), value));
    Error::NonFinite { tensor, index, value }
}

/// Codes, and how they were chosen.
#[derive(Clone)]
struct Found {
    solution: LayerSolution,
    method: Method,
    verdict: Option<Verdict>,
    /// Layers that have these codes.
    readers: usize,
}

/// The codes of a layer, or of several that read one weight, for these statistics.
fn find_codes(
    job: Job<'_>,
    layer: &PlannedLayer,
    weights: &Array3<f32>,
    stats: Option<&LayerStats<'_>>,
) -> Result<Found, Error> {
    let find = || {
        let problem = layer_problem(job, layer, weights, stats.map(|stats| stats.calibration))?;
        choose(job.config, &problem, stats.and_then(|stats| stats.held_out))
    };
    let (solution, method, verdict) = find().map_err(|error| failed(job.model, layer, error))?;
    Ok(Found { solution, method, verdict, readers: 1 })
}

/// What codes do to a layer, by the statistics of the layer itself.
fn describe(
    job: Job<'_>,
    layer: &PlannedLayer,
    weights: &Array3<f32>,
    stats: Option<&LayerStats<'_>>,
    found: Found,
) -> Result<Solved, Error> {
    let failed = |source: QuantError| failed(job.model, layer, source);
    let Found { solution, method, verdict, readers } = found;
    let problem = layer_problem(job, layer, weights, stats.map(|stats| stats.calibration)).map_err(failed)?;
    let held_out = stats.and_then(|stats| stats.held_out);
    let Certified { certificate, correction } = certify(&problem, &solution).map_err(failed)?;
    let chosen = verdict.as_ref().filter(|_| readers == 1).map(|verdict| &verdict.winner().outcome);
    let held_out_error = match (chosen, held_out) {
        (Some(Outcome::HeldOutError(error)), _) => Some(*error),
        (_, None) => None,
        (_, Some(rows)) => {
            let decoded = solution.dequantize();
            let error = corrected_error(weights.view(), decoded.view(), correction.view(), rows);
            Some(error.map_err(failed)?)
        }
    };
    let correction: Vec<f32> = correction.iter().map(|&c| c as f32).collect();
    let tied = (readers > 1).then(|| format!("the codes are those for all {readers} layers that read the weight"));
    let of_rows = match stats {
        Some(stats) => about_rows(stats),
        None => job.reach.map(|reach| why_no_rows(reach, job.model, layer)).into_iter().collect(),
    };
    let findings = Findings {
        saturating_pairs: saturating_pairs(job, layer, &solution.codes),
        calibration_rows: stats.and_then(|stats| stats.calibration.first()).map(|stats| stats.n_rows()),
        method,
        error: certificate.achieved,
        held_out_error,
        notes: solution.notes.iter().map(ToString::to_string).chain(tied).chain(of_rows).collect(),
        certificate,
        verdict,
    };
    Ok(Solved { solution, correction, findings })
}

/// What a reader should know of the rows behind a layer's codes.
fn about_rows(stats: &LayerStats<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if stats.lacks_held_out {
        notes.push("judged on the calibration rows: no row of the held-out samples comes here".to_owned());
    }
    let (unpaired, rows) = stats.calibration.first().map_or((0, 0), |stats| (stats.n_unpaired(), stats.n_rows()));
    if unpaired > 0 {
        notes.push(format!("{unpaired} of {rows} calibration rows have no counterpart in the float network"));
    }
    notes
}

/// Why a layer has no rows.
fn why_no_rows(reach: &Reach, model: &Model, layer: &PlannedLayer) -> String {
    let no_row = || "rounded without data: no row of the calibration samples comes here".to_owned();
    reach.why_unseen(model.graph(), layer).unwrap_or_else(no_row)
}

/// What is to be solved for a layer.
pub(crate) fn layer_problem<'a>(
    job: Job<'_>,
    layer: &PlannedLayer,
    weights: &'a Array3<f32>,
    stats: Option<&'a [GramStats]>,
) -> Result<LayerProblem<'a>, QuantError> {
    let problem = LayerProblem::new(weights.view(), stats, layer_spec(job, layer)?)?;
    let options = job.config.solver_options()?.with_walk_limit(WALK_BUDGET / job.layers as f64);
    let problem = problem.with_options(options);
    Ok(if has_bias(job.model.graph(), &layer.site) { problem } else { problem.with_fixed_bias() })
}

/// The codes that a layer gets.
pub(crate) fn layer_spec(job: Job<'_>, layer: &PlannedLayer) -> Result<QuantSpec, QuantError> {
    let positive_scales = on_codes(job, layer) || matches!(layer.form, WeightForm::Dequantize(_));
    let spec = job.config.spec(layer.granularity, layer.bits, positive_scales)?;
    let spec = spec.with_scale_type(scale_type(layer.site.dtype));
    match pair_rule_of(job, layer) {
        Some(rule) if job.config.cpu.saturates() => spec.with_pairs(rule),
        _ => Ok(spec),
    }
}

/// Whether the activations of a layer are codes too.
fn on_codes(job: Job<'_>, layer: &PlannedLayer) -> bool {
    job.integers.form(layer.site.id()) != Form::WeightOnly
}

/// The codes of a layer that can saturate beside each other on some processors.
fn pair_rule_of(job: Job<'_>, layer: &PlannedLayer) -> Option<PairRule> {
    let alone = job.model.graph().value(layer.site.input).uses().len() == 1;
    on_codes(job, layer).then(|| pair_rule(&layer.site.view, job.integers.aligns_channels() && alone)).flatten()
}

/// Pairs of codes that saturate side by side on processors whose products can; none where activations are floats.
fn saturating_pairs(job: Job<'_>, layer: &PlannedLayer, codes: &Array3<i16>) -> Option<usize> {
    let pairs = pair_rule_of(job, layer)?.pairs(codes.dim().1);
    let saturating = |(a, b): &(usize, usize)| {
        let (first, second) = (codes.index_axis(Axis(1), *a), codes.index_axis(Axis(1), *b));
        first.iter().zip(second).filter(|(first, second)| !PairRule::allows(**first, **second)).count()
    };
    Some(pairs.iter().map(saturating).sum())
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
        _ if problem.stats().is_none() => Ok((solve(Method::Msq, problem)?, Method::Msq, None)),
        (MethodChoice::Auto, Some(held_out)) => {
            let (solution, verdict) = auto(&candidates(problem), problem, held_out)?;
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
