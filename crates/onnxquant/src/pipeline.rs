//! The main job, from a float model and samples to a quantized model and a report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use onnxquant_calib::Engine;
use onnxquant_ir::external_files_of;

use crate::attempt::{Parts, solve_within_reach};
use crate::config::{Config, DataConfig};
use crate::decide::budget::Solution;
use crate::error::Error;
use crate::files::{Files, model_bytes};
use crate::judge::metered::Metered;
use crate::judge::served::Served;
use crate::judge::verify_ort::verify;
use crate::load::{forget_codes, prepare, read};
use crate::observe::seen;
use crate::plan::layers::Plan;
use crate::plan::raise::{Raised, raise_for_codes, raise_halves};
use crate::plan::tables::PlannedTable;
use crate::progress::{Phase, Progress};
use crate::report::layers::LayerReport;
use crate::report::not_run::NotRun;
use crate::report::record::{Clock, FileRecord, FileRecords};
use crate::report::run::{Report, Run, metadata};
use crate::solve::state::State;
use crate::write::file::write;

/// Quantizes `input` into `output`.
///
/// Without `data` only plain rounding (`msq`) is possible. The output appears whole or not at all; the files of the run
/// are [checked](Files) before.
pub fn quantize(
    input: &Path,
    output: &Path,
    data: Option<&DataConfig>,
    config: &Config,
    progress: Progress<'_>,
) -> Result<Report, Error> {
    let data = data.map(|data| data.of_model(input));
    let data = data.as_ref();
    config.check()?;
    if data.is_none() {
        config.check_without_data()?;
    }
    Files::of_run(input, output, data, config).check()?;

    let mut clock = Clock::start();
    let mut model = read(input)?;
    let file_before = FileRecord::of(input, model.external_files())?;
    if config.requantize {
        forget_codes(&mut model)?;
    }
    let halves = raise_halves(&mut model, config)?.map(Arc::new);
    let bytes_before = model_bytes(input, model.external_files());
    let (mut calibration, seen) = seen::open(&model, data, config)?;
    let samples = calibration.as_ref().map(|calibration| &calibration.samples);
    let state = config.state.as_ref().map(|folder| State::open(folder, &model, config, samples)).transpose()?;
    let prepared = prepare(&mut model)?;
    let served = Served::open(input, &model, calibration.as_ref(), config)?;
    let metered = Metered::open(input, config)?;
    let Raised { model, changes, config: reached } = raise_for_codes(model, config)?;

    clock.ends("prepare");

    let plan = Plan { halves, ..Plan::new(&model, &reached)? };
    let file = data.and_then(|data| data.cache.as_deref());
    let (state, served) = (state.as_ref(), served.as_ref());
    let parts = Parts { config: &reached, cache: file, state, served, metered: metered.as_ref(), progress };
    let mut solved = solve_within_reach(&model, &plan, &mut calibration, parts)?;
    clock.ends("quantize");
    let reach = calibration.as_ref().map(|calibration| &calibration.reach);
    let bodies = solved.written_bodies()?;
    let mut layers = LayerReport::all(&solved.solution, config, &solved.model, reach)?;
    layers.extend(LayerReport::all_inner(&solved.solution.plan, &solved.bodies.about, &bodies, config)?);
    let Solution { plan, fitted, .. } = &mut solved.solution;
    if !layers.is_empty() || !solved.tables.is_empty() || bodies.iter().any(|body| !body.table_bytes.is_empty()) {
        metadata(config, &layers)?.put_into(&mut fitted.written);
    }
    let of_main = fitted.layers.iter().map(|&(id, _)| (fitted.written.graph(), id));
    let inner = bodies.iter().flat_map(|body| body.layers.iter().map(|&(id, _)| (body.model.graph(), id)));
    let ids = layers.iter().zip(of_main.chain(inner)).map(|(layer, place)| (layer.label.as_str(), place));
    let heads = plan.tables.iter().flat_map(PlannedTable::layers);
    let ids = ids.chain(heads.map(|(label, id)| (label, (fitted.written.graph(), id))));
    let verified = verify(&fitted.written, config, output, ids)?;
    progress(Phase::Write, 0, 1);
    let bytes_after = write(&fitted.written, output, config)?;
    progress(Phase::Write, 1, 1);
    let files = FileRecords { input: file_before, output: FileRecord::of(output, &files_beside(output)?)? };
    clock.ends("write");
    let engines = seen.engine.iter().map(|engine| engine.name.as_str());
    let record = clock.record(engines.chain(config.runtime.iter().map(Engine::name)));
    let not_run = calibration.and_then(|calibration| NotRun::of(&calibration.reach, solved.model.graph(), plan));
    let run = Run {
        config,
        seen,
        prepared,
        opset_changes: changes,
        solved,
        layers,
        bodies,
        not_run,
        metered,
        verified,
        record,
        files,
        bytes_before,
        bytes_after,
    };
    Ok(run.into())
}

/// The files that hold weights of a model that was written.
fn files_beside(output: &Path) -> Result<Vec<PathBuf>, Error> {
    external_files_of(output).map_err(|source| Error::Read { path: output.to_owned(), source })
}
