//! What a run would do, and what it would cost, without doing it.
//!
//! Everything before the first layer is solved is done as in a run, so that what a run would refuse is refused here. One
//! sample is run, which gives its time and the rows of every layer; the rest is estimated from these by [`costs`].

mod costs;
mod size;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use onnxquant_calib::{DataReport, Tensor};
use onnxquant_ir::Model;

use crate::config::{Config, DataConfig};
use crate::error::Error;
use crate::load::{forget_codes, prepare, read};
use crate::observe::calibration::Calibration;
use crate::observe::engine::EngineReport;
use crate::observe::reach::Reach;
use crate::observe::seen;
use crate::plan::float_weights::FloatWeight;
use crate::plan::layers::{Plan, PlannedLayer};
use crate::plan::raise::{Raised, raise_for_codes, raise_halves};
use crate::report::record::{FileRecord, Step};
use costs::{Job, Work};

/// What a run would do.
#[derive(Debug)]
pub struct Forecast {
    /// Layer by layer.
    pub plan: Plan,
    /// Weights that would stay floats.
    pub float_weights: Vec<FloatWeight>,
    /// What was done to samples; nothing where there are none.
    pub data: Option<DataReport>,
    /// What would run the float model on them.
    pub engine: Option<EngineReport>,
    /// Bytes of the float model, external data included.
    pub bytes_before: u64,
    /// Bytes of the written one, about.
    pub bytes_after: u64,
    /// Seconds that steps would take with the threads that there are, about.
    pub steps: Vec<Step>,
    /// The most memory that the run would have, about.
    pub memory_bytes: u64,
}

impl Forecast {
    /// Seconds of all steps, about.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|step| step.seconds).sum()
    }
}

/// What [`quantize`](crate::quantize) would do with the same arguments. Nothing is written, and whether anything could be is
/// for [`Files`](crate::Files) to say.
///
/// # Errors
/// What else the run would refuse before the first layer is solved.
pub fn forecast(input: &Path, data: Option<&DataConfig>, config: &Config) -> Result<Forecast, Error> {
    let data = data.map(|data| data.of_model(input));
    let data = data.as_ref();
    config.check()?;
    if data.is_none() {
        config.check_without_data()?;
    }

    let begun = Instant::now();
    let mut model = read(input)?;
    let bytes_before = FileRecord::of(input, model.external_files())?.all_bytes();
    if config.requantize {
        forget_codes(&mut model)?;
    }
    let halves = raise_halves(&mut model, config)?.map(Arc::new);
    let (mut calibration, seen) = seen::open(&model, data, config)?;
    prepare(&mut model)?;
    let Raised { model, config: reached, .. } = raise_for_codes(model, config)?;
    let plan = Plan { halves, ..Plan::new(&model, &reached)? };
    let seconds = begun.elapsed().as_secs_f64();

    let sample = calibration.as_mut().map(|calibration| OneSample::of(&model, &plan, calibration)).transpose()?;
    let work = Work::of(&model, &plan, sample.as_ref(), &reached);
    let job = Job { config: &reached, split: calibration.as_ref().map(|calibration| &calibration.samples.split) };
    let prepare = Step { step: "prepare".to_owned(), seconds };
    Ok(Forecast {
        float_weights: plan.float_weights(&model, &reached),
        bytes_after: size::expected(&model, &plan, &reached, bytes_before),
        steps: std::iter::once(prepare).chain(job.steps(&work)).collect(),
        memory_bytes: job.memory(&work, bytes_before),
        plan,
        data: seen.data,
        engine: seen.engine,
        bytes_before,
    })
}

/// One sample in the float network.
struct OneSample {
    /// How long it took.
    seconds: f64,
    /// How long the engine took to get ready for it.
    ready_seconds: f64,
    /// Bytes of the inputs of layers.
    bytes: u64,
    /// Rows that each layer of the main graph saw, in each group.
    rows: Vec<usize>,
    /// Samples to which layers are fitted.
    fitted: usize,
}

impl OneSample {
    fn of(model: &Model, plan: &Plan, calibration: &mut Calibration) -> Result<Self, Error> {
        calibration.reach = Reach::find(model, plan, &calibration.samples)?;
        let (graph, samples) = (model.graph(), &calibration.samples);
        let behind = calibration.reach.behind(graph);
        let is_seen = |layer: &&PlannedLayer| !behind.contains_key(&layer.site.input);
        let name = |layer: &PlannedLayer| graph.value(layer.site.input).name().to_owned();
        let mut names: Vec<String> = plan.layers.iter().filter(is_seen).map(name).collect();
        names.sort_unstable();
        names.dedup();
        let Some(&first) = samples.split.calibration.first().filter(|_| !names.is_empty()) else {
            return Ok(Self {
                seconds: 0.0,
                ready_seconds: 0.0,
                bytes: 0,
                rows: vec![0; plan.layers.len()],
                fitted: 0,
            });
        };
        let sample = samples.data.load(first)?;
        let begun = Instant::now();
        let session = samples.session(model, &names, &[first])?;
        // The first run of a session prepares it.
        session.run(&sample)?;
        let with_engine = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let values = session.run(&sample)?;
        let seconds = begun.elapsed().as_secs_f64();
        let of_layer = |layer: &PlannedLayer| {
            let value = session.values().iter().position(|value| *value == name(layer));
            let shape = value.and_then(|at| values.get(at)).map(Tensor::shape);
            shape.and_then(|shape| layer.site.view.of_one_output().rows(shape).ok()).unwrap_or(0)
        };
        let rows = plan.layers.iter().map(of_layer).collect();
        let bytes = values.iter().map(|value| value.shape().iter().product::<usize>() as u64 * 4).sum();
        let ready_seconds = (with_engine - seconds).max(0.0);
        Ok(Self { seconds, ready_seconds, bytes, rows, fitted: samples.split.calibration.len() })
    }
}
