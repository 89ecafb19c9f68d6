//! Runs models over a data set: samples in parallel, results in order.

use std::borrow::Cow;

use ndarray::ArrayD;
use rayon::prelude::*;

use crate::data::CalibSet;
use crate::engine::Session;
use crate::error::CalibError;
use crate::tensor::Tensor;

/// Observed values of one batch, of which two are in memory, are kept below this, unless one sample has more.
const BATCH_BYTES: usize = 128 << 20;
/// A batch of more samples than there are threads, which wastes less time at its end, is kept below this.
const LONG_BATCH_BYTES: usize = 32 << 20;

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
    /// By engine, in the order of its [`Session::values`].
    pub values: Vec<Vec<Tensor>>,
}

/// What takes in the results of a batch.
pub type Visit<'a, R> = dyn FnMut(Vec<R>) -> Result<(), CalibError> + Send + 'a;

/// Runs every engine on the samples `indices` and hands the results to `visit` in batches.
///
/// Samples of a batch are run in parallel on rayon's current pool, while the batch before is
/// visited; batches and the samples in them come in the order of `indices`, or sorted by shape
/// where an engine prefers that. The order does not depend on the number of threads; where
/// batches end does.
pub fn for_each_batch(
    engines: &[&dyn Session],
    data: &CalibSet,
    indices: &[usize],
    progress: &dyn Fn(Progress),
    visit: &mut Visit<'_, SampleRun>,
) -> Result<(), CalibError> {
    let order = run_order(engines, data, indices);
    in_batches(order, &|sample| run_sample(engines, data, sample), &SampleRun::bytes, progress, visit)
}

/// Calls `run` for all `jobs`, those of a batch in parallel, and hands the results to `visit` in the order of the jobs.
///
/// `bytes` says how much memory a result takes, and so how many make a batch.
pub(crate) fn in_batches<J: Send, R: Send>(
    jobs: Vec<J>,
    run: &(dyn Fn(J) -> Result<R, CalibError> + Sync),
    bytes: &(dyn Fn(&R) -> usize + Sync),
    progress: &dyn Fn(Progress),
    visit: &mut Visit<'_, R>,
) -> Result<(), CalibError> {
    let (threads, total) = (rayon::current_num_threads(), jobs.len());
    let (mut jobs, mut batch) = (jobs.into_iter(), threads);
    let (mut finished, mut done) = (Vec::new(), 0);
    loop {
        let next: Vec<J> = jobs.by_ref().take(batch).collect();
        let is_last = next.is_empty();
        done += finished.len();
        let mut visit_finished = || if finished.is_empty() { Ok(()) } else { visit(std::mem::take(&mut finished)) };
        let (visited, runs): (_, Vec<Result<R, CalibError>>) =
            rayon::join(&mut visit_finished, || next.into_par_iter().map(run).collect());
        visited?;
        if done > 0 {
            progress(Progress { done, total });
        }
        if is_last {
            return Ok(());
        }
        // Of several failures the first sample's is reported, whichever happened first.
        finished = runs.into_iter().collect::<Result<Vec<R>, CalibError>>()?;
        batch = batch_samples(finished.iter().map(bytes).max().unwrap_or(0).max(1), threads);
    }
}

/// How many samples of at most `bytes` observed values are run before they are taken in.
pub(crate) fn batch_samples(bytes: usize, threads: usize) -> usize {
    if LONG_BATCH_BYTES / bytes >= 2 * threads { 2 * threads } else { (BATCH_BYTES / bytes).clamp(1, threads) }
}

pub(crate) fn run_order(engines: &[&dyn Session], data: &CalibSet, indices: &[usize]) -> Vec<usize> {
    let mut order = indices.to_vec();
    if engines.iter().any(|e| e.prefers_grouping()) {
        order.sort_by(|&a, &b| data.shapes(a).cmp(data.shapes(b)));
    }
    order
}

pub(crate) fn run_sample(engines: &[&dyn Session], data: &CalibSet, index: usize) -> Result<SampleRun, CalibError> {
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
        bytes_of(self.values.iter().flatten())
    }
}

pub(crate) fn bytes_of<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> usize {
    tensors.into_iter().map(|tensor| tensor.len() * tensor.element_type().bytes()).sum()
}

/// A floating-point value as 32-bit floats; an error that names it for other types.
pub(crate) fn floats<'a>(value: &'a Tensor, name: &str, sample: &str) -> Result<Cow<'a, ArrayD<f32>>, CalibError> {
    match value {
        Tensor::F32(array) => Ok(Cow::Borrowed(array)),
        other => other.to_f32().map(Cow::Owned).ok_or_else(|| CalibError::Activation {
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
            [(1, 4, 8), (4 * mib, 4, 8), (10 * mib, 2, 2), (10 * mib, 64, 12), (256 * mib, 2, 1)]
        {
            assert_eq!(batch_samples(bytes, threads), samples, "{bytes} bytes, {threads} threads");
        }
    }
}
