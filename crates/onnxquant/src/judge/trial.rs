//! What may crash an engine, done in a process that may crash.
//!
//! An engine is code of others, some of it unsafe: a model that it takes and that nobody thought of can end the process.
//! So the first load and the first run of a model are done beside the run itself, see [`try_embedded`] and [`try_runtime`];
//! whoever started that process learns from its end. What the engine says is not looked at.

use std::path::Path;
use std::sync::Arc;

use onnxquant_calib::{OrtEngine, failing_nodes, unknown_operators};
use onnxquant_ir::Model;

use crate::config::DataConfig;
use crate::error::Error;
use crate::load::{decoded, read, without_functions};
use crate::observe::reach::output_names;
use crate::observe::samples::Samples;

/// A model with a sample.
struct Trial {
    model: Model,
    samples: Samples,
    outputs: Vec<String>,
}

/// Lets the embedded engine load the float model in the file `input` and run one sample; where it does not run the whole
/// model, as much of it as it does.
///
/// # Errors
/// Model or samples cannot be read.
pub fn try_embedded(input: &Path, data: &DataConfig) -> Result<(), Error> {
    let Trial { model, samples, outputs } = Trial::open(input, data)?;
    let Some(&sample) = samples.split.held_out.first() else { return Ok(()) };
    let model = decoded(&model)?;
    if samples.run_one(&model, &outputs, sample, &mut |_, _| {}).is_ok() {
        return Ok(());
    }
    let proto = without_functions(&model)?;
    let unknown = unknown_operators(&*samples.engine, &proto);
    drop(failing_nodes(&*samples.engine, &proto, &unknown, &samples.data, sample));
    Ok(())
}

/// Lets ONNX Runtime do the same, as it would be asked to when the model is quantized.
///
/// # Errors
/// Model or samples cannot be read.
pub fn try_runtime(input: &Path, data: &DataConfig, runtime: &OrtEngine) -> Result<(), Error> {
    let Trial { model, samples, outputs } = Trial::open(input, data)?;
    let Some(&sample) = samples.split.held_out.first() else { return Ok(()) };
    let loaded = samples.data.load(sample)?;
    let served = runtime.serve_file(input, &outputs);
    drop(served.map(|served| served.run(&loaded)));
    let samples = Samples { engine: Arc::new(runtime.clone()), ..samples };
    let observed = samples.session(&decoded(&model)?, &outputs, &[sample]);
    drop(observed.map(|observed| observed.run(&loaded)));
    Ok(())
}

impl Trial {
    fn open(input: &Path, data: &DataConfig) -> Result<Self, Error> {
        let model = read(input)?;
        let samples = Samples::open(&model, &data.of_model(input))?;
        let outputs = output_names(&model);
        Ok(Self { model, samples, outputs })
    }
}
