//! The main job, from a float model and samples to a quantized model and a report.

use std::path::Path;

use onnxquant_ir::Model;
use onnxquant_passes::embeddings::CodedTable;

use crate::allot::{Solution, solve_within_budget};
use crate::calibration::Calibration;
use crate::config::{Config, DataConfig};
use crate::embeddings::{TableReport, quantize_tables};
use crate::error::Error;
use crate::integer::{IntegerPlan, plan_integers};
use crate::load::{prepare, raise_for_integers, read};
use crate::observe::Observer;
use crate::paths::{check_paths, model_bytes};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::reach::Reach;
use crate::report::{CacheReport, Report};
use crate::solve::Job;
use crate::state::State;
use crate::verify_ort::verify;
use crate::write::write;

/// Quantizes `input` into `output`.
///
/// Without `data` only plain rounding (`msq`) is possible. The output appears whole or not at all.
pub fn quantize(
    input: &Path,
    output: &Path,
    data: Option<&DataConfig>,
    config: &Config,
    progress: Progress<'_>,
) -> Result<Report, Error> {
    config.check()?;
    if data.is_none() {
        config.check_without_data()?;
    }
    check_paths(input, output)?;
    let mut report = Report::new(config);

    let mut model = read(input)?;
    report.bytes_before = model_bytes(input, model.external_files());
    let mut calibration = data.map(|data| Calibration::open(&model, data)).transpose()?;
    let state =
        config.state.as_ref().map(|folder| State::open(folder, &model, config, calibration.as_ref())).transpose()?;
    report.prepared = prepare(&mut model)?;
    report.opset_changes = raise_for_integers(&mut model, config)?;

    let plan = Plan::new(&model, config)?;
    if let Some(calibration) = &mut calibration {
        calibration.reach = Reach::find(&model, &plan, calibration)?;
    }
    let solved = loop {
        let file = data.and_then(|data| data.cache.as_deref());
        let parts = Parts { config, calibration: calibration.as_ref(), cache: file, state: state.as_ref(), progress };
        match (solve(model.clone(), plan.clone(), parts), &mut calibration) {
            (Err(error), Some(calibration)) if error.is_of_engine() => {
                calibration.reach = calibration.reach.after(error, &model, &plan, calibration)?;
            }
            (other, _) => break other?,
        }
    };
    let Solved { model, mut solution, tables, cache } = solved;
    report.not_run = calibration.and_then(|calibration| calibration.reach.not_run(&model, &solution.plan));
    report.describe(&mut solution, model.graph(), tables, cache);

    report.verified = verify(&mut solution.fitted, config, output, &report)?;
    report.bytes_after = write(&mut solution.fitted.written, output, &report)?;
    Ok(report)
}

/// What a model is solved with.
struct Parts<'a> {
    config: &'a Config,
    calibration: Option<&'a Calibration>,
    /// Keeps statistics of activations.
    cache: Option<&'a Path>,
    state: Option<&'a State>,
    progress: Progress<'a>,
}

/// A solved model.
struct Solved {
    /// In float, as its layers were solved.
    model: Model,
    solution: Solution,
    tables: Vec<(CodedTable, TableReport)>,
    cache: Option<CacheReport>,
}

/// Decides what runs on integers and finds the codes.
fn solve(mut model: Model, mut plan: Plan, parts: Parts<'_>) -> Result<Solved, Error> {
    let Parts { config, calibration, cache, state, progress } = parts;
    let (mut integers, mut used) = (IntegerPlan::default(), None);
    if let Some(calibration) = calibration {
        let observer = Observer::open(calibration, &model, cache, progress)?;
        integers = plan_integers(&mut model, &mut plan, config, &observer)?;
        used = observer.close()?;
    }
    let tables = quantize_tables(&model, &plan.tables)?;
    let layers = plan.layers.len();
    let job = Job { model: &model, config, layers, integers: &integers, calibration, state, progress };
    let solution = solve_within_budget(job, plan, &tables)?;
    Ok(Solved { model, solution, tables, cache: used })
}
