//! Compares the outputs of two models on data.

use std::path::Path;

use onnxquant_calib::{OutputComparison, compare as compare_sessions};
use onnxquant_ir::Model;
use onnxquant_passes::decode_weights::decode_weights;

use crate::calibration::Calibration;
use crate::config::DataConfig;
use crate::error::Error;
use crate::load::{check, prepare, read};
use crate::progress::{Phase, Progress};

/// Runs both models on every sample of `data` and compares output by output, in the order of the first model.
///
/// Quantized weights are decoded to float first. The models must share the names of their outputs.
pub fn compare(
    first: &Path,
    second: &Path,
    data: &DataConfig,
    progress: Progress<'_>,
) -> Result<Vec<OutputComparison>, Error> {
    let (mut first, mut second) = (read(first)?, read(second)?);
    prepare(&mut first)?;
    prepare(&mut second)?;
    let calibration = Calibration::open(&first, data)?;
    let samples = (0..calibration.data.len()).collect::<Vec<_>>();
    compare_models(first, second, &calibration, &samples, progress)
}

/// Compares two models in memory on some samples.
pub(crate) fn compare_models(
    mut first: Model,
    mut second: Model,
    calibration: &Calibration,
    samples: &[usize],
    progress: Progress<'_>,
) -> Result<Vec<OutputComparison>, Error> {
    decode(&mut first)?;
    decode(&mut second)?;
    let graph = first.graph();
    let outputs = graph.outputs().iter().map(|port| graph.value(port.value).name().to_owned()).collect::<Vec<_>>();
    if let Some(missing) = outputs.iter().find(|name| !has_output(&second, name)) {
        return Err(Error::Usage(format!("the second model has no output `{missing}`")));
    }
    let float = calibration.session(&first, &outputs)?;
    drop(first);
    let quantized = calibration.session(&second, &outputs)?;
    drop(second);
    let report = |state: onnxquant_calib::Progress| progress(Phase::Compare, state.done, state.total);
    Ok(compare_sessions(&float, &quantized, &calibration.data, samples, &report)?)
}

fn has_output(model: &Model, name: &str) -> bool {
    model.graph().outputs().iter().any(|port| port.info.name() == name)
}

fn decode(model: &mut Model) -> Result<(), Error> {
    decode_weights(model)?;
    check(model, "decoding weights")
}
