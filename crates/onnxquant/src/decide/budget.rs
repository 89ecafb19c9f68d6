//! Solves the model: with the bits that the settings name, or with those that a budget allows.

use onnxquant_calib::Measurement;

use crate::accuracy::Accuracy;
use crate::config::{Budget, Config, Duty};
use crate::decide::curve::Curve;
use crate::decide::fit::{Fitted, Fitting};
use crate::decide::goal::Goal;
use crate::decide::hold::hold;
use crate::decide::mend::{TO_BLAME, left_in_float, mended};
use crate::decide::sweep::Sweep;
use crate::decide::trail::Trail;
use crate::error::Error;
use crate::plan::assignment::Assignment;
use crate::plan::layers::Plan;
use crate::solve::job::Job;
use crate::solve::layers::solve_layers;
use crate::solve::shares::do_share;
use crate::solve::solved::{AboutLayer, SolvedLayer};
use crate::solve::waiting::{chooses, chosen};
use crate::write::codes::{Codes, QuantizedTable};

/// How often weights are mended.
const MOST_MENDED: usize = 3;

/// A quantized model.
pub(crate) struct Solution {
    /// With the bits that every layer has.
    pub(crate) plan: Plan,
    /// The layers that run on integers still.
    pub(crate) assignment: Assignment,
    pub(crate) trail: Trail,
    pub(crate) layers: Vec<AboutLayer>,
    pub(crate) fitted: Fitted,
    /// What bits buy, where they were chosen in this run.
    pub(crate) curve: Option<Curve>,
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
        Some(Budget::MinSqnrDb(_)) if job.config.shard.as_ref().is_some_and(|shard| shard.duty() != Duty::Finish) => {
            let problem =
                "several processes cannot share a run that tries bits until --min-sqnr is reached: run it alone";
            return Err(Error::Usage(problem.to_owned()));
        }
        Some(Budget::MinSqnrDb(wanted)) => return reach(job, &plan, tables, wanted, &trail),
        Some(budget) => {
            let curve = allot(job, &mut plan, tables, budget)?;
            return Ok(Solution { curve, ..solve(job, plan, tables, trail)? });
        }
    }
    solve(job, plan, tables, trail)
}

/// Solves all layers with the bits of the plan and measures the model.
///
/// Where the accuracy that is asked for is missed, or activations had to go back to floats, because of weights, these are
/// mended and the layers solved again. Where it is missed still although activations went back, the layers may have been
/// fitted to activations that were too wild to fit to: they are solved again without, and the more exact model is kept.
fn solve(job: Job<'_>, plan: Plan, tables: &[QuantizedTable], trail: Trail) -> Result<Solution, Error> {
    let mut best = solve_once(job, plan, tables, trail)?;
    for _ in 0..MOST_MENDED {
        let Some(again) = solve_mended(job, &best, tables)? else { break };
        if !is_better(job.config, &again, &best) {
            break;
        }
        best = again;
    }
    if job.assignment.is_empty() || excess(job.config, &best).is_none_or(|excess| excess <= 1.0) {
        return Ok(best);
    }
    let floats = best.assignment.keep_in_float(job.model.graph(), &best.assignment.leaders())?;
    let job = Job { assignment: &floats, state: None, ..job };
    let again = solve_once(job, best.plan.clone(), tables, best.trail.clone())?;
    Ok(if excess(job.config, &again) < excess(job.config, &best) { again } else { best })
}

/// By which factor the error is too large, where there is a goal.
fn excess(config: &Config, solution: &Solution) -> Option<f64> {
    Some(Goal::of(config)?.excess(&solution.fitted.held_out.as_ref()?.accuracy))
}

/// Whether a solution reaches the goal with more layers on integers, or comes nearer to it.
fn is_better(config: &Config, new: &Solution, old: &Solution) -> bool {
    let [new_excess, old_excess] = [new, old].map(|found| excess(config, found).unwrap_or(0.0).max(1.0));
    new_excess < old_excess || (new_excess <= old_excess && new.assignment.layers() > old.assignment.layers())
}

/// Solves the layers again with better weights; nothing where weights are not to blame, or someone named their bits.
fn solve_mended(job: Job<'_>, found: &Solution, tables: &[QuantizedTable]) -> Result<Option<Solution>, Error> {
    let Job { config, model, .. } = job;
    let (Some(goal), Some(of_weights)) = (Goal::of(config), &found.fitted.of_weights) else { return Ok(None) };
    let excess = goal.excess(of_weights);
    if !excess.is_finite() || excess <= TO_BLAME || config.budget.is_some() || config.plan.is_some() {
        return Ok(None);
    }
    let Some(plan) = mended(&found.plan, &found.layers, excess, config)? else { return Ok(None) };
    let assignment = job.assignment.keep_in_float(model.graph(), &left_in_float(&plan))?;
    let job = Job { assignment: &assignment, layers: plan.layers.len(), state: None, ..job };
    solve_once(job, plan, tables, found.trail.clone()).map(Some)
}

fn solve_once(job: Job<'_>, plan: Plan, tables: &[QuantizedTable], trail: Trail) -> Result<Solution, Error> {
    let Job { model, config, calibration, served, metered, progress, .. } = job;
    if let Some(shard) = config.shard.as_ref().filter(|shard| shard.duty() != Duty::Finish) {
        return do_share(job, &plan, tables, shard).and(Err(Error::ShareDone));
    }
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
    Ok(Solution { plan, assignment, trail, layers, fitted, curve: None })
}

/// Solves the model with the fewest bits that leave the outputs this exact.
fn reach(
    job: Job<'_>,
    plan: &Plan,
    tables: &[QuantizedTable],
    wanted_db: f64,
    trail: &Trail,
) -> Result<Solution, Error> {
    let sweep = Sweep::new(job, plan, tables)?;
    let solution = sweep.reach(wanted_db, |bits| {
        let mut plan = plan.clone();
        plan.set_bits(job.config, bits)?;
        let solution = solve(job, plan, tables, trail.clone())?;
        let reached = reached(&solution.fitted, wanted_db);
        Ok((solution, reached))
    })?;
    Ok(Solution { curve: sweep.curve(), ..solution })
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

/// Chooses the bits of every layer and puts them into the plan; tells what bits buy.
fn allot(job: Job<'_>, plan: &mut Plan, tables: &[QuantizedTable], budget: Budget) -> Result<Option<Curve>, Error> {
    let look = || Ok(job.state.map(|state| state.bits(plan)).transpose()?.flatten());
    let kept = if chooses(job.config) { look()? } else { chosen(job.config, look)? };
    let (bits, curve) = match kept {
        Some(bits) => (bits, None),
        None => {
            let sweep = Sweep::new(job, plan, tables)?;
            (sweep.within(budget)?, sweep.curve())
        }
    };
    plan.set_bits(job.config, &bits)?;
    job.state.map_or(Ok(()), |state| state.keep_bits(plan, job.config))?;
    Ok(curve)
}
