//! How long models take in ONNX Runtime, side by side.
//!
//! # Method
//!
//! Models take turns, so that whatever else the machine does slows all of them. A round is as many runs of one model as
//! take [`ROUND`], over all samples; its figure is the mean of its runs. Of the rounds the median is told, and the
//! quartiles as the spread. The first round of each model warms up and is not counted.
//!
//! Without samples there is one, made from the shapes that the first model declares: floats between 0 and 1, integers
//! of 1. What a model does with them rarely changes how long it takes. Caches of int8 are filled likewise where samples hold
//! floats.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onnxquant_calib::{CalibSet, Dim, ElementType, InputSpec, OrtEngine, OrtModel, OrtOptions, Sample, Tensor};
use onnxquant_passes::cpu::Cpu;
use onnxquant_proto::onnx::ModelProto;
use onnxquant_proto::read_model;
use serde::Serialize;

use crate::config::DataConfig;
use crate::error::Error;
use crate::load::inputs_of;

/// A round lasts at least this long.
const ROUND: Duration = Duration::from_millis(20);
/// Rounds of a model that is fast.
const MOST_ROUNDS: u32 = 25;
/// Rounds of one that is slow.
const FEWEST_ROUNDS: u32 = 5;
/// All rounds of a model together last about as long as this.
const IN_ALL: Duration = Duration::from_secs(4);
/// A model that takes no time that can be measured is run at most so often in a round.
const MOST_RUNS: usize = 10_000;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Bench<'a> {
    /// The models, the one that others are compared with first.
    pub models: &'a [PathBuf],
    /// Samples, else one is made.
    pub data: Option<&'a DataConfig>,
    /// Lengths of symbolic dimensions in the sample that is made; others are 1.
    pub lengths: &'a [(String, usize)],
    /// Numbers of threads, one after the other.
    pub threads: &'a [usize],
}

/// How long models took.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// Name and version of the runtime.
    pub runtime: String,
    /// The class of the processor.
    pub cpu: Cpu,
    /// Samples that were run.
    pub samples: usize,
    /// The inputs of the first one, with their shapes.
    pub inputs: Vec<(String, Vec<usize>)>,
    /// By number of threads, then by model.
    pub timings: Vec<Timing>,
}

/// How long one model took.
#[derive(Debug, Clone, Serialize)]
pub struct Timing {
    /// The file.
    pub model: PathBuf,
    /// Threads of a run.
    pub threads: usize,
    /// Milliseconds of a run, the median of the rounds.
    pub median_ms: f64,
    /// Their lower and upper quartile.
    pub quartiles_ms: [f64; 2],
    /// How many times as fast as the first model with as many threads, by the medians.
    pub speed: f64,
}

/// Measures models in ONNX Runtime.
///
/// # Errors
/// A model cannot be read, loaded or run on the samples.
pub fn bench(ort: &OrtEngine, bench: &Bench<'_>) -> Result<BenchReport, Error> {
    let protos = bench.models.iter().map(|path| read_model(path)).collect::<Result<Vec<_>, _>>()?;
    let (Some(first), Some(path)) = (protos.first(), bench.models.first()) else {
        return Err(Error::Usage("no model is named".to_owned()));
    };
    let samples = samples(first, path, bench)?;
    let outputs: Vec<Vec<String>> = protos.iter().map(output_names).collect();
    let own = |(path, proto): (&PathBuf, &ModelProto)| Ok(own_samples(&samples, &inputs_of(proto, path)?));
    let own_samples = bench.models.iter().zip(&protos).map(own).collect::<Result<Vec<_>, Error>>()?;
    drop(protos);
    let mut timings = Vec::new();
    for &threads in bench.threads {
        let options = OrtOptions { threads, ..OrtOptions::default() };
        let mut racers = Vec::new();
        for ((path, outputs), samples) in bench.models.iter().zip(&outputs).zip(&own_samples) {
            racers.push(Racer { path, outputs, samples, model: ort.load(path, &options)?, rounds: Vec::new() });
        }
        race(&mut racers)?;
        let reference = racers.first().map_or(f64::NAN, |racer| quantile(&racer.rounds, 0.5));
        timings.extend(racers.iter().map(|racer| racer.timing(threads, reference)));
    }
    let shapes = samples.iter().take(1).flatten().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()));
    let runtime = format!("ONNX Runtime {}", ort.version());
    Ok(BenchReport { runtime, cpu: Cpu::native(), samples: samples.len(), inputs: shapes.collect(), timings })
}

/// A model on its way, with the milliseconds of a run in every round.
struct Racer<'a> {
    path: &'a Path,
    outputs: &'a [String],
    samples: &'a [Sample],
    model: OrtModel,
    rounds: Vec<f64>,
}

impl Racer<'_> {
    /// How long one run takes, of so many on every sample.
    fn round(&self, runs: usize) -> Result<Duration, Error> {
        let mut all = Duration::ZERO;
        for sample in self.samples {
            let time = self.model.time(sample, self.outputs, runs);
            all += time.map_err(|problem| Error::Run { path: self.path.to_owned(), problem })?;
        }
        Ok(all.div_f64((self.samples.len() * runs).max(1) as f64))
    }

    fn timing(&self, threads: usize, reference: f64) -> Timing {
        let median = quantile(&self.rounds, 0.5);
        Timing {
            model: self.path.to_owned(),
            threads,
            median_ms: median,
            quartiles_ms: [0.25, 0.75].map(|q| quantile(&self.rounds, q)),
            speed: reference / median,
        }
    }
}

fn race(racers: &mut [Racer<'_>]) -> Result<(), Error> {
    let mut plans = Vec::new();
    for racer in &*racers {
        // The first run allocates.
        racer.round(1)?;
        let run = racer.round(1)?.max(Duration::from_nanos(100));
        let on_all = run * u32::try_from(racer.samples.len()).unwrap_or(u32::MAX);
        let runs = ROUND.div_duration_f64(on_all).ceil().clamp(1.0, MOST_RUNS as f64) as usize;
        let round = on_all.mul_f64(runs as f64);
        let rounds = (IN_ALL.div_duration_f64(round) as u32).clamp(FEWEST_ROUNDS, MOST_ROUNDS);
        plans.push((runs, rounds));
    }
    let rounds = plans.iter().map(|(_, rounds)| *rounds).min().unwrap_or(FEWEST_ROUNDS);
    for round in 0..=rounds {
        for (racer, (runs, _)) in racers.iter_mut().zip(&plans) {
            let time = racer.round(*runs)?;
            if round > 0 {
                racer.rounds.push(1e3 * time.as_secs_f64());
            }
        }
    }
    Ok(())
}

/// Between the two nearest of the values, by their rank.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = q * sorted.len().saturating_sub(1) as f64;
    let at = |rank: f64| sorted.get(rank as usize).copied().unwrap_or(f64::NAN);
    at(rank.floor()) + (at(rank.ceil()) - at(rank.floor())) * rank.fract()
}

fn output_names(model: &ModelProto) -> Vec<String> {
    model.graph.iter().flat_map(|graph| &graph.output).map(|output| output.name().to_owned()).collect()
}

fn samples(model: &ModelProto, path: &Path, bench: &Bench<'_>) -> Result<Vec<Sample>, Error> {
    let inputs = inputs_of(model, path)?;
    match bench.data {
        Some(data) => {
            let set = CalibSet::open(&data.path, &inputs, &data.options)?;
            (0..set.len()).map(|sample| Ok(set.load(sample)?)).collect()
        }
        None => Ok(vec![made(&inputs, bench.lengths)?]),
    }
}

/// The samples with codes where these inputs are int8 and the samples have floats.
fn own_samples<'a>(samples: &'a [Sample], inputs: &[InputSpec]) -> Cow<'a, [Sample]> {
    let is_code = |(name, tensor): &(String, Tensor)| {
        let input = inputs.iter().find(|input| input.name == *name);
        input.is_some_and(|input| input.element == ElementType::I8) && tensor.element_type().is_float()
    };
    if !samples.iter().flatten().any(is_code) {
        return Cow::Borrowed(samples);
    }
    let own = |value: &(String, Tensor)| match is_code(value) {
        true => (value.0.clone(), filled(ElementType::I8, value.1.shape())),
        false => value.clone(),
    };
    samples.iter().map(|sample| sample.iter().map(own).collect()).collect()
}

/// A sample with the shapes that the inputs declare.
fn made(inputs: &[InputSpec], lengths: &[(String, usize)]) -> Result<Sample, Error> {
    let symbols: Vec<&String> = inputs
        .iter()
        .flat_map(|input| input.dims.iter().flatten())
        .filter_map(|dim| match dim {
            Dim::Symbolic(name) => Some(name),
            _ => None,
        })
        .collect();
    if let Some((name, _)) = lengths.iter().find(|(name, _)| !symbols.contains(&name)) {
        let known: std::collections::BTreeSet<String> = symbols.iter().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.into_iter().collect::<Vec<_>>().join(", ") };
        return Err(Error::Usage(format!(
            "the model has no symbolic dimension `{name}` (those of its inputs: {known})"
        )));
    }
    let length = |dim: &Dim| match dim {
        Dim::Fixed(n) => *n,
        Dim::Symbolic(name) => lengths.iter().find(|(other, _)| other == name).map_or(1, |(_, n)| *n),
        Dim::Unknown => 1,
    };
    let given = inputs.iter().filter(|input| !input.optional);
    given
        .map(|input| {
            let no_rank =
                || Error::Usage(format!("input `{}` declares no shape: give samples with --calib", input.name));
            let shape: Vec<usize> = input.dims.as_ref().ok_or_else(no_rank)?.iter().map(length).collect();
            Ok((input.name.clone(), filled(input.element, &shape)))
        })
        .collect()
}

/// Floats that look random, the same every time; integers of 1, which stand in every vocabulary.
fn filled(element: ElementType, shape: &[usize]) -> Tensor {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    Tensor::filled(element, shape, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(dims: Option<Vec<Dim>>) -> InputSpec {
        InputSpec { name: "x".to_owned(), element: ElementType::F32, dims, optional: false }
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|q| quantile(&values, q)), [1.0, 1.75, 2.5, 4.0]);
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
    }

    #[test]
    fn samples_have_the_lengths_that_are_asked_for() {
        let dims = vec![Dim::Symbolic("batch".to_owned()), Dim::Fixed(3), Dim::Unknown];
        let sample = made(&[input(Some(dims.clone()))], &[("batch".to_owned(), 5)]).unwrap();
        assert_eq!(sample[0].1.shape(), [5, 3, 1]);
        let floats = sample[0].1.to_f32().unwrap();
        assert!(floats.iter().all(|x| (0.0..1.0).contains(x)) && floats[[0, 0, 0]] != floats[[1, 0, 0]]);
        let said = made(&[input(Some(dims))], &[("batches".to_owned(), 5)]).unwrap_err().to_string();
        assert!(said.contains("`batches`") && said.contains("`batch`"), "{said}");
        assert!(made(&[input(None)], &[]).unwrap_err().to_string().contains("--calib"));
    }
}
