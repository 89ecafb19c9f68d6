//! Solves the model: with the bits that the settings name, or with those that a budget allows.

use onnxquant_passes::embeddings::CodedTable;

use crate::config::Budget;
use crate::embeddings::TableReport;
use crate::error::Error;
use crate::fit::{Fitted, Fitting};
use crate::integer::{Goal, IntegerPlan};
use crate::mixed::Sweep;
use crate::plan::Plan;
use crate::report::LayerReport;
use crate::solve::{Job, SolvedLayer, solve_layers};
use crate::write::Codes;

/// A quantized model.
pub(crate) struct Solution {
    /// With the bits that every layer has.
    pub(crate) plan: Plan,
    /// The layers that run on integers still.
    pub(crate) integers: IntegerPlan,
    pub(crate) layers: Vec<LayerReport>,
    pub(crate) fitted: Fitted,
}

/// Solves the layers of `plan`; their bits are chosen first where there is a budget.
pub(crate) fn solve_within_budget(
    job: Job<'_>,
    mut plan: Plan,
    tables: &[(CodedTable, TableReport)],
) -> Result<Solution, Error> {
    match job.config.budget.filter(|_| !plan.layers.is_empty()) {
        None => {}
        Some(Budget::MinSqnrDb(wanted)) => return reach(job, &plan, tables, wanted),
        Some(budget) => allot(job, &mut plan, tables, budget)?,
    }
    solve(job, plan, tables)
}

/// Solves all layers with the bits of the plan and measures the model.
///
/// Where the accuracy that is asked for is missed although activations go back to floats, the layers may have been
/// fitted to activations that were too wild to fit to: they are solved again without, and the more exact model is kept.
fn solve(job: Job<'_>, plan: Plan, tables: &[(CodedTable, TableReport)]) -> Result<Solution, Error> {
    let first = solve_once(job, plan.clone(), tables)?;
    let excess = |solution: &Solution| {
        let goal = Goal::of(job.config)?;
        Some(goal.excess(&solution.fitted.held_out.as_ref()?.judged()))
    };
    if job.integers.is_empty() || excess(&first).is_none_or(|excess| excess <= 1.0) {
        return Ok(first);
    }
    let mut floats = first.integers.clone();
    floats.keep_in_float(job.model.graph(), &floats.leaders())?;
    let again = solve_once(Job { integers: &floats, state: None, ..job }, plan, tables)?;
    Ok(if excess(&again) < excess(&first) { again } else { first })
}

fn solve_once(job: Job<'_>, plan: Plan, tables: &[(CodedTable, TableReport)]) -> Result<Solution, Error> {
    let Job { model, config, calibration, progress, .. } = job;
    let (solved, of_streams) = solve_layers(job, &plan, tables)?;
    let (layers, codes): (Vec<_>, Vec<_>) = solved.into_iter().map(SolvedLayer::into_parts).unzip();
    let codes = Codes { layers: &codes, tables, planned_tables: &plan.tables };
    let mut integers = job.integers.clone();
    let fitted = Fitting { model, plan: &plan, codes, of_streams, config, calibration, progress }.fit(&mut integers)?;
    Ok(Solution { plan, integers, layers, fitted })
}

/// Solves the model with the fewest bits that leave the outputs this exact.
fn reach(job: Job<'_>, plan: &Plan, tables: &[(CodedTable, TableReport)], wanted_db: f64) -> Result<Solution, Error> {
    Sweep::new(job, plan, tables)?.reach(wanted_db, |bits| {
        let mut plan = plan.clone();
        plan.set_bits(job.config, bits)?;
        let solution = solve(job, plan, tables)?;
        let reached = solution.fitted.held_out.as_ref().map_or(f64::INFINITY, |found| found.judged().sqnr_db);
        Ok((solution, reached))
    })
}

/// Chooses the bits of every layer and puts them into the plan.
fn allot(job: Job<'_>, plan: &mut Plan, tables: &[(CodedTable, TableReport)], budget: Budget) -> Result<(), Error> {
    let kept = job.state.map(|state| state.bits(plan)).transpose()?.flatten();
    let bits = match kept {
        Some(bits) => bits,
        None => Sweep::new(job, plan, tables)?.within(budget)?,
    };
    plan.set_bits(job.config, &bits)?;
    job.state.map_or(Ok(()), |state| state.keep_bits(plan, job.config))
}
