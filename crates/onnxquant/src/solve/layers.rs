//! Quantizes the planned layers, stage by stage, and certifies each.

use std::collections::HashMap;
use std::ops::Range;

use ndarray::Array3;
use onnxquant_ir::Model;
use onnxquant_quant::{Certified, Outcome, QuantError, certify, corrected_error};

use crate::error::Error;
use crate::judge::held_out::Compared;
use crate::judge::served::seen;
use crate::observe::calibration::{LayerStats, StageStats};
use crate::observe::reach::Reach;
use crate::plan::layers::{Plan, PlannedLayer};
use crate::progress::Phase;
use crate::solve::codes::{Found, find_codes};
use crate::solve::gathered::Gathered;
use crate::solve::job::{Job, judges, layer_problem, saturating_pairs};
use crate::solve::solved::{Findings, Solved, SolvedLayer};
use crate::solve::source::Source;
use crate::solve::tied::Tied;
use crate::solve::waiting::finish_with;
use crate::solve::weights::{failed, weights};
use crate::write::codes::QuantizedTable;

/// Solves all layers of `plan`, in its order; with two streams also the outputs of held-out samples. Stages that an
/// earlier run has solved are not solved again.
pub(crate) fn solve_layers(
    job: Job<'_>,
    plan: &Plan,
    tables: &[QuantizedTable],
) -> Result<(Vec<SolvedLayer>, Option<Compared>), Error> {
    let Job { model, config, progress, .. } = job;
    let mut source = Source::new(job, plan, tables)?;
    let mut tied = TiedCodes::new(job, &plan.layers)?;
    let state = job.state.map(|state| state.layers(plan));
    let mut layers_solved = Vec::with_capacity(plan.layers.len());
    // Stages solved by an earlier run, through which the networks have not gone yet.
    let mut kept_stages: Vec<Range<usize>> = Vec::new();
    for stage in source.stages(model, &plan.layers, config) {
        let (layers, later) = (&plan.layers[stage.clone()], &plan.layers[stage.end..]);
        let kept = match &state {
            Some(state) => finish_with(config, || state.stage(stage.start, layers))?,
            None => None,
        };
        let is_kept = kept.is_some();
        let solved = match kept {
            Some(kept) => {
                kept_stages.push(stage.clone());
                kept
            }
            None => {
                let gathered = state.as_ref().map(|state| Gathered::of(&source, job, layers, state.parts(stage.start)));
                let stats = match gathered.map(|gathered| gathered.all_stats()).transpose()?.flatten() {
                    Some(stats) => {
                        kept_stages.push(stage.clone());
                        Some(stats)
                    }
                    None => {
                        for earlier in kept_stages.drain(..) {
                            let (layers, later) = (&plan.layers[earlier.clone()], &plan.layers[earlier.end..]);
                            source.pass(layers, later, progress)?;
                        }
                        source.statistics(model, layers, later, progress)?
                    }
                };
                tied.solve(job, &plan.layers, stage.start)?;
                solve_stage(job, (stage.start, layers), stats.as_ref(), &tied)?
            }
        };
        for ((index, layer), solved) in stage.zip(layers).zip(solved) {
            if let Some(state) = state.as_ref().filter(|_| !is_kept) {
                state.keep(index, layer, &solved)?;
            }
            let solved = solved.into_layer(layer, tied.tied.is_first(index));
            let solved = solved.map_err(|error| failed(model, layer, error))?;
            if let Source::Streams(streams) = &mut source {
                streams.settle(layer, &solved.weight)?;
            }
            layers_solved.push(solved);
        }
        progress(Phase::Quantize, layers_solved.len(), plan.layers.len());
    }
    let Source::Streams(mut streams) = source else { return Ok((layers_solved, None)) };
    let seen = job.calibration.map_or_else(Vec::new, |calibration| seen(calibration, job.served));
    let parts = state.map(|state| state.compared_parts(&seen));
    let compared = match &parts {
        Some(parts) => finish_with(config, || parts.comparison(streams.parts().0))?,
        None => None,
    };
    if let Some(sums) = compared {
        return Ok((layers_solved, Some(streams.compared(sums)?)));
    }
    for earlier in kept_stages {
        let (layers, later) = (&plan.layers[earlier.clone()], &plan.layers[earlier.end..]);
        streams.pass(layers, later, progress)?;
    }
    Ok((layers_solved, Some(streams.finish(&seen, progress)?)))
}

/// Solves layers that do not depend on each other, of which the first is layer `start`.
fn solve_stage(
    job: Job<'_>,
    (start, layers): (usize, &[PlannedLayer]),
    stats: Option<&StageStats>,
    tied: &TiedCodes,
) -> Result<Vec<Solved>, Error> {
    let solve = |(at, layer): (usize, &PlannedLayer)| {
        solve_layer(job, (start + at, layer), stats.and_then(|stats| stats.of(at)), tied)
    };
    layers.iter().enumerate().map(solve).collect()
}

/// Solves one layer; the number is its place in the plan.
pub(super) fn solve_layer(
    job: Job<'_>,
    (index, layer): (usize, &PlannedLayer),
    stats: Option<LayerStats<'_>>,
    tied: &TiedCodes,
) -> Result<Solved, Error> {
    let weights = weights(job.model, layer)?;
    let found = match tied.of(index) {
        Some(found) => found,
        None => find_codes(job, layer, &weights, stats.as_ref())?,
    };
    let solved = describe(job, layer, &weights, stats.as_ref(), found)?;
    (job.progress)(Phase::Quantize, index + 1, job.layers);
    Ok(solved)
}

/// The codes of tied layers, once they are needed.
pub(super) struct TiedCodes {
    tied: Tied,
    /// By the first layer of each group.
    found: Option<HashMap<usize, Found>>,
}

impl TiedCodes {
    pub(super) fn new(job: Job<'_>, layers: &[PlannedLayer]) -> Result<Self, Error> {
        Ok(Self { tied: Tied::find(job, layers)?, found: None })
    }

    /// Solves the groups that have layers at `from` or behind it, unless that was done.
    pub(super) fn solve(&mut self, job: Job<'_>, layers: &[PlannedLayer], from: usize) -> Result<(), Error> {
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

/// What codes do to a layer, by the statistics of the layer itself.
pub(super) fn describe(
    job: Job<'_>,
    layer: &PlannedLayer,
    weights: &Array3<f32>,
    stats: Option<&LayerStats<'_>>,
    found: Found,
) -> Result<Solved, Error> {
    let failed = |source: QuantError| failed(job.model, layer, source);
    let Found { solution, method, verdict, readers } = found;
    let problem = layer_problem(job, layer, weights, stats.map(|stats| stats.calibration)).map_err(failed)?;
    let validation = stats.and_then(|stats| stats.validation);
    let Certified { certificate, correction } = certify(&problem, &solution).map_err(failed)?;
    let chosen = verdict.as_ref().filter(|_| readers == 1).map(|verdict| &verdict.winner().outcome);
    let validation_error = match (chosen, validation) {
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
        validation_error,
        notes: solution.notes.iter().map(ToString::to_string).chain(tied).chain(of_rows).collect(),
        certificate,
        verdict,
    };
    Ok(Solved { solution, correction, findings })
}

/// What a reader should know of the rows behind a layer's codes.
fn about_rows(stats: &LayerStats<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if stats.lacks_validation {
        notes.push("judged on the calibration rows: no row of the validation samples comes here".to_owned());
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
