//! Time and memory of a run, from what it has to do.
//!
//! # Method
//!
//! Samples cost what one of them was seen to cost in the float network, times the number of networks that they go through.
//! The engine gets ready for each of these. Moments cost a multiply-add for each pair of inputs and row, and solvers what
//! [`seconds`] says. Memory is that of the model in its forms, of the statistics of the largest stage, of the solver on the
//! largest layer and of values on their way.
//!
//! # Failure
//!
//! Times are rough guesses: `docs/src/terminal.md` has runs beside what was told of them.
//!
//! How often `auto` measures candidates, and how often layers go back to float, depends on the data: of these a middle number
//! is taken, twice as high where there is a goal.

use onnxquant_calib::{Split, gram_bytes};
use onnxquant_ir::Model;

use super::OneSample;
use crate::config::{Activations, Config};
use crate::decide::goal::Goal;
use crate::observe::calibration::request;
use crate::plan::layers::{Plan, PlannedLayer};
use crate::report::record::Step;
use crate::solve::cost::seconds;
use crate::solve::streams::stages;

/// Seconds of one thread for a multiply-add of moments.
const MOMENT_SECONDS: f64 = 1.0e-10;
/// Networks that every sample goes through while integers and ranges are chosen, without a goal and with one.
const OBSERVED: [f64; 2] = [4.0, 8.0];
/// Networks for which the engine gets ready; those of the stages are two.
const READY: f64 = 2.0;
/// Seconds that a run takes at any rate.
const ANY: f64 = 0.2;
/// Networks that held-out samples go through when the result is measured.
const COMPARED: f64 = 4.0;
/// Bytes that the solver takes by K^2.
const SOLVER_BYTES: f64 = 24.0;
/// Forms of the model that are in memory at a time: mapped, as floats, and packed for the engine in two networks.
const FORMS: f64 = 3.0;
/// Bytes of the program itself.
const PROGRAM_BYTES: f64 = 60e6;

/// What a layer takes.
struct LayerWork {
    inputs: f64,
    groups: f64,
    /// Of one sample, in each group.
    rows: f64,
    /// Seconds of one thread for the codes.
    seconds: f64,
}

/// What there is to do.
pub(super) struct Work {
    layers: Vec<LayerWork>,
    sample_seconds: f64,
    ready_seconds: f64,
    sample_bytes: u64,
    /// Bytes of the moments of the largest stage.
    moment_bytes: u64,
}

impl Work {
    pub(super) fn of(model: &Model, plan: &Plan, sample: Option<&OneSample>, config: &Config) -> Self {
        let rows = |at: usize| sample.and_then(|sample| sample.rows.get(at)).copied().unwrap_or(0);
        let layers = plan.all_layers();
        let of_layer = |(at, layer): (usize, &PlannedLayer)| LayerWork {
            inputs: layer.site.view.inputs() as f64,
            groups: layer.site.view.groups() as f64,
            rows: rows(at) as f64,
            seconds: seconds(layer, config, layers.len(), sample.map(|sample| rows(at) as f64 * sample.fitted as f64)),
        };
        let moments = |stage: std::ops::Range<usize>| {
            let mut requests: Vec<_> = plan.layers[stage].iter().map(|layer| request(model, layer)).collect();
            requests.dedup();
            gram_bytes(&requests)
        };
        let stages = stages(model, &plan.layers, config.memory_limit_bytes);
        Self {
            layers: layers.iter().copied().enumerate().map(of_layer).collect(),
            sample_seconds: sample.map_or(0.0, |sample| sample.seconds),
            ready_seconds: sample.map_or(0.0, |sample| sample.ready_seconds),
            sample_bytes: sample.map_or(0, |sample| sample.bytes),
            moment_bytes: stages.into_iter().map(moments).max().unwrap_or(0),
        }
    }
}

/// What it is done with.
pub(super) struct Job<'a> {
    pub(super) config: &'a Config,
    /// The samples, where there are any.
    pub(super) split: Option<&'a Split>,
}

impl Job<'_> {
    /// Seconds, step by step.
    pub(super) fn steps(&self, work: &Work) -> Vec<Step> {
        let threads = rayon::current_num_threads() as f64;
        let (fitted, held_out) = self.split.map_or((0.0, 0.0), |split| {
            ((split.calibration.len() + split.validation.len()) as f64, split.held_out.len() as f64)
        });
        let observes = matches!(self.config.activations, Activations::Static | Activations::Auto);
        let observed = if observes { OBSERVED[usize::from(Goal::of(self.config).is_some())] } else { 0.0 };
        let ready = (READY + observed) * work.ready_seconds;
        let networks = if self.config.one_pass { 1.0 } else { 2.0 };
        let moments: f64 = work.layers.iter().map(|layer| layer.rows * layer.inputs.powi(2) * layer.groups).sum();
        let moments = networks * moments * fitted * MOMENT_SECONDS;
        let run = (observed * fitted + networks * (fitted + held_out)) * work.sample_seconds;
        let solved: f64 = work.layers.iter().map(|layer| layer.seconds).sum();
        let compared = COMPARED * held_out * work.sample_seconds;
        let step = |step: &str, seconds: f64| Step { step: step.to_owned(), seconds };
        let steps = [
            step("calibrate", ANY + ready + (run + moments) / threads),
            step("quantize", solved / threads),
            step("compare", compared / threads),
        ];
        steps.into_iter().filter(|step| step.seconds > 0.0).collect()
    }

    /// Bytes at the peak.
    pub(super) fn memory(&self, work: &Work, model_bytes: u64) -> u64 {
        let judged = if self.split.is_some() { 2.0 } else { 0.0 };
        let widest = work.layers.iter().map(|layer| layer.inputs).fold(0.0, f64::max);
        let solver = if self.split.is_some() { SOLVER_BYTES * widest.powi(2) } else { 0.0 };
        let values = work.sample_bytes as f64 * rayon::current_num_threads() as f64 * 2.0;
        (PROGRAM_BYTES + FORMS * model_bytes as f64 + judged * work.moment_bytes as f64 + solver + values) as u64
    }
}
