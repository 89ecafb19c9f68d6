//! The main job, from a float model and samples to a quantized model and a report.

use std::path::Path;

use crate::allot::solve_within_budget;
use crate::calibration::Calibration;
use crate::config::{Config, DataConfig};
use crate::embeddings::quantize_tables;
use crate::error::Error;
use crate::integer::{IntegerPlan, plan_integers};
use crate::load::{prepare, raise_for_integers, read};
use crate::observe::Observer;
use crate::paths::{check_paths, model_bytes};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Report;
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
    let calibration = data.map(|data| Calibration::open(&model, data)).transpose()?;
    let calibration = calibration.as_ref();
    let state = config.state.as_ref().map(|folder| State::open(folder, &model, config, calibration)).transpose()?;
    report.prepared = prepare(&mut model)?;
    report.opset_changes = raise_for_integers(&mut model, config)?;

    let mut plan = Plan::new(&model, config)?;
    let (mut integers, mut cache) = (IntegerPlan::default(), None);
    if let Some(calibration) = calibration {
        let file = data.and_then(|data| data.cache.as_deref());
        let observer = Observer::open(calibration, &model, file, progress)?;
        integers = plan_integers(&mut model, &mut plan, config, &observer)?;
        cache = observer.close()?;
    }

    let tables = quantize_tables(&model, &plan.tables)?;
    let layers = plan.layers.len();
    let job = Job { model: &model, config, layers, integers: &integers, calibration, state: state.as_ref(), progress };
    let mut solution = solve_within_budget(job, plan, &tables)?;
    report.describe(&mut solution, model.graph(), tables, cache);

    report.verified = verify(&mut solution.fitted, config, output, &report)?;
    report.bytes_after = write(&mut solution.fitted.written, output, &report)?;
    Ok(report)
}
