//! Solves a model on what the calibration engine can run of it: where the engine fails on the way, again with less.

use std::path::Path;

use onnxquant_ir::Model;
use onnxquant_passes::embeddings::CodedTable;

use crate::allot::{Solution, solve_within_budget};
use crate::calibration::Calibration;
use crate::config::{Budget, Config};
use crate::embeddings::{TableReport, quantize_tables};
use crate::error::Error;
use crate::integer::{IntegerPlan, plan_integers};
use crate::observe::Observer;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::reach::Reach;
use crate::report::CacheReport;
use crate::solve::Job;
use crate::state::State;

/// What a model is solved with.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    /// Keeps statistics of activations.
    pub(crate) cache: Option<&'a Path>,
    pub(crate) state: Option<&'a State>,
    pub(crate) progress: Progress<'a>,
}

/// A solved model.
pub(crate) struct Solved {
    /// In float, as its layers were solved.
    pub(crate) model: Model,
    pub(crate) solution: Solution,
    pub(crate) tables: Vec<(CodedTable, TableReport)>,
    pub(crate) cache: Option<CacheReport>,
}

/// Solves `model`; what the engine turned out to reach of it is left in `calibration`.
pub(crate) fn solve_within_reach(
    model: &Model,
    plan: &Plan,
    calibration: &mut Option<Calibration>,
    parts: Parts<'_>,
) -> Result<Solved, Error> {
    if let Some(calibration) = calibration {
        calibration.reach = Reach::find(model, plan, calibration)?;
        calibration.divide_outputs(model)?;
    }
    loop {
        match (solve(model.clone(), plan.clone(), calibration.as_ref(), parts), &mut *calibration) {
            (Err(error), Some(calibration)) if error.is_of_engine() => {
                calibration.reach = calibration.reach.after(error, model, plan, calibration)?;
                calibration.divide_outputs(model)?;
            }
            (result, _) => return result,
        }
    }
}

/// Decides what runs on integers and finds the codes.
fn solve(
    mut model: Model,
    mut plan: Plan,
    calibration: Option<&Calibration>,
    parts: Parts<'_>,
) -> Result<Solved, Error> {
    let Parts { config, cache, state, progress } = parts;
    let reach = calibration.map(|calibration| &calibration.reach);
    // Without a layer that the engine sees it is as if there were no data.
    let calibration = calibration.filter(|calibration| calibration.reach.sees_layers(model.graph(), &plan));
    if let (Some(reach), None, Some(Budget::MinSqnrDb(_))) = (reach, calibration, config.budget)
        && let Some(error) = reach.unmeasurable()
    {
        return Err(error);
    }
    let (mut integers, mut used) = (IntegerPlan::default(), None);
    if let Some(calibration) = calibration {
        let observer = Observer::open(calibration, &model, cache, progress)?;
        integers = plan_integers(&mut model, &mut plan, config, &observer)?;
        used = observer.close()?;
    }
    let tables = quantize_tables(&model, &plan.tables)?;
    let layers = plan.layers.len();
    let job = Job { model: &model, config, layers, integers: &integers, calibration, reach, state, progress };
    let solution = solve_within_budget(job, plan, &tables)?;
    Ok(Solved { model, solution, tables, cache: used })
}
