//! Second moments of layer inputs over a data set.
//!
//! Samples are run a batch at a time; then every request and group takes in the batch's
//! activations in sample order, requests and groups in parallel. Each accumulator sees the same
//! rows in the same order for any number of threads, so sums are identical bit by bit.
//!
//! Convolutions have far more rows than their statistics need, neighbours nearly equal: beyond [`ROWS_PER_INPUT`] rows an
//! input (and [`LEAST_ROWS`]) only some are taken, evenly spread over positions and samples. Samples that wait at the
//! inputs of two networks are run only when the others have fewer rows than that.
//!
//! Where data select the rows, a sample may have none, or others in one network than in the other: those that cannot be
//! paired are counted ([`GramStats::n_unpaired`]). Of an input without any rows there are no statistics.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use ndarray::{Array2, ArrayD};
use onnxquant_quant::{
    Chunks, DiagonalAccumulator, GramAccumulator, GramStats, MatrixView, PairedAccumulator, QuantError,
};
use rayon::prelude::*;

use crate::data::CalibSet;
use crate::engine::Session;
use crate::error::CalibError;
use crate::run::{Progress, SampleRun, floats, for_each_batch};
use crate::stream::{Network, advance, catch_up};

/// Elements of one chunk of unfolded rows: it stays in a core's cache.
const CHUNK_ELEMENTS: usize = 1 << 17;
/// Rows taken for every input of a layer, where there are more.
const ROWS_PER_INPUT: usize = 32;
/// At least so many rows are taken, where there are more.
const LEAST_ROWS: usize = 1 << 14;
/// The same for [`StatKind::RoughGram`].
const ROUGH_ROWS_PER_INPUT: usize = 4;
const LEAST_ROUGH_ROWS: usize = 1 << 11;
/// Rows that are taken or left together.
const SAMPLED_CHUNK_ROWS: usize = 128;
/// The same for [`StatKind::RoughGram`]: of the fewer rows each sample has some.
const ROUGH_CHUNK_ROWS: usize = 64;

/// What is gathered of a layer's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatKind {
    /// Mean square of every input.
    Diagonal,
    /// The whole Gram matrix.
    Gram,
    /// The same from fewer rows: enough to weigh errors with, where nothing is fitted to the matrix.
    RoughGram,
}

impl StatKind {
    /// Rows of so many inputs beyond which only some are taken.
    fn enough_rows(self, inputs: usize) -> usize {
        let (per_input, least) = match self {
            Self::Diagonal | Self::Gram => (ROWS_PER_INPUT, LEAST_ROWS),
            Self::RoughGram => (ROUGH_ROWS_PER_INPUT, LEAST_ROUGH_ROWS),
        };
        (per_input * inputs).max(least)
    }

    /// Rows that are taken or left together.
    fn sampled_chunk_rows(self) -> usize {
        match self {
            Self::Diagonal | Self::Gram => SAMPLED_CHUNK_ROWS,
            Self::RoughGram => ROUGH_CHUNK_ROWS,
        }
    }
}

/// Statistics wanted of one value, read as one layer reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct StatRequest {
    /// ONNX name of the value.
    pub value: String,
    /// How the layer reads it.
    pub view: MatrixView,
    /// What is gathered.
    pub kind: StatKind,
}

/// Bytes that gathering these statistics takes (sums, buffers and results; not activations).
pub fn gram_bytes(requests: &[StatRequest]) -> u64 {
    requests.iter().map(request_bytes).fold(0, u64::saturating_add)
}

fn request_bytes(request: &StatRequest) -> u64 {
    let (k, groups) = (request.view.inputs() as u64, request.view.groups() as u64);
    let one = match request.kind {
        StatKind::Diagonal => k.saturating_mul(16),
        StatKind::Gram | StatKind::RoughGram => GramAccumulator::bytes(request.view.inputs()),
    };
    one.saturating_mul(groups)
}

/// Gathers the statistics that `requests` ask for over the samples `indices`: for each request
/// one [`GramStats`] per group, or nothing where its input has no rows in any sample.
///
/// The values must be among those that `engine` observes. Requests are taken as they are:
/// several layers that read one value alike should share a request.
pub fn collect(
    engine: &dyn Session,
    data: &CalibSet,
    indices: &[usize],
    requests: &[StatRequest],
    progress: &dyn Fn(Progress),
) -> Result<LayerMoments, CalibError> {
    let names = engine.values();
    let positions: HashMap<&str, usize> = names.iter().enumerate().map(|(i, v)| (v.as_str(), i)).collect();
    let missing = |r: &StatRequest| CalibError::NoSuchValue {
        name: r.value.clone(),
        reason: "the session does not observe it".into(),
    };
    let find = |r: &StatRequest| positions.get(r.value.as_str()).copied().ok_or_else(|| missing(r));
    let sources = requests.iter().map(|r| Ok(Source { seen: find(r)?, reference: None, is_selected: false }));
    let sources = sources.collect::<Result<Vec<_>, CalibError>>()?;
    let mut tasks = tasks(requests, &sources, indices)?;
    for_each_batch(&[engine], data, indices, progress, &mut |runs| {
        take_in(&mut tasks, requests, &Batch::new(&[names], data, &runs, &sources)?)
    })?;
    finish(tasks, requests)
}

/// Statistics by request, by group; no groups where the input has no rows in any sample.
pub type LayerMoments = Vec<Vec<GramStats>>;

/// Statistics of one value as the quantized network has it, beside what it is in the float network.
#[derive(Debug, Clone, PartialEq)]
pub struct PairRequest {
    /// ONNX name of the value in the quantized network, how the layer reads it, and what is gathered of it.
    pub seen: StatRequest,
    /// ONNX name of the value in the float network.
    pub reference: String,
    /// Data select its rows, so that the networks may have others in the same place.
    pub is_selected: bool,
}

/// Takes both networks to the values of `requests` and gathers their statistics, once for every set of samples in
/// `sets`: by set, by request, by group.
///
/// The streams must run all samples of the sets.
pub fn collect_pairs(
    quantized: Network<'_>,
    float: Network<'_>,
    data: &CalibSet,
    sets: &[&[usize]],
    requests: &[PairRequest],
    progress: &dyn Fn(Progress),
) -> Result<Vec<LayerMoments>, CalibError> {
    let seen = distinct(requests.iter().map(|r| &r.seen.value));
    let reference = distinct(requests.iter().map(|r| &r.reference));
    let position = |names: &[String], name: &String| names.iter().position(|n| n == name);
    let source = |r: &PairRequest| {
        let at = position(&reference, &r.reference).map(|at| seen.len() + at);
        Some(Source { seen: position(&seen, &r.seen.value)?, reference: at, is_selected: r.is_selected })
    };
    let sources: Vec<Source> = requests.iter().filter_map(source).collect();
    let requests: Vec<StatRequest> = requests.iter().map(|r| r.seen.clone()).collect();
    let tasks = sets.iter().map(|set| tasks(&requests, &sources, set));
    let tasks: Vec<Vec<Task>> = tasks.collect::<Result<_, _>>()?;
    let names = [&seen[..], &reference[..]];
    let arriving = quantized.stream.samples().to_vec();
    let mut gathering = Gathering { names, data, requests: &requests, sources: &sources, tasks, arriving, rows: None };
    let mut networks = [quantized, float];
    advance(&mut networks, &names, data, progress, &mut |runs| gathering.take_in(runs))?;
    if gathering.rows != Some(Rows::Enough) {
        catch_up(&mut networks, &names, data, progress, &mut |runs| gathering.take_in(runs))?;
    }
    gathering.tasks.into_iter().map(|tasks| finish(tasks, &requests)).collect()
}

/// Statistics of two networks, of which samples arrive.
struct Gathering<'a> {
    names: [&'a [String]; 2],
    data: &'a CalibSet,
    requests: &'a [StatRequest],
    sources: &'a [Source],
    /// By set.
    tasks: Vec<Vec<Task>>,
    /// Samples that are on their way.
    arriving: Vec<usize>,
    /// What these have; not known before one has arrived.
    rows: Option<Rows>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Enough,
    TooFew,
}

impl Gathering<'_> {
    fn take_in(&mut self, runs: &[SampleRun]) -> Result<(), CalibError> {
        let batch = Batch::new(&self.names, self.data, runs, self.sources)?;
        if self.rows.is_none() {
            let rows = self.rows_of(&batch)?;
            if rows == Rows::Enough {
                self.tasks.iter_mut().flatten().for_each(|task| task.samples.retain(|s| self.arriving.contains(s)));
            }
            self.rows = Some(rows);
        }
        self.tasks.iter_mut().try_for_each(|tasks| take_in(tasks, self.requests, &batch))
    }

    /// Whether what is on its way has enough rows for every request, judged by the first sample.
    fn rows_of(&self, batch: &Batch<'_>) -> Result<Rows, CalibError> {
        for (request, source) in self.requests.iter().zip(self.sources) {
            let Some(seen) = batch.values.first().and_then(|values| values.get(&source.seen)) else { continue };
            let rows = request.view.rows(seen.shape()).map_err(|error| unusable(request, &batch.names[0], &error))?;
            if rows.saturating_mul(self.arriving.len()) < request.kind.enough_rows(request.view.inputs()) {
                return Ok(Rows::TooFew);
            }
        }
        Ok(Rows::Enough)
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        if !found.contains(name) {
            found.push(name.clone());
        }
    }
    found
}

/// Where the values of a request stand among those of a batch.
#[derive(Debug, Clone, Copy)]
struct Source {
    seen: usize,
    reference: Option<usize>,
    is_selected: bool,
}

/// Activations of some samples.
struct Batch<'a> {
    samples: Vec<usize>,
    /// Where samples come from, for messages.
    names: Vec<String>,
    /// By sample, by value; only those asked for.
    values: Vec<HashMap<usize, Cow<'a, ArrayD<f32>>>>,
}

impl<'a> Batch<'a> {
    /// Of the values that `names` names, stream by stream.
    fn new(names: &[&[String]], data: &CalibSet, runs: &'a [SampleRun], wanted: &[Source]) -> Result<Self, CalibError> {
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

/// One group of one request, over one set of samples.
struct Task {
    request: usize,
    group: usize,
    source: Source,
    sums: Sums,
    samples: HashSet<usize>,
    /// How many of them have been taken in, and how many had rows.
    taken: usize,
    with_rows: usize,
}

enum Sums {
    Diagonal(DiagonalAccumulator),
    Gram(GramAccumulator),
    Paired(Box<PairedAccumulator>),
}

fn tasks(requests: &[StatRequest], sources: &[Source], samples: &[usize]) -> Result<Vec<Task>, CalibError> {
    let mut tasks = Vec::new();
    for (index, (request, &source)) in requests.iter().zip(sources).enumerate() {
        let k = request.view.inputs();
        for group in 0..request.view.groups() {
            let sums = match (request.kind, source.reference) {
                (StatKind::Diagonal, _) => DiagonalAccumulator::new(k).map(Sums::Diagonal),
                (_, None) => GramAccumulator::new(k).map(Sums::Gram),
                (_, Some(_)) => PairedAccumulator::new(k).map(|sums| Sums::Paired(Box::new(sums))),
            };
            let sums = sums.map_err(|error| unusable(request, "every sample", &error))?;
            let samples = samples.iter().copied().collect();
            tasks.push(Task { request: index, group, source, sums, samples, taken: 0, with_rows: 0 });
        }
    }
    Ok(tasks)
}

fn take_in(tasks: &mut [Task], requests: &[StatRequest], batch: &Batch<'_>) -> Result<(), CalibError> {
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
        let chunks = chunks(view, kind, seen.shape(), self.samples.len(), self.taken)?;
        let mut beside: Vec<Array2<f32>> = Vec::new();
        // Of another shape, it has other rows.
        if let Some(reference) = reference.filter(|reference| reference.shape() == seen.shape()) {
            view.for_each_rows(reference.view(), self.group, chunks, &mut |rows| beside.push(rows.to_owned()))?;
        }
        let mut beside = beside.iter();
        let is_selected = self.source.is_selected;
        let (mut failure, sums) = (Ok(()), &mut self.sums);
        view.for_each_rows(seen.view(), self.group, chunks, &mut |rows| {
            if failure.is_ok() {
                failure = match sums {
                    Sums::Diagonal(sums) => sums.push(rows),
                    Sums::Gram(sums) => sums.push(rows),
                    Sums::Paired(sums) => match beside.next() {
                        Some(reference) if is_selected => sums.push_selected(rows, reference.view()),
                        Some(reference) => sums.push(rows, reference.view()),
                        None => sums.push_unpaired(rows),
                    },
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

fn finish(tasks: Vec<Task>, requests: &[StatRequest]) -> Result<LayerMoments, CalibError> {
    // All groups of an input have as many rows.
    let with_rows = tasks.into_par_iter().filter(|task| task.with_rows > 0);
    let finished: Vec<(usize, Result<GramStats, QuantError>)> = with_rows
        .map(|task| {
            let stats = match task.sums {
                Sums::Diagonal(sums) => sums.finish(),
                Sums::Gram(sums) => sums.finish(),
                Sums::Paired(sums) => sums.finish(),
            };
            (task.request, stats.map(|stats| stats.with_samples(task.with_rows)))
        })
        .collect();
    let mut results: LayerMoments = requests.iter().map(|_| Vec::new()).collect();
    for (request, stats) in finished {
        let stats = stats.map_err(|error| unusable(&requests[request], "the samples together", &error))?;
        results[request].push(stats);
    }
    Ok(results)
}

fn unusable(request: &StatRequest, sample: &str, error: &QuantError) -> CalibError {
    CalibError::Activation { value: request.value.clone(), sample: sample.into(), detail: error.to_string() }
}
