//! Solves a model on what the calibration engine can run of it: where the engine fails on the way, again with less.

use std::path::Path;

use onnxquant_ir::{Graph, Model};
use onnxquant_passes::sites::LayerId;

use crate::config::{Activations, Budget, Config, EngineChoice, KvCache};
use crate::decide::budget::{Solution, solve_within_budget};
use crate::decide::decided::Decided;
use crate::decide::fastest::without_samples;
use crate::decide::forms::mark_slow_layers;
use crate::decide::integers::decide_integers;
use crate::error::Error;
use crate::judge::metered::Metered;
use crate::judge::served::Served;
use crate::observe::caches::scaled_caches;
use crate::observe::calibration::Calibration;
use crate::observe::observer::{CacheReport, Observer};
use crate::observe::reach::Reach;
use crate::plan::layers::Plan;
use crate::plan::tables::PlannedTable;
use crate::progress::Progress;
use crate::solve::bodies::{SolvedBodies, solve_bodies};
use crate::solve::job::Job;
use crate::solve::state::State;
use crate::solve::tables::{needs_tables, quantize_tables};
use crate::write::codes::{Codes, QuantizedTable};
use crate::write::written::{Written, written_bodies};

/// What a model is solved with.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    /// Keeps statistics of activations.
    pub(crate) cache: Option<&'a Path>,
    pub(crate) state: Option<&'a State>,
    /// The runtime that judges what is written, and the samples for that.
    pub(crate) served: Option<&'a Served>,
    /// Measures what is written by the user's own figure, where there is one.
    pub(crate) metered: Option<&'a Metered>,
    pub(crate) progress: Progress<'a>,
}

/// A solved model.
pub(crate) struct Solved {
    /// In float, as its layers were solved.
    pub(crate) model: Model,
    pub(crate) solution: Solution,
    pub(crate) tables: Vec<QuantizedTable>,
    pub(crate) bodies: SolvedBodies,
    pub(crate) cache: Option<CacheReport>,
}

impl Solved {
    /// The bodies with codes instead of weights, each before those inside it.
    pub(crate) fn written_bodies(&self) -> Result<Vec<Written>, Error> {
        let (bodies, planned_bodies) = (&self.bodies.codes[..], &self.solution.plan.bodies[..]);
        written_bodies(Codes { bodies, planned_bodies, ..Codes::default() })
    }

    /// The model with codes instead of weights.
    pub(crate) fn written(&self) -> &Model {
        &self.solution.fitted.written
    }

    /// Whether anything has codes; `bodies` are those that were written.
    pub(crate) fn has_codes(&self, bodies: &[Written]) -> bool {
        let in_body = |body: &Written| !body.layers.is_empty() || !body.table_bytes.is_empty();
        let Solution { fitted, assignment, .. } = &self.solution;
        let has_caches = !assignment.caches().is_empty();
        has_caches || !fitted.layers.is_empty() || !self.tables.is_empty() || bodies.iter().any(in_body)
    }

    /// Every layer with the graph in which it stands, by what people call it: `labels` are those of the layers of the main
    /// graph and then of `bodies`; those whose weight is a table's come last.
    pub(crate) fn places<'a>(
        &'a self,
        bodies: &'a [Written],
        labels: impl Iterator<Item = &'a str>,
    ) -> impl Iterator<Item = (&'a str, (&'a Graph, LayerId))> {
        let Solution { plan, fitted, .. } = &self.solution;
        let of_main = fitted.layers.iter().map(|&(id, _)| (fitted.written.graph(), id));
        let inner = bodies.iter().flat_map(|body| body.layers.iter().map(|&(id, _)| (body.model.graph(), id)));
        let heads = plan.tables.iter().flat_map(PlannedTable::layers);
        labels.zip(of_main.chain(inner)).chain(heads.map(|(label, id)| (label, (fitted.written.graph(), id))))
    }
}

/// Solves `model`; what the engine turned out to reach of it is left in `calibration`.
pub(crate) fn solve_within_reach(
    model: &Model,
    plan: &Plan,
    calibration: &mut Option<Calibration>,
    parts: Parts<'_>,
) -> Result<Solved, Error> {
    if let Some(calibration) = calibration {
        calibration.reach = Reach::find(model, plan, &calibration.samples)?;
        calibration.divide_outputs(model)?;
    }
    loop {
        match (solve(model.clone(), plan.clone(), calibration.as_ref(), parts), &mut *calibration) {
            (Err(error), Some(calibration)) if error.is_of_engine() => {
                calibration.reach = calibration.reach.after(error, model, plan, &calibration.samples)?;
                calibration.divide_outputs(model)?;
            }
            (result, _) => return result,
        }
    }
}

/// Decides what runs on integers and finds the codes.
fn solve(model: Model, plan: Plan, calibration: Option<&Calibration>, parts: Parts<'_>) -> Result<Solved, Error> {
    let Parts { config, cache, state, served, metered, progress } = parts;
    let reach = calibration.map(|calibration| &calibration.reach);
    let with_samples = calibration;
    // Without a layer that the engine sees it is as if there were no data.
    let calibration = calibration.filter(|calibration| calibration.reach.sees_layers(model.graph(), &plan));
    if let (Some(reach), None, Some(Budget::MinSqnrDb(_))) = (reach, calibration, config.budget)
        && let Some(error) = reach.unmeasurable()
    {
        return Err(error);
    }
    let (mut decided, mut used) = (Decided::in_float(model, plan), None);
    if let Some(calibration) = calibration {
        let observer = Observer::open(calibration, &decided.model, cache, progress)?;
        decided = decide_integers(decided, config, &observer)?;
        mark_slow_layers(&mut decided, config)?;
        used = observer.close()?;
    } else if config.activations == Activations::Dynamic {
        decided.assignment = without_samples(&decided.model, &decided.plan, config);
    }
    let Decided { model, plan, mut assignment, trail } = decided;
    if config.kv_cache == KvCache::Int8 {
        let Some(calibration) = with_samples else {
            return Err(Error::Internal("caches get scales from samples, and there are none".to_owned()));
        };
        assignment = assignment.with_caches(scaled_caches(&model, calibration, progress)?);
    }
    let needed = if needs_tables(config) { &plan.tables[..] } else { &[] };
    let tables = quantize_tables(&model, needed, state)?;
    let runtime = config.runtime.as_ref().filter(|_| config.engine != EngineChoice::Tract);
    let job = Job {
        model: &model,
        config,
        layers: plan.all_layers().len(),
        assignment: &assignment,
        calibration: with_samples,
        reach,
        served,
        metered,
        state,
        bodies: &[],
        progress,
    };
    let bodies = solve_bodies(job, &plan, runtime)?;
    let job = Job { layers: plan.layers.len(), calibration, bodies: &bodies.codes, ..job };
    let solution = solve_within_budget(job, plan, &tables, trail)?;
    Ok(Solved { model, solution, tables, bodies, cache: used })
}
