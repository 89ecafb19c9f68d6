//! Sums of second moments over the samples of a part, and how parts are added.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use ndarray::{Array2, ArrayD};
use onnxquant_quant::{Chunks, GramStats, MatrixView, MomentPart, PairedAccumulator, QuantError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::request::{StatKind, StatRequest};
use crate::data::CalibSet;
use crate::error::CalibError;
use crate::run::{SampleRun, floats};

/// Elements of one chunk of unfolded rows: it stays in a core's cache.
const CHUNK_ELEMENTS: usize = 1 << 17;

/// Statistics by request, by group; no groups where the input has no rows in any sample.
pub type LayerMoments = Vec<Vec<GramStats>>;

/// Where the values of a request stand among those of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) seen: usize,
    pub(super) reference: Option<usize>,
    pub(super) is_selected: bool,
}

/// Activations of some samples.
pub(super) struct Batch<'a> {
    pub(super) samples: Vec<usize>,
    /// Where samples come from, for messages.
    pub(super) names: Vec<String>,
    /// By sample, by value; only those asked for.
    pub(super) values: Vec<HashMap<usize, Cow<'a, ArrayD<f32>>>>,
}

impl<'a> Batch<'a> {
    /// Of the values that `names` names, stream by stream.
    pub(super) fn new(
        names: &[&[String]],
        data: &CalibSet,
        runs: &[&'a SampleRun],
        wanted: &[Source],
    ) -> Result<Self, CalibError> {
        let mut batch = Self { samples: Vec::new(), names: Vec::new(), values: Vec::new() };
        let is_wanted = |position| wanted.iter().any(|s| s.seen == position || s.reference == Some(position));
        for run in runs {
            let name = data.describe(run.sample);
            let mut values = HashMap::new();
            let named = names.iter().zip(&run.values).flat_map(|(names, values)| names.iter().zip(values));
            for (position, (value, tensor)) in named.enumerate().filter(|(position, _)| is_wanted(*position)) {
                values.insert(position, floats(tensor, value, &name)?);
            }
            batch.samples.push(run.sample);
            batch.names.push(name);
            batch.values.push(values);
        }
        Ok(batch)
    }
}

/// Which samples of a set a part has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// How many samples give rows in all parts.
    pub(super) total: usize,
    /// How many of them come in the parts before.
    pub(super) before: usize,
}

/// One group of one request, over the samples of one set in one part.
pub(super) struct Task {
    request: usize,
    group: usize,
    source: Source,
    sums: PairedAccumulator,
    samples: HashSet<usize>,
    extent: Extent,
    /// How many samples have been taken in, and how many had rows.
    taken: usize,
    with_rows: usize,
}

/// For the samples of a set.
pub(super) fn tasks(
    requests: &[StatRequest],
    sources: &[Source],
    samples: &[usize],
    extent: Extent,
) -> Result<Vec<Task>, CalibError> {
    let mut tasks = Vec::new();
    for (index, (request, &source)) in requests.iter().zip(sources).enumerate() {
        for group in 0..request.view.groups() {
            let sums = PairedAccumulator::new(request.view.inputs());
            let sums = sums.map_err(|error| unusable(request, "every sample", &error))?;
            let samples = samples.iter().copied().collect();
            tasks.push(Task { request: index, group, source, sums, samples, extent, taken: 0, with_rows: 0 });
        }
    }
    Ok(tasks)
}

pub(super) fn take_in(tasks: &mut [Task], requests: &[StatRequest], batch: &Batch<'_>) -> Result<(), CalibError> {
    let results: Vec<Result<(), CalibError>> =
        tasks.par_iter_mut().map(|task| task.take_in(batch, &requests[task.request])).collect();
    results.into_iter().collect()
}

impl Task {
    fn take_in(&mut self, batch: &Batch<'_>, request: &StatRequest) -> Result<(), CalibError> {
        for ((values, name), sample) in batch.values.iter().zip(&batch.names).zip(&batch.samples) {
            let Some(seen) = values.get(&self.source.seen).filter(|_| self.samples.contains(sample)) else { continue };
            let reference = self.source.reference.and_then(|position| values.get(&position));
            self.push(&request.view, request.kind, seen, reference.map(AsRef::as_ref))
                .map_err(|error| unusable(request, name, &error))?;
            self.taken += 1;
            self.with_rows += usize::from(!seen.is_empty());
        }
        Ok(())
    }

    fn push(
        &mut self,
        view: &MatrixView,
        kind: StatKind,
        seen: &ArrayD<f32>,
        reference: Option<&ArrayD<f32>>,
    ) -> Result<(), QuantError> {
        let chunks = chunks(view, kind, seen.shape(), self.extent.total, self.extent.before + self.taken)?;
        let mut beside: Vec<Array2<f32>> = Vec::new();
        // Of another shape, it has other rows.
        if let Some(reference) = reference.filter(|reference| reference.shape() == seen.shape()) {
            view.for_each_rows(reference.view(), self.group, chunks, &mut |rows| beside.push(rows.to_owned()))?;
        }
        let mut beside = beside.iter();
        let (is_selected, is_alone) = (self.source.is_selected, self.source.reference.is_none());
        let (mut failure, sums) = (Ok(()), &mut self.sums);
        view.for_each_rows(seen.view(), self.group, chunks, &mut |rows| {
            if failure.is_ok() {
                failure = match beside.next() {
                    Some(reference) if is_selected => sums.push_selected(rows, reference.view()),
                    Some(reference) => sums.push(rows, reference.view()),
                    None if is_alone => sums.push_alone(rows),
                    None => sums.push_unpaired(rows),
                };
            }
        })?;
        failure
    }
}

/// Which rows of the `taken`th of `samples` inputs of this shape are taken.
fn chunks(
    view: &MatrixView,
    kind: StatKind,
    shape: &[usize],
    samples: usize,
    taken: usize,
) -> Result<Chunks, QuantError> {
    let inputs = view.inputs().max(1);
    let every = view.rows(shape)?.saturating_mul(samples) / kind.enough_rows(inputs);
    if every <= 1 {
        return Ok(Chunks::all((CHUNK_ELEMENTS / inputs).clamp(16, 4096)));
    }
    // Steps of the golden ratio, so that the chunks of few samples, too, are spread over all positions.
    let step = (every * 5 / 8) | 1;
    Ok(Chunks::all(kind.sampled_chunk_rows()).one_of(every, taken.wrapping_mul(step)))
}

/// Sums of moments, by request and group, that can be added to others of the same requests.
#[derive(Debug)]
pub struct MomentSums {
    groups: Vec<GroupSums>,
}

#[derive(Debug)]
struct GroupSums {
    request: usize,
    sums: PairedAccumulator,
    /// Samples that had rows.
    with_rows: usize,
}

/// What one request adds, by group, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestPart(Vec<(MomentPart, usize)>);

impl MomentSums {
    /// Of no samples.
    ///
    /// # Errors
    /// A request is about no inputs.
    pub fn new(requests: &[StatRequest]) -> Result<Self, CalibError> {
        let mut groups = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            for _ in 0..request.view.groups() {
                let sums = PairedAccumulator::new(request.view.inputs());
                let sums = sums.map_err(|error| unusable(request, "every sample", &error))?;
                groups.push(GroupSums { request: index, sums, with_rows: 0 });
            }
        }
        Ok(Self { groups })
    }

    pub(super) fn of(tasks: Vec<Task>) -> Self {
        let sums = |task: Task| GroupSums { request: task.request, sums: task.sums, with_rows: task.with_rows };
        Self { groups: tasks.into_iter().map(sums).collect() }
    }

    /// Adds the sums of the part that follows.
    ///
    /// # Errors
    /// They are of other requests.
    pub fn add(&mut self, part: Self) -> Result<(), CalibError> {
        let pairs: Vec<_> = self.groups.iter_mut().zip(part.groups).collect();
        let added: Vec<Result<(), QuantError>> = pairs.into_par_iter().map(|(all, one)| all.add(one)).collect();
        added.into_iter().collect::<Result<(), QuantError>>().map_err(|error| CalibError::BadModel(error.to_string()))
    }

    /// Every request by itself, to be kept.
    pub fn into_requests(self) -> Vec<RequestPart> {
        let mut parts: Vec<RequestPart> = Vec::new();
        for GroupSums { request, sums, with_rows } in self.groups {
            parts.resize_with(parts.len().max(request + 1), || RequestPart(Vec::new()));
            parts[request].0.push((sums.into_part(), with_rows));
        }
        parts
    }

    /// What was kept of requests.
    ///
    /// # Errors
    /// Something does not fit together.
    pub fn of_requests(parts: Vec<RequestPart>) -> Result<Self, CalibError> {
        let mut groups = Vec::new();
        for (request, RequestPart(of_groups)) in parts.into_iter().enumerate() {
            for (part, with_rows) in of_groups {
                let sums = PairedAccumulator::try_from(part);
                let sums = sums.map_err(|error| CalibError::BadModel(error.to_string()))?;
                groups.push(GroupSums { request, sums, with_rows });
            }
        }
        Ok(Self { groups })
    }

    /// The statistics of all samples that were added.
    ///
    /// # Errors
    /// Sums are infinite.
    pub fn finish(self, requests: &[StatRequest]) -> Result<LayerMoments, CalibError> {
        // All groups of an input have as many rows.
        let with_rows = self.groups.into_par_iter().filter(|group| group.with_rows > 0);
        let finished: Vec<(usize, Result<GramStats, QuantError>)> = with_rows
            .map(|group| (group.request, group.sums.finish().map(|stats| stats.with_samples(group.with_rows))))
            .collect();
        let mut results: LayerMoments = requests.iter().map(|_| Vec::new()).collect();
        for (request, stats) in finished {
            let stats = stats.map_err(|error| unusable(&requests[request], "the samples together", &error))?;
            results[request].push(stats);
        }
        Ok(results)
    }
}

impl GroupSums {
    fn add(&mut self, part: Self) -> Result<(), QuantError> {
        self.with_rows += part.with_rows;
        self.sums.absorb(part.sums)
    }
}

pub(super) fn unusable(request: &StatRequest, sample: &str, error: &QuantError) -> CalibError {
    CalibError::Activation { value: request.value.clone(), sample: sample.into(), detail: error.to_string() }
}
