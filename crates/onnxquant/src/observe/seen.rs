//! Opens the samples of a run, with the engine that is right for its model.

use onnxquant_calib::DataReport;
use onnxquant_ir::Model;

use crate::config::{Config, DataConfig};
use crate::error::Error;
use crate::observe::calibration::Calibration;
use crate::observe::engine::{EngineReport, choose};
use crate::observe::texts::{TextReport, continue_texts};

/// What is told of the samples; nothing where there are none.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) engine: Option<EngineReport>,
    pub(crate) data: Option<DataReport>,
    /// Where they were made of texts.
    pub(crate) texts: Option<TextReport>,
    /// The caches of a decoder are empty in none of them.
    pub(crate) starts_late: bool,
}

/// The samples of `data` for `model`.
pub(crate) fn open(
    model: &Model,
    data: Option<&DataConfig>,
    config: &Config,
) -> Result<(Option<Calibration>, Seen), Error> {
    let Some(data) = data else { return Ok((None, Seen::default())) };
    let mut calibration = Calibration::open(model, data)?;
    let told = Some(calibration.samples.data.survey()?);
    let engine = Some(choose(&mut calibration.samples, model, config)?);
    let texts = continue_texts(&mut calibration.samples, model)?;
    let starts_late = calibration.samples.data.starts_late();
    Ok((Some(calibration), Seen { engine, data: told, texts, starts_late }))
}
