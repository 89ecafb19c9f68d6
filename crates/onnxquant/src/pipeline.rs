//! The main job, from a float model and samples to a quantized model and a report.

use std::path::Path;

use crate::attempt::{Parts, Solved, solve_within_reach};
use crate::calibration::Calibration;
use crate::config::{Config, DataConfig};
use crate::error::Error;
use crate::load::{prepare, read};
use crate::paths::{check_paths, model_bytes};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::raise::raise_for_codes;
use crate::report::Report;
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
    let (model, opset_changes) = raise_for_codes(model, config)?;
    report.opset_changes = opset_changes;

    let plan = Plan::new(&model, config)?;
    let file = data.and_then(|data| data.cache.as_deref());
    let parts = Parts { config, cache: file, state: state.as_ref(), progress };
    let Solved { model, mut solution, tables, cache } = solve_within_reach(&model, &plan, &mut calibration, parts)?;
    report.not_run = calibration.and_then(|calibration| calibration.reach.not_run(&model, &solution.plan));
    report.describe(&mut solution, model.graph(), tables, cache);

    report.verified = verify(&mut solution.fitted, config, output, &report)?;
    report.bytes_after = write(&mut solution.fitted.written, output, &report)?;
    Ok(report)
}
