//! What activations look like over a data set: their shapes, their distributions, and the ranges of their channels.
//!
//! Samples are run a batch at a time and taken in in their order, values in parallel, so that the results are the same
//! for any number of threads. Memory does not grow with the number of samples, except by two numbers a channel and
//! sample in [`collect_channels`].

use ndarray::ArrayD;
use onnxquant_quant::{ChannelAxis, ChannelRanges, Histogram, QuantError};
use rayon::prelude::*;

use crate::data::CalibSet;
use crate::engine::Session;
use crate::error::CalibError;
use crate::run::{Progress, SampleRun, floats, for_each_batch};
use crate::tensor::Tensor;

/// The shape of every observed value for one sample, and whether it holds floats of whatever width.
pub fn observe_shapes(
    engine: &dyn Session,
    data: &CalibSet,
    sample: usize,
) -> Result<Vec<(Vec<usize>, bool)>, CalibError> {
    let values = engine.run(&data.load(sample)?)?;
    Ok(values.iter().map(|value| (value.shape().to_vec(), value.element_type().is_float())).collect())
}

/// The distribution of every observed value over the samples `indices`.
pub fn collect_histograms(
    engine: &dyn Session,
    data: &CalibSet,
    indices: &[usize],
    progress: &dyn Fn(Progress),
) -> Result<Vec<Histogram>, CalibError> {
    let histograms = engine.values().iter().map(|_| Histogram::new()).collect();
    accumulate(engine, data, indices, progress, histograms, &|histogram: &mut Histogram, array| {
        match array.as_slice() {
            Some(values) => histogram.push(values)?,
            None => histogram.push(&array.iter().copied().collect::<Vec<f32>>())?,
        }
        histogram.end_sample();
        Ok(())
    })
}

/// The channels of every observed value over the samples `indices`; `axes` says where each value has them.
pub fn collect_channels(
    engine: &dyn Session,
    data: &CalibSet,
    indices: &[usize],
    axes: &[ChannelAxis],
    progress: &dyn Fn(Progress),
) -> Result<Vec<ChannelRanges>, CalibError> {
    let channels = axes.iter().map(|axis| (*axis, ChannelRanges::default())).collect();
    let take_in = |(axis, channels): &mut (ChannelAxis, ChannelRanges), array: &ArrayD<f32>| {
        channels.push(array, *axis);
        Ok(())
    };
    let found = accumulate(engine, data, indices, progress, channels, &take_in)?;
    Ok(found.into_iter().map(|(_, channels)| channels).collect())
}

/// Adds the array of one sample to what is known of a value.
type TakeIn<'a, S> = dyn Fn(&mut S, &ArrayD<f32>) -> Result<(), QuantError> + Sync + 'a;

/// Runs the samples and lets every value's `state` take in its arrays, in the order of the samples.
fn accumulate<S: Send>(
    engine: &dyn Session,
    data: &CalibSet,
    indices: &[usize],
    progress: &dyn Fn(Progress),
    mut states: Vec<S>,
    take_in: &TakeIn<'_, S>,
) -> Result<Vec<S>, CalibError> {
    for_each_batch(&[engine], data, indices, progress, &mut |runs| {
        let names: Vec<String> = runs.iter().map(|run| data.describe(run.sample)).collect();
        let by_value = transposed(runs);
        let results: Vec<Result<(), CalibError>> = states
            .par_iter_mut()
            .zip(by_value)
            .zip(engine.values())
            .map(|((state, tensors), value)| {
                tensors.into_iter().zip(&names).try_for_each(|(tensor, sample)| {
                    take_in(state, floats(&tensor, value, sample)?.as_ref()).map_err(|error| CalibError::Activation {
                        value: value.clone(),
                        sample: sample.clone(),
                        detail: error.to_string(),
                    })
                })
            })
            .collect();
        results.into_iter().collect()
    })?;
    Ok(states)
}

/// By value instead of by sample.
fn transposed(runs: Vec<SampleRun>) -> Vec<Vec<Tensor>> {
    let mut by_value: Vec<Vec<Tensor>> = Vec::new();
    for tensor in runs.into_iter().flat_map(|run| run.values.into_iter().flatten().enumerate()) {
        let (position, tensor) = tensor;
        if by_value.len() <= position {
            by_value.push(Vec::new());
        }
        by_value[position].push(tensor);
    }
    by_value
}
