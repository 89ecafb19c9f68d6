//! Which engine runs the float model on samples.
//!
//! The embedded one does, wherever it runs the model and gives what ONNX Runtime gives: files are then the same whether
//! that is there or not. One sample tells.

use std::sync::Arc;

use onnxquant_calib::{
    Engine, Measurement, NotMeasured, Original, OrtEngine, OutputComparison, Session, compare, open_session_for,
    unknown_operators,
};
use onnxquant_ir::Model;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accuracy::accuracy;
use crate::config::{Config, EngineChoice};
use crate::error::Error;
use crate::load::{decoded, without_functions};
use crate::observe::reach::output_names;
use crate::observe::samples::Samples;

/// Outputs that are this close, in dB, are those of the same float model.
const AGREEMENT_DB: f64 = 40.0;

/// What ran the float model on samples.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EngineReport {
    /// Name and version, on which every number depends that was observed.
    pub name: String,
    /// Why it is not the embedded one, where nobody asked for another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// Gives `samples` the engine that `config` asks for, or the one that is right for `model`.
pub(crate) fn choose(samples: &mut Samples, model: &Model, config: &Config) -> Result<EngineReport, Error> {
    let runtime = config.runtime.as_ref();
    let (other, because) = match (config.engine, runtime) {
        (EngineChoice::Tract, _) | (EngineChoice::Auto, None) => (None, None),
        (EngineChoice::Ort, None) => return Err(Error::Usage("the engine `ort` needs ONNX Runtime".to_owned())),
        (EngineChoice::Ort, Some(runtime)) => (Some(runtime), None),
        (EngineChoice::Auto, Some(runtime)) => {
            let because = why_not_embedded(samples, model, runtime)?;
            (because.is_some().then_some(runtime), because)
        }
    };
    if let Some(runtime) = other {
        samples.engine = Arc::new(runtime.clone());
    }
    Ok(EngineReport { name: samples.engine.name().to_owned(), because })
}

/// The same for two models that run on the same samples.
pub(crate) fn choose_for_both(
    samples: &mut Samples,
    models: [&Model; 2],
    config: &Config,
) -> Result<EngineReport, Error> {
    let [first, second] = models;
    let found = choose(samples, first, config)?;
    match found.because {
        None if config.engine == EngineChoice::Auto => choose(samples, second, config),
        _ => Ok(found),
    }
}

/// What the embedded engine cannot do that `runtime` can.
fn why_not_embedded(samples: &Samples, model: &Model, runtime: &OrtEngine) -> Result<Option<String>, Error> {
    let Some(&sample) = samples.split.calibration.first() else { return Ok(None) };
    let proto = without_functions(&decoded(model)?)?;
    let (outputs, data) = (output_names(model), &*samples.data);
    let session = |engine: &dyn Engine| -> Result<Box<dyn Session>, _> {
        let session = open_session_for(engine, &proto, &outputs, data, &[sample])?;
        session.run(&data.load(sample)?).map(|_| session)
    };
    // Where neither runs the model, the embedded one tells what it can run of it.
    let Ok(there) = session(runtime) else { return Ok(None) };
    let blocked = unknown_operators(&*samples.engine, &proto);
    if let Some(node) = blocked.first() {
        return Ok(Some(format!("the embedded engine cannot run {node}: {}", node.reason)));
    }
    Ok(match session(&*samples.engine) {
        Err(error) => Some(format!("the embedded engine does not run the model: {error}")),
        Ok(here) => differs(&compare(&Original::new(there), &here, data, &[sample], &|_| ())?),
    })
}

/// How the outputs of the embedded engine differ from those of ONNX Runtime, where they do.
fn differs(outputs: &[OutputComparison]) -> Option<String> {
    match accuracy(outputs) {
        Measurement::Measured(found) if found.sqnr_db >= AGREEMENT_DB => None,
        Measurement::NotMeasured(NotMeasured::NoElements { .. } | NotMeasured::NoOutputs) => None,
        Measurement::Measured(found) => {
            Some(format!("the embedded engine computes other outputs: {:.1} dB from them", found.sqnr_db))
        }
        Measurement::NotMeasured(_) => Some("the embedded engine computes outputs of other shapes".to_owned()),
    }
}
