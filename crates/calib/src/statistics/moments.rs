//! Second moments of layer inputs over a data set.
//!
//! Samples are run a batch at a time; then every request and group takes in the batch's
//! activations in sample order, requests and groups in parallel. Each accumulator sees the same
//! rows in the same order for any number of threads, so sums are identical bit by bit.
//!
//! They are gathered part by part ([`crate::count_parts`]), and the sums of parts are added in their order: those of the
//! samples that advance at once, then those of samples that waited. So they are the same wherever parts were run.
//!
//! Convolutions have far more rows than their statistics need, neighbours nearly equal: beyond [`ROWS_PER_INPUT`] rows an
//! input (and [`LEAST_ROWS`]) only some are taken, evenly spread over positions and samples. Samples that wait at the
//! inputs of two networks are run only when the others have fewer rows than that.
//!
//! Where data select the rows, a sample may have none, or others in one network than in the other: those that cannot be
//! paired are counted ([`GramStats::n_unpaired`]). Of an input without any rows there are no statistics.

use std::collections::HashMap;
use std::ops::Range;

use super::request::{PairRequest, StatRequest};
use super::sums::{Batch, Extent, LayerMoments, MomentSums, Source, Task, take_in, tasks, unusable};
use crate::data::CalibSet;
use crate::engine::Session;
use crate::error::CalibError;
use crate::run::{Progress, SampleRun, in_batches, run_order, run_sample};
use crate::stream::parts::{Part, part_range};
use crate::stream::{MOST_PARTS, Network, advance, catch_up, count_parts};

/// Gathers the statistics that `requests` ask for over the samples `indices`: for each request
/// one [`GramStats`](onnxquant_quant::GramStats) per group, or nothing where its input has no rows in any sample.
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
    let mut total = MomentSums::new(requests)?;
    let mut add = |part: PartMoments| part.sums.into_iter().try_for_each(|sums| total.add(sums));
    collect_parts(engine, (data, indices), requests, 0..MOST_PARTS, progress, &mut add)?;
    total.finish(requests)
}

/// The statistics of one part of the samples.
#[derive(Debug)]
pub struct PartMoments {
    /// Which part.
    pub part: usize,
    /// Of the samples that waited; they are added behind all that did not.
    pub waited: bool,
    /// What is to be added, by set of samples.
    pub sums: Vec<MomentSums>,
}

/// What takes the statistics of parts, in their order.
pub type TakePart<'a> = dyn FnMut(PartMoments) -> Result<(), CalibError> + Send + 'a;

/// The same as [`collect`], but hands over the statistics of the parts in `own`, each by itself: they are to be added in
/// the order of the parts.
///
/// The session must be one for all samples, wherever they are run.
pub fn collect_parts(
    engine: &dyn Session,
    (data, indices): (&CalibSet, &[usize]),
    requests: &[StatRequest],
    own: Range<usize>,
    progress: &dyn Fn(Progress),
    take: &mut TakePart<'_>,
) -> Result<(), CalibError> {
    let names = engine.values();
    let positions: HashMap<&str, usize> = names.iter().enumerate().map(|(i, v)| (v.as_str(), i)).collect();
    let missing = |r: &StatRequest| CalibError::NoSuchValue {
        name: r.value.clone(),
        reason: "the session does not observe it".into(),
    };
    let find = |r: &StatRequest| positions.get(r.value.as_str()).copied().ok_or_else(|| missing(r));
    let sources = requests.iter().map(|r| Ok(Source { seen: find(r)?, reference: None, is_selected: false }));
    let sources = sources.collect::<Result<Vec<_>, CalibError>>()?;
    let parts = count_parts(indices.len());
    let members = |part: usize| &indices[part_range(indices.len(), parts, part)];
    let order = (0..parts).filter(|part| own.contains(part));
    let order: Vec<(usize, usize)> =
        order.flat_map(|part| run_order(&[engine], data, members(part)).into_iter().map(move |s| (part, s))).collect();
    let sets = [indices];
    let mut gathering = Gathering::new([names, &[]], data, (requests, &sources), &sets, take);
    let run = |(part, sample): (usize, usize)| Ok((part, run_sample(&[engine], data, sample)?));
    in_batches(order, &run, &|(_, run)| run.bytes(), progress, &mut |runs: Vec<(usize, SampleRun)>| {
        for of_part in runs.chunk_by(|a, b| a.0 == b.0) {
            let (part, taken) = (of_part[0].0, part_range(indices.len(), parts, of_part[0].0).start);
            let runs: Vec<&SampleRun> = of_part.iter().map(|(_, run)| run).collect();
            gathering.take_in((part, false), &runs, |_| Ok(vec![Extent { total: indices.len(), before: taken }]))?;
        }
        Ok(())
    })?;
    gathering.close()
}

/// Takes both networks, the quantized one and the float one, to the values of `requests` and gathers their statistics, once
/// for every set of samples in `sets`: by set, by request, by group.
///
/// The streams must run all samples of the sets, all parts of them here.
pub fn collect_pairs(
    networks: [Network<'_>; 2],
    data: &CalibSet,
    sets: &[&[usize]],
    requests: &[PairRequest],
    progress: &dyn Fn(Progress),
) -> Result<Vec<LayerMoments>, CalibError> {
    let seen = seen(requests);
    let mut totals = sets.iter().map(|_| MomentSums::new(&seen)).collect::<Result<Vec<_>, CalibError>>()?;
    collect_pair_parts(networks, data, sets, requests, progress, &mut |part| {
        totals.iter_mut().zip(part.sums).try_for_each(|(total, sums)| total.add(sums))
    })?;
    totals.into_iter().map(|total| total.finish(&seen)).collect()
}

fn seen(requests: &[PairRequest]) -> Vec<StatRequest> {
    requests.iter().map(|r| r.seen.clone()).collect()
}

/// The same as [`collect_pairs`], but hands over the statistics of the parts that these streams run, each by itself.
///
/// They are to be added in the order in which they come: that of the parts, those of samples that waited last.
pub fn collect_pair_parts(
    mut networks: [Network<'_>; 2],
    data: &CalibSet,
    sets: &[&[usize]],
    requests: &[PairRequest],
    progress: &dyn Fn(Progress),
    take: &mut TakePart<'_>,
) -> Result<(), CalibError> {
    let seen = distinct(requests.iter().map(|r| &r.seen.value));
    let reference = distinct(requests.iter().map(|r| &r.reference));
    let position = |names: &[String], name: &String| names.iter().position(|n| n == name);
    let source = |r: &PairRequest| {
        let at = position(&reference, &r.reference).map(|at| seen.len() + at);
        Some(Source { seen: position(&seen, &r.seen.value)?, reference: at, is_selected: r.is_selected })
    };
    let sources: Vec<Source> = requests.iter().filter_map(source).collect();
    let requests = self::seen(requests);
    let names = [&seen[..], &reference[..]];
    let roll = Roll::of(&networks[0], sets);
    let mut gathering = Gathering::new(names, data, (&requests, &sources), sets, take);
    // Parts whose samples on their way have too few rows.
    let mut short: Vec<usize> = Vec::new();
    advance(&mut networks, &names, data, progress, &mut |runs| {
        for of_part in runs.chunk_by(|a, b| roll.part(a.sample) == roll.part(b.sample)) {
            let part = roll.part(of_part[0].sample);
            gathering.take_in((part, false), &of_part.iter().collect::<Vec<_>>(), |batch| {
                let enough = has_enough(&requests, &sources, batch, roll.arrived())?;
                if !enough {
                    short.push(part);
                }
                Ok(roll.extents(part, enough))
            })?;
        }
        Ok(())
    })?;
    catch_up(&mut networks, &names, &short, data, progress, &mut |runs| {
        for of_part in runs.chunk_by(|a, b| roll.part(a.sample) == roll.part(b.sample)) {
            let part = roll.part(of_part[0].sample);
            let runs: Vec<&SampleRun> = of_part.iter().collect();
            gathering.take_in((part, true), &runs, |_| Ok(roll.late_extents(part)))?;
        }
        Ok(())
    })?;
    gathering.close()
}

/// Whether what is on its way, so many samples, has enough rows for every request, judged by the first sample.
fn has_enough(
    requests: &[StatRequest],
    sources: &[Source],
    batch: &Batch<'_>,
    arriving: usize,
) -> Result<bool, CalibError> {
    for (request, source) in requests.iter().zip(sources) {
        let Some(seen) = batch.values.first().and_then(|values| values.get(&source.seen)) else { continue };
        let rows = request.view.rows(seen.shape()).map_err(|error| unusable(request, &batch.names[0], &error))?;
        if rows.saturating_mul(arriving) < request.kind.enough_rows(request.view.inputs()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which part every sample belongs to, and how many of each set come before.
struct Roll {
    part: HashMap<usize, usize>,
    /// By part, by set: those on their way, and those that wait.
    counts: Vec<Vec<[usize; 2]>>,
    arrived: usize,
}

impl Roll {
    fn of(network: &Network<'_>, sets: &[&[usize]]) -> Self {
        let parts = network.stream.parts();
        let members = |(at, part): (usize, &Part)| {
            part.samples.iter().chain(&part.waiting).map(|&sample| (sample, at)).collect::<Vec<_>>()
        };
        let count = |samples: &[usize], set: &[usize]| samples.iter().filter(|sample| set.contains(sample)).count();
        let of_part =
            |part: &Part| sets.iter().map(|set| [count(&part.samples, set), count(&part.waiting, set)]).collect();
        Self {
            part: parts.iter().enumerate().flat_map(members).collect(),
            counts: parts.iter().map(of_part).collect(),
            arrived: parts.iter().map(|part| part.samples.len()).sum(),
        }
    }

    fn part(&self, sample: usize) -> usize {
        self.part.get(&sample).copied().unwrap_or(0)
    }

    /// Samples that are on their way, in all parts.
    fn arrived(&self) -> usize {
        self.arrived
    }

    /// By set: which of its samples a part's are. The others count too where those on their way are not `enough`.
    fn extents(&self, part: usize, enough: bool) -> Vec<Extent> {
        self.by_set(|set| {
            let (arrived, waiting) = (self.sum(set, 0, usize::MAX), self.sum(set, 1, usize::MAX));
            Extent { total: if enough { arrived } else { arrived + waiting }, before: self.sum(set, 0, part) }
        })
    }

    /// The same of samples that waited.
    fn late_extents(&self, part: usize) -> Vec<Extent> {
        self.by_set(|set| {
            let arrived = self.sum(set, 0, usize::MAX);
            Extent { total: arrived + self.sum(set, 1, usize::MAX), before: arrived + self.sum(set, 1, part) }
        })
    }

    fn by_set(&self, extent: impl Fn(usize) -> Extent) -> Vec<Extent> {
        (0..self.counts.first().map_or(0, Vec::len)).map(extent).collect()
    }

    /// How many samples of a set the parts before one have.
    fn sum(&self, set: usize, waiting: usize, part: usize) -> usize {
        self.counts.iter().take(part).map(|sets| sets[set][waiting]).sum()
    }
}

/// A part, and whether its samples waited.
type Arriving = (usize, bool);

/// Statistics of samples that arrive, part by part.
struct Gathering<'a, 't> {
    names: [&'a [String]; 2],
    data: &'a CalibSet,
    requests: &'a [StatRequest],
    sources: &'a [Source],
    sets: &'a [&'a [usize]],
    /// What arrives, by set.
    current: Option<(Arriving, Vec<Vec<Task>>)>,
    take: &'a mut TakePart<'t>,
}

impl<'a, 't> Gathering<'a, 't> {
    fn new(
        names: [&'a [String]; 2],
        data: &'a CalibSet,
        (requests, sources): (&'a [StatRequest], &'a [Source]),
        sets: &'a [&'a [usize]],
        take: &'a mut TakePart<'t>,
    ) -> Self {
        Self { names, data, requests, sources, sets, current: None, take }
    }

    /// Takes in samples of one part. When the first of it arrive, `extents` says by set how many samples there are.
    fn take_in(
        &mut self,
        id: (usize, bool),
        runs: &[&SampleRun],
        extents: impl FnOnce(&Batch<'_>) -> Result<Vec<Extent>, CalibError>,
    ) -> Result<(), CalibError> {
        let batch = Batch::new(&self.names, self.data, runs, self.sources)?;
        if self.current.as_ref().is_none_or(|(current, _)| *current != id) {
            self.close()?;
            let start = |(set, extent): (&&[usize], Extent)| tasks(self.requests, self.sources, set, extent);
            let started = self.sets.iter().zip(extents(&batch)?).map(start).collect::<Result<Vec<_>, CalibError>>()?;
            self.current = Some((id, started));
        }
        let sets = self.current.iter_mut().flat_map(|(_, sets)| sets);
        sets.into_iter().try_for_each(|tasks| take_in(tasks, self.requests, &batch))
    }

    /// Hands over what has been gathered of the current part.
    fn close(&mut self) -> Result<(), CalibError> {
        let Some(((part, waited), sets)) = self.current.take() else { return Ok(()) };
        (self.take)(PartMoments { part, waited, sums: sets.into_iter().map(MomentSums::of).collect() })
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
