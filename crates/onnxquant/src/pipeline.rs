//! The main job, from a float model and samples to a quantized model and a report.

use std::path::Path;
use std::sync::Arc;

use onnxquant_calib::Engine;
use onnxquant_ir::Model;
use onnxquant_passes::raise_type::RaisedType;

use crate::attempt::{Parts, solve_within_reach};
use crate::config::{Config, DataConfig};
use crate::error::Error;
use crate::files::Files;
use crate::judge::metered::Metered;
use crate::judge::served::Served;
use crate::judge::verify_ort::verify;
use crate::load::{Prepared, check_is_there, forget_codes, prepare, read};
use crate::observe::calibration::Calibration;
use crate::observe::seen::{self, Seen};
use crate::plan::layers::Plan;
use crate::plan::raise::{Raised, raise_for_codes, raise_halves};
use crate::progress::{Phase, Progress};
use crate::report::layers::LayerReport;
use crate::report::not_run::NotRun;
use crate::report::record::{Clock, FileRecord, FileRecords};
use crate::report::run::{Report, Run, metadata};
use crate::solve::state::State;
use crate::write::file::write_unnamed;

/// A run that is done but for one thing: its result is written and checked, and has no name yet.
pub struct Finished {
    report: Box<Report>,
    name: Box<dyn FnOnce() -> Result<(), Error>>,
}

impl Finished {
    /// One whose result gets its name by `name`.
    pub(crate) fn new(report: Report, name: impl FnOnce() -> Result<(), Error> + 'static) -> Self {
        Self { report: Box::new(report), name: Box::new(name) }
    }

    /// What was done.
    pub fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Gives the result its name.
    ///
    /// # Errors
    /// It cannot have that name.
    pub fn name(self) -> Result<Report, Error> {
        (self.name)()?;
        Ok(*self.report)
    }
}

/// Quantizes `input` into `output`.
///
/// Without `data` only plain rounding (`msq`) is possible. The output appears whole or not at all; the files of the run
/// are [checked](Files) before.
///
/// # Errors
/// What was wrong with the input or the settings, or could not be written.
pub fn quantize(
    input: &Path,
    output: &Path,
    data: Option<&DataConfig>,
    config: &Config,
    progress: Progress<'_>,
) -> Result<Report, Error> {
    quantize_unnamed(input, output, data, config, progress)?.name()
}

/// Does the share of one process in a run that several do together ([`Config::shard`]), over the folder [`Config::state`].
///
/// Whoever then calls [`quantize`] with the same model, data and settings finds what all have done, and does the rest.
///
/// # Errors
/// [`Error::Waiting`] where other processes have to do something first; else as [`quantize`].
pub fn share(input: &Path, data: Option<&DataConfig>, config: &Config, progress: Progress<'_>) -> Result<(), Error> {
    let data = checked(input, data, config)?;
    let data = data.as_ref();
    let Opened { model, halves, mut calibration, state, served, .. } = Opened::of(input, data, config)?;
    let Raised { model, config: reached, .. } = raise_for_codes(model, config)?;
    let plan = Plan { halves, ..Plan::new(&model, &reached)? };
    let cache = data.and_then(|data| data.cache.as_deref());
    let (state, served) = (state.as_ref(), served.as_ref());
    let parts = Parts { config: &reached, cache, state, served, metered: None, progress };
    match solve_within_reach(&model, &plan, &mut calibration, parts) {
        Ok(_) | Err(Error::ShareDone) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The same as [`quantize`], but the output gets its name later: behind everything else that tells of it.
///
/// # Errors
/// As [`quantize`].
pub fn quantize_unnamed(
    input: &Path,
    output: &Path,
    data: Option<&DataConfig>,
    config: &Config,
    progress: Progress<'_>,
) -> Result<Finished, Error> {
    let data = checked(input, data, config)?;
    let data = data.as_ref();
    let files = Files::of_run(input, output, data, config);
    files.check()?;
    files.sweep();

    let mut clock = Clock::start();
    let Opened { model, halves, file, mut calibration, seen, state, prepared, served, metered } =
        Opened::of(input, data, config)?;
    let Raised { model, changes: opset_changes, config: reached } = raise_for_codes(model, config)?;
    clock.ends("prepare");

    let plan = Plan { halves, ..Plan::new(&model, &reached)? };
    let cache = data.and_then(|data| data.cache.as_deref());
    let (state, served) = (state.as_ref(), served.as_ref());
    let parts = Parts { config: &reached, cache, state, served, metered: metered.as_ref(), progress };
    let mut solved = solve_within_reach(&model, &plan, &mut calibration, parts)?;
    clock.ends("quantize");

    let bodies = solved.written_bodies()?;
    let reach = calibration.as_ref().map(|calibration| &calibration.reach);
    let layers = LayerReport::all(&solved, &bodies, config, reach)?;
    if solved.has_codes(&bodies) {
        metadata(config, &layers)?.put_into(&mut solved.solution.fitted.written);
    }
    let labels = layers.iter().map(|layer| layer.label.as_str());
    let verified = verify(solved.written(), config, output, solved.places(&bodies, labels))?;
    progress(Phase::Write, 0, 1);
    let mut unnamed = write_unnamed(solved.written(), output, config)?;
    progress(Phase::Write, 1, 1);
    let files = FileRecords { input: file, output: FileRecord::of_unnamed(&mut unnamed, output)? };
    clock.ends("write");

    let engines = seen.engine.iter().map(|engine| engine.name.as_str());
    let record = clock.record(engines.chain(config.runtime.iter().map(Engine::name)));
    let not_run = reach.and_then(|reach| NotRun::of(reach, solved.model.graph(), &solved.solution.plan));
    let run = Run {
        config,
        seen,
        prepared,
        opset_changes,
        solved,
        layers,
        bodies,
        not_run,
        metered,
        verified,
        record,
        files,
    };
    Ok(Finished::new(run.into(), move || Ok(unnamed.name()?)))
}

/// The data for this model. What is wrong with settings and input goes before what is wrong with the output.
fn checked(input: &Path, data: Option<&DataConfig>, config: &Config) -> Result<Option<DataConfig>, Error> {
    config.check()?;
    if data.is_none() {
        config.check_without_data()?;
    }
    check_is_there(input)?;
    Ok(data.map(|data| data.of_model(input)))
}

/// A model that is ready to be planned, and everything that is needed beside it.
struct Opened {
    model: Model,
    halves: Option<Arc<RaisedType>>,
    /// The file in which it was given.
    file: FileRecord,
    calibration: Option<Calibration>,
    seen: Seen,
    state: Option<State>,
    prepared: Prepared,
    served: Option<Served>,
    metered: Option<Metered>,
}

impl Opened {
    /// Reads the model and the samples.
    fn of(input: &Path, data: Option<&DataConfig>, config: &Config) -> Result<Self, Error> {
        let mut model = read(input)?;
        let file = FileRecord::of(input, model.external_files())?;
        if config.requantize {
            forget_codes(&mut model)?;
        }
        let halves = raise_halves(&mut model, config)?.map(Arc::new);
        let (calibration, seen) = seen::open(&model, data, config)?;
        let samples = calibration.as_ref().map(|calibration| &calibration.samples);
        let state = config.state.as_ref().map(|store| State::open(store, &model, config, samples)).transpose()?;
        let prepared = prepare(&mut model)?;
        let served = Served::open(input, &model, calibration.as_ref(), config)?;
        let metered = Metered::open(input, config)?;
        Ok(Self { model, halves, file, calibration, seen, state, prepared, served, metered })
    }
}
