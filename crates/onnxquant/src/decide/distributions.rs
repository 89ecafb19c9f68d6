//! The distributions of tensors over the calibration samples.

use onnxquant_ir::{Model, ValueId, tensor};
use onnxquant_quant::Histogram;

use crate::config::Config;
use crate::decide::mixing::mixing_scales;
use crate::error::Error;
use crate::observe::observer::Observer;
use crate::plan::assignment::Assignment;
use crate::plan::scales::Histograms;

/// The distributions of all tensors in the regions, over at most so many samples; what cannot stand on one scale leaves
/// the regions.
pub(super) fn observed(
    assignment: &Assignment,
    model: &Model,
    config: &Config,
    observer: &Observer<'_>,
    most_samples: usize,
) -> Result<(Assignment, Histograms), Error> {
    let histograms = histograms(assignment, model, observer, most_samples)?;
    let mixing = mixing_scales(model.graph(), assignment, &histograms, config)?;
    Ok((assignment.without(model.graph(), &mixing), histograms))
}

/// Of all tensors that the regions read and make.
fn histograms(
    assignment: &Assignment,
    model: &Model,
    observer: &Observer<'_>,
    most_samples: usize,
) -> Result<Histograms, Error> {
    let graph = model.graph();
    let (constants, values): (Vec<ValueId>, Vec<ValueId>) =
        assignment.values().into_iter().partition(|value| graph.value(*value).constant().is_some());
    let mut found = Vec::with_capacity(constants.len() + values.len());
    for value in constants {
        let mut histogram = Histogram::new();
        if let Some(constant) = graph.value(value).constant() {
            histogram.push(&tensor::to_f32(constant)?)?;
        }
        found.push((value, histogram));
    }
    let names: Vec<String> = values.iter().map(|value| graph.value(*value).name().to_owned()).collect();
    let histograms = observer.histograms(model, &names, most_samples)?;
    found.extend(values.into_iter().zip(histograms));
    Ok(found.into_iter().collect())
}
