//! Networks that advance over all samples side by side, from cut to cut.
//!
//! # Problem
//!
//! Layers are quantized one after the other, and each is fitted to what it sees behind the layers before it, once in the
//! float network and once in the quantized one. To run both from their inputs for every layer would take as many runs as
//! there are layers.
//!
//! # Method
//!
//! A [`Stream`] remembers for every sample the values at which its network was cut ([`cut`]). [`advance`] runs the piece
//! of each network between its cut and the values that are wanted next, hands these over and keeps the new cut. However
//! deep the network, every node runs once, shape computations aside.
//!
//! Samples can wait at the networks' inputs while others advance, and [`catch_up`] with these in one piece: where a few
//! samples tell enough, the values of the others need not be kept from cut to cut.
//!
//! Samples come part by part ([`parts`]). Other parts can be run elsewhere: how an engine prepares a piece depends on the
//! shapes of what it is given in all of them, so that these are told from place to place ([`CutShapes`]).
//!
//! A piece that the engine does not take (one whose shapes depend on data, say) is computed from the network's inputs
//! instead: slower, never wrong.
//!
//! # Numerics
//!
//! A piece computes bit by bit what the whole network would, as far as the engine does not fuse across the cut.
//! Results do not depend on the number of threads.
//!
//! # Cost
//!
//! One run of the network in all, plus a plan of the engine for every piece and shape. Memory: the values of a cut, of
//! every sample, up to a limit; beyond it they lie in a temporary file.

mod cut;
pub(crate) mod parts;
mod pieces;
mod store;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::OnceLock;

use onnxquant_proto::onnx::{GraphProto, ModelProto};
use rayon::prelude::*;

use crate::data::{CalibSet, Sample};
use crate::engine::{Feed, Given, Session, Shapes, SharedEngine, open_session};
use crate::error::CalibError;
use crate::run::{Progress, SampleRun, describe_failure, in_batches};
use crate::tensor::Tensor;
use cut::Cutter;
pub(crate) use cut::Keep;
pub use parts::{MOST_PARTS, count_parts};
use parts::{Part, divide};
pub use pieces::run_in_pieces;
use serde::{Deserialize, Serialize};
use store::Spill;
pub(crate) use store::{Slot, Store};

/// A network on its way over the samples.
#[derive(Debug)]
pub struct Stream {
    engine: SharedEngine,
    /// Those at the cut that are run here.
    samples: Vec<usize>,
    /// All of them, those too that are run elsewhere.
    parts: Vec<Part>,
    /// All values computed so far, kept or not.
    made: HashSet<String>,
    /// The values at the cut.
    kept: Vec<(String, Keep)>,
    store: Store,
}

/// Gives a model when it is asked for.
pub type MakeModel<'a> = dyn Fn() -> Result<ModelProto, CalibError> + Sync + 'a;

/// A network, where it is, and what will be wanted of it later.
pub struct Network<'a> {
    /// Where it is.
    pub stream: &'a mut Stream,
    /// The network; what has been computed of it may not change any more. Constants that only what has been computed
    /// reads need not be there.
    pub model: &'a ModelProto,
    /// Gives the network with all its constants.
    pub whole: &'a MakeModel<'a>,
    /// Values that will be wanted later.
    pub later: &'a [String],
}

impl Stream {
    /// At the network's inputs, for these samples. At most `limit_bytes` of values are kept in memory.
    pub fn new(engine: SharedEngine, samples: &[usize], limit_bytes: usize) -> Self {
        Self::with_waiting(engine, samples, &[], limit_bytes)
    }

    /// The same with further samples that wait at the inputs until their rows are needed.
    pub fn with_waiting(engine: SharedEngine, samples: &[usize], waiting: &[usize], limit_bytes: usize) -> Self {
        Self::of_parts(engine, (samples, waiting), 0..MOST_PARTS, limit_bytes)
    }

    /// The same, of which these parts alone are run here.
    pub fn of_parts(
        engine: SharedEngine,
        (samples, waiting): (&[usize], &[usize]),
        own: Range<usize>,
        limit_bytes: usize,
    ) -> Self {
        let parts = divide(samples, waiting, &own);
        let own = parts.iter().filter(|part| part.is_own);
        let samples: Vec<usize> = own.flat_map(|part| part.samples.iter().copied()).collect();
        let store = Store::new(samples.len(), limit_bytes);
        Self { engine, samples, parts, made: HashSet::new(), kept: Vec::new(), store }
    }

    /// All samples, part by part.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The part of a sample.
    fn part_of(&self, sample: usize) -> usize {
        let holds = |part: &Part| part.samples.contains(&sample) || part.waiting.contains(&sample);
        self.parts.iter().position(holds).unwrap_or(0)
    }

    /// What others have to know of a part that is run here.
    pub fn cut_shapes(&self, part: usize) -> CutShapes {
        let Part { samples, waiting, .. } = &self.parts[part];
        let of_sample = |sample: &usize| {
            let position = self.samples.iter().position(|own| own == sample);
            let slots = position.map_or(&[][..], |position| &self.store.slots[position][..]);
            slots.iter().map(|slot| slot.shape().to_vec()).collect()
        };
        CutShapes { waiting: waiting.len(), shapes: samples.iter().map(of_sample).collect() }
    }

    /// Takes note of a part that is run elsewhere, and has come as far as this stream.
    pub fn learn(&mut self, part: usize, found: CutShapes) {
        let Some(part) = self.parts.get_mut(part).filter(|part| !part.is_own) else { return };
        if found.waiting == 0 {
            part.samples.append(&mut part.waiting);
        }
        part.shapes = found.shapes;
    }

    /// Goes on with some of the samples only.
    pub fn narrow(&mut self, samples: &[usize]) {
        self.parts.iter_mut().for_each(|part| part.narrow(samples));
        let keeps: Vec<bool> = self.samples.iter().map(|sample| samples.contains(sample)).collect();
        self.samples.retain(|sample| samples.contains(sample));
        let mut keeps = keeps.into_iter();
        self.store.slots.retain(|_| keeps.next().unwrap_or(false));
    }

    /// Whether a value has been computed, for the samples that advance.
    pub fn has_made(&self, value: &str) -> bool {
        self.made.contains(value)
    }

    /// Moves `made` to the values `wanted` of `model` and says how the way there is run.
    fn step(&mut self, model: &ModelProto, wanted: &[String], later: &[String], data: &CalibSet) -> Step {
        let nothing = GraphProto::default();
        let cutter = Cutter::new(model.graph.as_ref().unwrap_or(&nothing));
        let feeds = self.feeds(data);
        let given = feeds.iter().map(|feed| feed.name.as_str()).collect();
        let made: Vec<String> = cutter.made(wanted, &given).map(str::to_owned).collect();
        self.made.extend(made);
        let mut observed = wanted.to_vec();
        let (mut names, mut sources) = (Vec::new(), Vec::new());
        for (name, how) in cutter.kept(&self.made, later) {
            sources.push(match self.kept.iter().position(|(kept, _)| *kept == name) {
                Some(position) => Source::Kept(position, how),
                None => {
                    observed.push(name.clone());
                    Source::Observed(observed.len() - 1, how)
                }
            });
            names.push((name, how));
        }
        let shapes = self.parts.iter().flat_map(|part| self.shapes_of(part, data)).collect();
        self.kept = names;
        Step::new(self.engine.clone(), model, observed, Given { feeds, shapes }, data, sources)
    }

    /// How samples are run from the inputs of the network `whole` to the values `wanted` and to the cut.
    fn step_from_inputs(&self, whole: &ModelProto, wanted: &[String], data: &CalibSet) -> Step {
        // Those too that go on waiting, or wait elsewhere.
        let waiting: Vec<usize> = self.parts.iter().flat_map(|part| part.waiting.iter().copied()).collect();
        let mut observed = wanted.to_vec();
        let mut sources = Vec::new();
        for (name, how) in &self.kept {
            sources.push(Source::Observed(observed.len(), *how));
            observed.push(name.clone());
        }
        Step::new(self.engine.clone(), whole, observed, Given::inputs(data, &waiting), data, sources)
    }

    /// What the next piece is given: the network's inputs and the values at the cut.
    fn feeds(&self, data: &CalibSet) -> Vec<Feed> {
        let first = self.store.slots.first();
        let kept = self.kept.iter().enumerate().map(|(value, (name, _))| {
            let element_type = first.and_then(|slots| slots.get(value)).map(Slot::element_type);
            Feed { name: name.clone(), element_type }
        });
        Given::inputs(data, &[]).feeds.into_iter().chain(kept).collect()
    }

    /// The shapes of what the next piece is given for the samples of a part.
    fn shapes_of(&self, part: &Part, data: &CalibSet) -> Vec<Shapes> {
        let kept = |at: usize, sample: usize| -> Shapes {
            match self.samples.iter().position(|own| *own == sample) {
                Some(position) => self.store.slots[position].iter().map(|slot| slot.shape().to_vec()).collect(),
                None => part.shapes.get(at).cloned().unwrap_or_default(),
            }
        };
        let all = part.samples.iter().enumerate();
        all.map(|(at, &sample)| data.shapes(sample).iter().cloned().chain(kept(at, sample)).collect()).collect()
    }
}

/// What places that run other parts have to know of a part at a cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutShapes {
    /// Samples that still wait at the inputs.
    waiting: usize,
    /// By sample at the cut: the shapes of the values there.
    shapes: Vec<Shapes>,
}

/// Where a value at the new cut comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The old cut.
    Kept(usize, Keep),
    /// The piece.
    Observed(usize, Keep),
}

/// The way from one cut to the next.
struct Step {
    engine: SharedEngine,
    piece: Option<Box<dyn Session>>,
    /// The same values, computed from the network's inputs; made when a piece fails.
    whole: OnceLock<Result<Box<dyn Session>, String>>,
    /// Those handed over first.
    observed: Vec<String>,
    feeds: Vec<Feed>,
    /// How many of them are inputs of the network.
    inputs: usize,
    /// Whether the piece reads any of those.
    loads: bool,
    sources: Vec<Source>,
}

impl Step {
    fn new(
        engine: SharedEngine,
        model: &ModelProto,
        observed: Vec<String>,
        given: Given,
        data: &CalibSet,
        sources: Vec<Source>,
    ) -> Self {
        let some = !given.shapes.is_empty();
        let piece = some.then(|| engine.open(model, &observed, &given)).and_then(Result::ok);
        let feeds = given.feeds;
        let inputs = data.inputs().len();
        let loads = piece.as_ref().is_none_or(|piece| feeds[..inputs].iter().any(|feed| piece.reads(&feed.name)));
        Self { engine, piece, whole: OnceLock::new(), observed, feeds, inputs, loads, sources }
    }

    /// Runs one sample; what is observed, those handed over first, and what is kept of the old cut, by source.
    fn run(
        &self,
        make_whole: &MakeModel<'_>,
        data: &CalibSet,
        sample: usize,
        slots: Vec<Slot>,
        spill: &Spill,
    ) -> Result<(Vec<Tensor>, Vec<Option<Slot>>), CalibError> {
        let shape_only: Vec<bool> = slots.iter().map(|slot| matches!(slot, Slot::Shape(..))).collect();
        let kept = slots.into_iter().map(|slot| spill.take(slot)).collect::<Result<Vec<_>, _>>()?;
        let names = self.feeds.iter().map(|feed| feed.name.clone());
        let inputs = if self.loads { data.load(sample)? } else { Sample::new() };
        let unread = self.inputs - inputs.len();
        let tensors = inputs.into_iter().map(|(_, tensor)| tensor).chain((0..unread).map(|_| nothing())).chain(kept);
        let mut given: Sample = names.zip(tensors).collect();
        let values = self.values(make_whole, data, sample, &given)?;
        let still_kept = self.sources.iter().map(|source| match *source {
            Source::Kept(position, how) => {
                let how = if shape_only[position] { Keep::Shape } else { how };
                Some(Slot::new(std::mem::replace(&mut given[self.inputs + position].1, nothing()), how))
            }
            Source::Observed(..) => None,
        });
        Ok((values, still_kept.collect()))
    }

    /// The new cut of a sample.
    fn cut(&self, observed: Vec<Tensor>, still_kept: Vec<Option<Slot>>) -> Result<Vec<Slot>, CalibError> {
        let lost = || CalibError::BadModel("a value at a cut was lost".into());
        let mut observed: Vec<Option<Tensor>> = observed.into_iter().map(Some).collect();
        let slots = self.sources.iter().zip(still_kept).map(|(source, kept)| match *source {
            Source::Kept(..) => kept.ok_or_else(lost),
            Source::Observed(position, how) => Ok(Slot::new(observed[position].take().ok_or_else(lost)?, how)),
        });
        slots.collect()
    }

    fn values(
        &self,
        make_whole: &MakeModel<'_>,
        data: &CalibSet,
        sample: usize,
        given: &Sample,
    ) -> Result<Vec<Tensor>, CalibError> {
        if let Some(values) = self.piece.as_ref().and_then(|piece| piece.run(given).ok()) {
            return Ok(values);
        }
        let make = || open_session(&*self.engine, &make_whole()?, &self.observed, data);
        match self.whole.get_or_init(|| make().map_err(|error| error.to_string())) {
            Ok(whole) => whole.run(&data.load(sample)?),
            // Once more, for the error itself.
            Err(_) => make()?.run(&data.load(sample)?),
        }
    }
}

/// Stands where a value is not needed.
fn nothing() -> Tensor {
    Tensor::Bool(ndarray::ArrayD::default(vec![0]))
}

/// What takes in the samples that have arrived.
pub type Arrive<'a> = dyn FnMut(&[SampleRun]) -> Result<(), CalibError> + Send + 'a;

/// Takes every network to the values `wanted` of it and hands these to `visit`, in batches of samples.
///
/// Streams must be of the same samples. Samples of a batch are run in parallel on rayon's current pool, while the batch
/// before is visited, and come in an order that does not depend on the number of threads; `values` of a [`SampleRun`]
/// are by stream, and begin with those wanted.
pub fn advance(
    networks: &mut [Network<'_>],
    wanted: &[&[String]],
    data: &CalibSet,
    progress: &dyn Fn(Progress),
    visit: &mut Arrive<'_>,
) -> Result<(), CalibError> {
    let steps = networks.par_iter_mut().zip(wanted).map(|(network, wanted)| {
        let Network { stream, model, later, .. } = network;
        stream.step(model, wanted, later, data)
    });
    let steps: Vec<Step> = steps.collect();
    let stores = networks.iter_mut().map(|network| {
        let next = network.stream.store.successor();
        std::mem::replace(&mut network.stream.store, next)
    });
    let before: Vec<Store> = stores.collect();
    take_steps(networks, &steps, 0, before, data, progress, visit)
}

/// Takes the samples of some parts that wait at the networks' inputs to where the others are, and hands the values
/// `wanted`, to which the others were taken last, to `visit` as [`advance`] does.
pub fn catch_up(
    networks: &mut [Network<'_>],
    wanted: &[&[String]],
    parts: &[usize],
    data: &CalibSet,
    progress: &dyn Fn(Progress),
    visit: &mut Arrive<'_>,
) -> Result<(), CalibError> {
    let Some(first) = networks.first() else { return Ok(()) };
    let own = |part: &&usize| first.stream.parts.get(**part).is_some_and(|part| part.is_own);
    let parts: Vec<usize> = parts.iter().filter(own).copied().collect();
    let waiting: Vec<usize> = parts.iter().flat_map(|&part| first.stream.parts[part].waiting.iter().copied()).collect();
    let arrived = first.stream.samples.len();
    if waiting.is_empty() {
        return Ok(());
    }
    let steps = networks.par_iter_mut().zip(wanted).map(|(network, wanted)| {
        let whole = (network.whole)()?;
        Ok(network.stream.step_from_inputs(&whole, wanted, data))
    });
    let steps: Vec<Result<Step, CalibError>> = steps.collect();
    let steps: Vec<Step> = steps.into_iter().collect::<Result<_, _>>()?;
    for network in networks.iter_mut() {
        network.stream.samples.extend(&waiting);
        for &part in &parts {
            let Part { samples, waiting, .. } = &mut network.stream.parts[part];
            samples.append(waiting);
        }
        network.stream.store.grow(waiting.len());
    }
    let before = networks.iter().map(|_| Store::new(waiting.len(), 0)).collect();
    take_steps(networks, &steps, arrived, before, data, progress, visit)
}

/// Takes the samples from position `start` on, whose values are in `before`, on their way.
fn take_steps(
    networks: &mut [Network<'_>],
    steps: &[Step],
    start: usize,
    mut before: Vec<Store>,
    data: &CalibSet,
    progress: &dyn Fn(Progress),
    visit: &mut Arrive<'_>,
) -> Result<(), CalibError> {
    let Some(first) = networks.first() else { return Ok(()) };
    let samples = first.stream.samples.clone();
    let part: Vec<usize> = samples.iter().map(|&sample| first.stream.part_of(sample)).collect();
    let mut order: Vec<usize> = (start..samples.len()).collect();
    if steps.iter().any(|step| step.piece.as_ref().is_none_or(Session::prefers_grouping)) {
        order.sort_by(|&a, &b| data.shapes(samples[a]).cmp(data.shapes(samples[b])));
    }
    order.sort_by_key(|&position| part[position]);
    let take = |position: usize| {
        let slots = before.iter_mut().map(|store| std::mem::take(&mut store.slots[position - start]));
        (position, slots.collect::<Vec<_>>())
    };
    let jobs: Vec<(usize, Vec<Vec<Slot>>)> = order.into_iter().map(take).collect();
    let (mut stores, wholes): (Vec<&mut Store>, Vec<&MakeModel<'_>>) =
        networks.iter_mut().map(|network| (&mut network.stream.store, network.whole)).unzip();
    let run = |(position, slots): (usize, Vec<Vec<Slot>>)| {
        let sample = samples[position];
        let from = steps.iter().zip(slots).zip(before.iter().zip(&wholes));
        let one = from.map(|((step, slots), (before, whole))| step.run(whole, data, sample, slots, &before.spill));
        let results: Result<Vec<_>, CalibError> = one.collect();
        let (values, still_kept) = results.map_err(|error| describe_failure(error, data, sample))?.into_iter().unzip();
        Ok((SampleRun { sample, values }, (position, still_kept)))
    };
    in_batches(jobs, &run, &|(run, _)| run.bytes(), progress, &mut |batch: Vec<Arrived>| {
        let (runs, rest): (Vec<SampleRun>, Vec<_>) = batch.into_iter().unzip();
        visit(&runs)?;
        for (run, (position, still_kept)) in runs.into_iter().zip(rest) {
            let cuts = steps.iter().zip(run.values).zip(still_kept);
            for (store, ((step, observed), still_kept)) in stores.iter_mut().zip(cuts) {
                store.put(position, step.cut(observed, still_kept)?)?;
            }
        }
        Ok(())
    })
}

/// A sample at the goals: what was observed, and its position in the streams with what they still keep.
type Arrived = (SampleRun, (usize, Vec<Vec<Option<Slot>>>));
