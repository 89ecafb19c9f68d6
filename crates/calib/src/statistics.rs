//! Second moments of layer inputs over a data set.
//!
//! Samples are run a batch at a time; then every request and group takes in the batch's
//! activations in sample order, requests and groups in parallel. Each accumulator sees the same
//! rows in the same order for any number of threads, so sums are identical bit by bit.

use std::collections::HashMap;

use ndarray::ArrayD;
use onnxquant_quant::{DiagonalAccumulator, GramAccumulator, GramStats, MatrixView, QuantError};
use rayon::prelude::*;

use crate::data::CalibSet;
use crate::engine::Engine;
use crate::error::CalibError;
use crate::run::{Progress, SampleRun, floats, for_each_batch};

/// Elements of one chunk of unfolded rows: it stays in a core's cache.
const CHUNK_ELEMENTS: usize = 1 << 17;

/// What is gathered of a layer's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatKind {
    /// Mean square of every input.
    Diagonal,
    /// The whole Gram matrix.
    Gram,
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
        StatKind::Gram => GramAccumulator::bytes(request.view.inputs()),
    };
    one.saturating_mul(groups)
}

/// Gathers the statistics that `requests` ask for over the samples `indices`: for each request
/// one [`GramStats`] per group.
///
/// The values must be among those that `engine` observes. Requests are taken as they are:
/// several layers that read one value alike should share a request.
pub fn collect(
    engine: &dyn Engine,
    data: &CalibSet,
    indices: &[usize],
    requests: &[StatRequest],
    progress: &dyn Fn(Progress),
) -> Result<Vec<Vec<GramStats>>, CalibError> {
    let positions = value_positions(engine, requests)?;
    let mut tasks = tasks(requests)?;
    for_each_batch(&[engine], data, indices, progress, &mut |runs| {
        let batch = Batch::new(engine, data, runs, &positions)?;
        let results: Vec<Result<(), CalibError>> = tasks
            .par_iter_mut()
            .map(|task| task.take_in(&batch, positions[task.request], &requests[task.request]))
            .collect();
        results.into_iter().collect()
    })?;
    finish(tasks, requests)
}

fn value_positions(engine: &dyn Engine, requests: &[StatRequest]) -> Result<Vec<usize>, CalibError> {
    let positions: HashMap<&str, usize> = engine.values().iter().enumerate().map(|(i, v)| (v.as_str(), i)).collect();
    let find = |r: &StatRequest| positions.get(r.value.as_str()).copied();
    let missing = |r: &StatRequest| CalibError::NoSuchValue {
        name: r.value.clone(),
        reason: "the session does not observe it".into(),
    };
    requests.iter().map(|r| find(r).ok_or_else(|| missing(r))).collect()
}

/// Activations of some samples.
struct Batch {
    /// Where samples come from, for messages.
    names: Vec<String>,
    /// By sample, by value; only those asked for.
    values: Vec<HashMap<usize, ArrayD<f32>>>,
}

impl Batch {
    fn new(engine: &dyn Engine, data: &CalibSet, runs: Vec<SampleRun>, wanted: &[usize]) -> Result<Self, CalibError> {
        let mut batch = Self { names: Vec::new(), values: Vec::new() };
        for run in runs {
            let name = data.describe(run.sample);
            let mut values = HashMap::new();
            for (position, tensor) in run.values.into_iter().flatten().enumerate() {
                if wanted.contains(&position) {
                    values.insert(position, floats(tensor, &engine.values()[position], &name)?);
                }
            }
            batch.names.push(name);
            batch.values.push(values);
        }
        Ok(batch)
    }
}

/// One group of one request.
struct Task {
    request: usize,
    group: usize,
    sums: Sums,
}

enum Sums {
    Diagonal(DiagonalAccumulator),
    Gram(GramAccumulator),
}

fn tasks(requests: &[StatRequest]) -> Result<Vec<Task>, CalibError> {
    let mut tasks = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let k = request.view.inputs();
        for group in 0..request.view.groups() {
            let sums = match request.kind {
                StatKind::Diagonal => DiagonalAccumulator::new(k).map(Sums::Diagonal),
                StatKind::Gram => GramAccumulator::new(k).map(Sums::Gram),
            };
            let sums = sums.map_err(|error| unusable(request, "every sample", &error))?;
            tasks.push(Task { request: index, group, sums });
        }
    }
    Ok(tasks)
}

impl Task {
    fn take_in(&mut self, batch: &Batch, position: usize, request: &StatRequest) -> Result<(), CalibError> {
        let chunk_rows = (CHUNK_ELEMENTS / request.view.inputs().max(1)).clamp(16, 4096);
        for (values, name) in batch.values.iter().zip(&batch.names) {
            let Some(array) = values.get(&position) else { continue };
            let mut failure = Ok(());
            let sums = &mut self.sums;
            let unfolded = request.view.for_each_rows(array.view(), self.group, chunk_rows, &mut |rows| {
                if failure.is_ok() {
                    failure = match sums {
                        Sums::Diagonal(sums) => sums.push(rows),
                        Sums::Gram(sums) => sums.push(rows),
                    };
                }
            });
            unfolded.and(failure).map_err(|error| unusable(request, name, &error))?;
        }
        Ok(())
    }
}

fn finish(tasks: Vec<Task>, requests: &[StatRequest]) -> Result<Vec<Vec<GramStats>>, CalibError> {
    let finished: Vec<(usize, Result<GramStats, QuantError>)> = tasks
        .into_par_iter()
        .map(|task| match task.sums {
            Sums::Diagonal(sums) => (task.request, sums.finish()),
            Sums::Gram(sums) => (task.request, sums.finish()),
        })
        .collect();
    let mut results: Vec<Vec<GramStats>> = requests.iter().map(|_| Vec::new()).collect();
    for (request, stats) in finished {
        let stats = stats.map_err(|error| unusable(&requests[request], "the samples together", &error))?;
        results[request].push(stats);
    }
    Ok(results)
}

fn unusable(request: &StatRequest, sample: &str, error: &QuantError) -> CalibError {
    CalibError::Activation { value: request.value.clone(), sample: sample.into(), detail: error.to_string() }
}
