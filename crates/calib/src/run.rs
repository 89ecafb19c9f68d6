//! Runs models over a data set: samples in parallel, results in order.

use ndarray::ArrayD;
use rayon::prelude::*;

use crate::data::CalibSet;
use crate::engine::Engine;
use crate::error::CalibError;
use crate::tensor::Tensor;

/// Observed values of one batch are kept below this, unless one sample has more.
const BATCH_BYTES: usize = 256 << 20;
/// A batch of more samples than there are threads, which wastes less time at its end, is kept below this.
const LONG_BATCH_BYTES: usize = 64 << 20;

/// How far a run over a data set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Samples finished.
    pub done: usize,
    /// Samples to run.
    pub total: usize,
}

/// One sample's observed values.
#[derive(Debug)]
pub struct SampleRun {
    /// The sample's number in the data set.
    pub sample: usize,
    /// By engine, in the order of its [`Engine::values`].
    pub values: Vec<Vec<Tensor>>,
}

/// Runs every engine on the samples `indices` and hands the results to `visit` in batches.
///
/// Samples of a batch are run in parallel on rayon's current pool; batches and the samples in
/// them come in the order of `indices`, or sorted by shape where an engine prefers that. The
/// order does not depend on the number of threads; where batches end does.
pub fn for_each_batch(
    engines: &[&dyn Engine],
    data: &CalibSet,
    indices: &[usize],
    progress: &dyn Fn(Progress),
    visit: &mut dyn FnMut(Vec<SampleRun>) -> Result<(), CalibError>,
) -> Result<(), CalibError> {
    let order = run_order(engines, data, indices);
    let threads = rayon::current_num_threads();
    let (mut done, mut batch) = (0, threads);
    while done < order.len() {
        let part = &order[done..order.len().min(done + batch)];
        // Of several failures the first sample's is reported, whichever happened first.
        let runs: Vec<Result<SampleRun, CalibError>> = part.par_iter().map(|&i| run_sample(engines, data, i)).collect();
        let runs = runs.into_iter().collect::<Result<Vec<_>, _>>()?;
        let largest = runs.iter().map(SampleRun::bytes).max().unwrap_or(0);
        batch = batch_samples(largest.max(1), threads);
        done += part.len();
        visit(runs)?;
        progress(Progress { done, total: order.len() });
    }
    Ok(())
}

/// How many samples of at most `bytes` observed values are run before they are taken in.
pub(crate) fn batch_samples(bytes: usize, threads: usize) -> usize {
    if LONG_BATCH_BYTES / bytes >= 2 * threads { 2 * threads } else { (BATCH_BYTES / bytes).clamp(1, threads) }
}

fn run_order(engines: &[&dyn Engine], data: &CalibSet, indices: &[usize]) -> Vec<usize> {
    let mut order = indices.to_vec();
    if engines.iter().any(|e| e.prefers_grouping()) {
        order.sort_by(|&a, &b| data.shapes(a).cmp(data.shapes(b)));
    }
    order
}

fn run_sample(engines: &[&dyn Engine], data: &CalibSet, index: usize) -> Result<SampleRun, CalibError> {
    let sample = data.load(index)?;
    let values = engines.iter().map(|engine| engine.run(&sample)).collect::<Result<_, _>>();
    let values = values.map_err(|error| describe_failure(error, data, index))?;
    Ok(SampleRun { sample: index, values })
}

/// Adds to a failure of the engine which sample it was.
pub(crate) fn describe_failure(error: CalibError, data: &CalibSet, sample: usize) -> CalibError {
    match error {
        CalibError::Run { sample: shapes, detail } => {
            CalibError::Run { sample: format!("{} ({shapes})", data.describe(sample)), detail }
        }
        other => other,
    }
}

impl SampleRun {
    pub(crate) fn bytes(&self) -> usize {
        self.values.iter().flatten().map(|t| t.len() * t.element_type().bytes()).sum()
    }
}

/// A floating-point value as 32-bit floats; an error that names it for other types.
pub(crate) fn floats(value: Tensor, name: &str, sample: &str) -> Result<ArrayD<f32>, CalibError> {
    match value {
        Tensor::F32(array) => Ok(array),
        other => other.to_f32().ok_or_else(|| CalibError::Activation {
            value: name.into(),
            sample: sample.into(),
            detail: format!("it is {}, expected a floating-point type", other.element_type()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fill_the_threads_within_bounds_of_memory() {
        let mib = 1 << 20;
        for (bytes, threads, samples) in
            [(1, 4, 8), (8 * mib, 4, 8), (20 * mib, 2, 2), (20 * mib, 64, 12), (512 * mib, 2, 1)]
        {
            assert_eq!(batch_samples(bytes, threads), samples, "{bytes} bytes, {threads} threads");
        }
    }
}
