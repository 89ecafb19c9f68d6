//! What layers are solved with, and what is to be solved for one of them.

use ndarray::{Array3, Axis};
use onnxquant_ir::Model;
use onnxquant_passes::add_to_bias::has_bias;
use onnxquant_passes::cpu::pair_rule;
use onnxquant_passes::weight_form::WeightForm;
use onnxquant_quant::{GramStats, LayerProblem, Method, PairRule, QuantError, QuantSpec};

use crate::config::{Config, LayerRule, MethodChoice};
use crate::judge::metered::Metered;
use crate::judge::served::Served;
use crate::observe::calibration::Calibration;
use crate::observe::reach::Reach;
use crate::plan::assignment::{Assignment, Form};
use crate::plan::layers::PlannedLayer;
use crate::progress::Progress;
use crate::solve::state::State;
use crate::solve::weights::scale_type;
use crate::write::codes::QuantizedBody;

/// Multiply-adds that walks over all layers may take before `auto` does without them: two minutes on one core.
pub(crate) const WALK_BUDGET: f64 = 1.2e12;

/// What layers are solved with.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) model: &'a Model,
    pub(crate) config: &'a Config,
    /// How many layers the model has.
    pub(crate) layers: usize,
    pub(crate) assignment: &'a Assignment,
    /// The samples, where the engine sees a layer on them.
    pub(crate) calibration: Option<&'a Calibration>,
    /// What the engine sees, where there are samples.
    pub(crate) reach: Option<&'a Reach>,
    /// The runtime that judges what is written, where it is there.
    pub(crate) served: Option<&'a Served>,
    /// Measures what is written by the user's own figure, where there is one.
    pub(crate) metered: Option<&'a Metered>,
    pub(crate) state: Option<&'a State>,
    /// Codes of bodies, which are the same in all plans.
    pub(crate) bodies: &'a [QuantizedBody],
    pub(crate) progress: Progress<'a>,
}

/// Whether validation samples have statistics of their own.
pub(crate) fn judges(config: &Config) -> bool {
    config.method != MethodChoice::Fixed(Method::Msq) || config.layer_rules.iter().any(LayerRule::is_fitted)
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
        Some(rule) if job.config.saturates() => spec.with_pairs(rule),
        _ => Ok(spec),
    }
}

/// Whether the activations of a layer are codes too.
fn on_codes(job: Job<'_>, layer: &PlannedLayer) -> bool {
    job.assignment.form(layer.site.id()) != Form::WeightOnly
}

/// The codes of a layer that can saturate beside each other on some processors.
fn pair_rule_of(job: Job<'_>, layer: &PlannedLayer) -> Option<PairRule> {
    let alone = job.model.graph().value(layer.site.input).uses().len() == 1;
    on_codes(job, layer).then(|| pair_rule(&layer.site.view, job.assignment.aligns_channels() && alone)).flatten()
}

/// Pairs of codes that saturate side by side on processors whose products can; none where activations are floats.
pub(crate) fn saturating_pairs(job: Job<'_>, layer: &PlannedLayer, codes: &Array3<i16>) -> Option<usize> {
    let pairs = pair_rule_of(job, layer)?.pairs(codes.dim().1);
    let saturating = |(a, b): &(usize, usize)| {
        let (first, second) = (codes.index_axis(Axis(1), *a), codes.index_axis(Axis(1), *b));
        first.iter().zip(second).filter(|(first, second)| !PairRule::allows(**first, **second)).count()
    };
    Some(pairs.iter().map(saturating).sum())
}
