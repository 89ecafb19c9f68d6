//! Solves the model: with the bits that the settings name, or with those that a budget allows.

use onnxquant_calib::Measurement;

use crate::accuracy::Accuracy;
use crate::config::Budget;
use crate::decide::fit::{Fitted, Fitting};
use crate::decide::goal::Goal;
use crate::decide::hold::hold;
use crate::decide::sweep::Sweep;
use crate::decide::trail::Trail;
use crate::error::Error;
use crate::plan::assignment::Assignment;
use crate::plan::layers::Plan;
use crate::solve::job::Job;
use crate::solve::layers::solve_layers;
use crate::solve::solved::{AboutLayer, SolvedLayer};
use crate::write::codes::{Codes, QuantizedTable};

/// A quantized model.
pub(crate) struct Solution {
    /// With the bits that every layer has.
    pub(crate) plan: Plan,
    /// The layers that run on integers still.
    pub(crate) assignment: Assignment,
    pub(crate) trail: Trail,
    pub(crate) layers: Vec<AboutLayer>,
    pub(crate) fitted: Fitted,
}

/// Solves the layers of `plan`; their bits are chosen first where there is a budget.
pub(crate) fn solve_within_budget(
    job: Job<'_>,
    mut plan: Plan,
    tables: &[QuantizedTable],
    trail: Trail,
) -> Result<Solution, Error> {
    match job.config.budget.filter(|_| !plan.layers.is_empty()) {
        None => {}
        Some(Budget::MinSqnrDb(wanted)) => return reach(job, &plan, tables, wanted, &trail),
        Some(budget) => allot(job, &mut plan, tables, budget)?,
    }
    solve(job, plan, tables, trail)
}

/// Solves all layers with the bits of the plan and measures the model.
///
/// Where the accuracy that is asked for is missed although activations go back to floats, the layers may have been
/// fitted to activations that were too wild to fit to: they are solved again without, and the more exact model is kept.
fn solve(job: Job<'_>, plan: Plan, tables: &[QuantizedTable], trail: Trail) -> Result<Solution, Error> {
    let first = solve_once(job, plan.clone(), tables, trail)?;
    let excess = |solution: &Solution| {
        let goal = Goal::of(job.config)?;
        Some(goal.excess(&solution.fitted.held_out.as_ref()?.accuracy))
    };
    if job.assignment.is_empty() || excess(&first).is_none_or(|excess| excess <= 1.0) {
        return Ok(first);
    }
    let floats = first.assignment.keep_in_float(job.model.graph(), &first.assignment.leaders())?;
    let job = Job { assignment: &floats, state: None, ..job };
    let again = solve_once(job, plan, tables, first.trail.clone())?;
    Ok(if excess(&again) < excess(&first) { again } else { first })
}

fn solve_once(job: Job<'_>, plan: Plan, tables: &[QuantizedTable], trail: Trail) -> Result<Solution, Error> {
    let Job { model, config, calibration, served, metered, progress, .. } = job;
    let (solved, of_streams) = solve_layers(job, &plan, tables)?;
    let (codes, layers): (Vec<_>, Vec<_>) = solved.into_iter().map(SolvedLayer::into_parts).unzip();
    let codes = Codes {
        layers: &codes,
        tables,
        planned_tables: &plan.tables,
        bodies: job.bodies,
        planned_bodies: &plan.bodies,
    };
    let fitting = Fitting { model, plan: &plan, codes, of_streams, config, calibration, served, progress };
    let fit = fitting.fit(job.assignment.clone(), trail)?;
    let (fitted, assignment, trail) = match metered {
        Some(metered) => hold(&fitting, metered, fit)?,
        None => fit,
    };
    Ok(Solution { plan, assignment, trail, layers, fitted })
}

/// Solves the model with the fewest bits that leave the outputs this exact.
fn reach(
    job: Job<'_>,
    plan: &Plan,
    tables: &[QuantizedTable],
    wanted_db: f64,
    trail: &Trail,
) -> Result<Solution, Error> {
    Sweep::new(job, plan, tables)?.reach(wanted_db, |bits| {
        let mut plan = plan.clone();
        plan.set_bits(job.config, bits)?;
        let solution = solve(job, plan, tables, trail.clone())?;
        let reached = reached(&solution.fitted, wanted_db);
        Ok((solution, reached))
    })
}

/// The SQNR that was reached: as simulated, so that bits do not depend on the machine, unless the runtime falls short
/// where the simulation did not.
fn reached(fitted: &Fitted, wanted_db: f64) -> f64 {
    let decibels = |accuracy: &Measurement<Accuracy>| accuracy.measured().map(|found| found.sqnr_db);
    // What was not measured has reached nothing.
    let simulated = fitted.held_out.as_ref().and_then(|found| decibels(&found.accuracy)).unwrap_or(f64::NEG_INFINITY);
    let measured = fitted.measured.as_ref().and_then(|found| decibels(&found.accuracy));
    measured.filter(|measured| simulated >= wanted_db && *measured < wanted_db).unwrap_or(simulated)
}

/// Chooses the bits of every layer and puts them into the plan.
fn allot(job: Job<'_>, plan: &mut Plan, tables: &[QuantizedTable], budget: Budget) -> Result<(), Error> {
    let kept = job.state.map(|state| state.bits(plan)).transpose()?.flatten();
    let bits = match kept {
        Some(bits) => bits,
        None => Sweep::new(job, plan, tables)?.within(budget)?,
    };
    plan.set_bits(job.config, &bits)?;
    job.state.map_or(Ok(()), |state| state.keep_bits(plan, job.config))
}
