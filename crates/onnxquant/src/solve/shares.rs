//! The share of a process, where several solve the layers together over one folder.
//!
//! # Method
//!
//! All processes do what a run by itself does, with the same model, samples and settings. Those that calibrate take their
//! parts of the samples from stage to stage and keep the sums of moments; those that solve add up the sums of all parts, in
//! their order, and keep the layers that are theirs. In the float network alone no stage waits for another. Where both
//! networks go side by side, the parts of a stage need the layers of the stage before, and the shapes at the cut of all
//! parts: how an engine prepares the next piece depends on them.
//!
//! # Guarantee
//!
//! The same bits as one process, whatever there are of either kind. What is in the folder already is not done again, so
//! that whoever dies is started again with the same words.
//!
//! # Failure
//!
//! What others have not done yet is waited for, or told as [`Error::Waiting`].

use std::ops::Range;

use onnxquant_calib::{CalibError, PartMoments, TakePart, count_parts};

use crate::config::{Duty, Shard};
use crate::error::Error;
use crate::judge::served::seen;
use crate::observe::calibration::{Calibration, StageStats};
use crate::plan::layers::{Plan, PlannedLayer};
use crate::solve::cost::seconds;
use crate::solve::gathered::{Gathered, all_done, sets};
use crate::solve::job::Job;
use crate::solve::layers::{TiedCodes, solve_layer};
use crate::solve::parts::{Done, KeptParts};
use crate::solve::source::Source;
use crate::solve::state::KeptLayers;
use crate::solve::streams::Streams;
use crate::solve::weights::failed;
use crate::write::codes::QuantizedTable;

/// A stage on its way: which it is, of how many, its layers and those to come.
#[derive(Clone, Copy)]
struct Stage<'a> {
    number: usize,
    of: usize,
    start: usize,
    layers: &'a [PlannedLayer],
    later: &'a [PlannedLayer],
}

/// Does the share of this process.
///
/// # Errors
/// Others have to do something first; or as solving all layers.
pub(crate) fn do_share(job: Job<'_>, plan: &Plan, tables: &[QuantizedTable], shard: &Shard) -> Result<(), Error> {
    let Some(state) = job.state else {
        return Err(Error::Usage("several processes need a folder for what each has done: give --state".to_owned()));
    };
    let kept = state.layers(plan);
    let source = Source::new(job, plan, tables)?;
    let ranges = source.stages(job.model, &plan.layers, job.config);
    let of = ranges.len();
    let stage = |(at, range): (usize, Range<usize>)| Stage {
        number: at + 1,
        of,
        start: range.start,
        layers: &plan.layers[range.clone()],
        later: &plan.layers[range.end..],
    };
    let stages: Vec<Stage<'_>> = ranges.into_iter().enumerate().map(stage).collect();
    match (shard.duty(), source) {
        (Duty::Finish, _) => Ok(()),
        (Duty::Solve, source) => solve(job, plan, (shard, &kept), &source, &stages),
        (Duty::Calibrate, Source::Nowhere) => Ok(()),
        (Duty::Calibrate, Source::Float { calibration, judged }) => {
            stages.iter().try_for_each(|stage| run_float(job, (shard, &kept), (calibration, judged), *stage))
        }
        (Duty::Calibrate, Source::Streams(streams)) => run_streams(job, (shard, &kept), *streams, &stages),
    }
}

/// Runs own parts of the samples through the float network.
fn run_float(
    job: Job<'_>,
    (shard, kept): (&Shard, &KeptLayers),
    (calibration, judged): (&Calibration, bool),
    stage: Stage<'_>,
) -> Result<(), Error> {
    if kept.has_all(stage.start, stage.layers.len()) {
        return Ok(());
    }
    let done = Done { turns: [true, false], ..Done::default() };
    for (set, samples) in sets(calibration, judged) {
        let parts = kept.parts(stage.start).of_set(set);
        let own = shard.parts(count_parts(samples.len()));
        // Whoever died had done some.
        let mut missing = own.clone();
        while missing.start < own.end && parts.done(missing.start)?.is_some() {
            missing.start += 1;
        }
        if missing.is_empty() {
            continue;
        }
        keeping(|keep| {
            let take: &mut TakePart<'_> = &mut |part| {
                let number = part.part;
                keep(parts.keep(part).and_then(|()| parts.keep_done(number, &done)))
            };
            calibration.statistics_of_parts(job.model, stage.layers, (samples, missing, judged), job.progress, take)
        })?;
    }
    Ok(())
}

/// Takes own parts of the samples through both networks.
fn run_streams(
    job: Job<'_>,
    (shard, kept): (&Shard, &KeptLayers),
    mut streams: Streams<'_>,
    stages: &[Stage<'_>],
) -> Result<(), Error> {
    let (parts, own) = streams.parts();
    let seen = job.calibration.map_or_else(Vec::new, |calibration| seen(calibration, job.served));
    let compared = kept.compared_parts(&seen);
    if all_done(&compared, own.clone())? {
        return Ok(());
    }
    for stage in stages {
        let moments = kept.parts(stage.start);
        let is_there = all_done(&moments, own.clone())?;
        let mut gave = vec![[false; 2]; parts];
        if is_there || kept.has_all(stage.start, stage.layers.len()) {
            streams.pass(stage.layers, stage.later, job.progress)?;
        } else {
            keeping(|keep| {
                streams.statistics_of_parts(stage.layers, stage.later, job.progress, &mut |part: PartMoments| {
                    gave[part.part][usize::from(part.waited)] = true;
                    keep(moments.keep(part))
                })
            })?;
        }
        for part in own.clone().filter(|_| !is_there) {
            moments.keep_done(part, &Done { cuts: streams.cuts(part), turns: gave[part] })?;
        }
        for part in (0..parts).filter(|part| !own.contains(part)) {
            let done = shard.wait_for(|| moments.done(part), || waiting_for_parts(*stage, &moments, parts))?;
            streams.learn(part, done.cuts);
        }
        let solved = shard.wait_for(|| kept.stage(stage.start, stage.layers), || waiting_for_layers(*stage, kept))?;
        moments.drop_moments(own.clone());
        for (layer, solved) in stage.layers.iter().zip(solved) {
            let solved = solved.into_layer(layer, true).map_err(|error| failed(job.model, layer, error))?;
            streams.settle(layer, &solved.weight)?;
        }
    }
    let mut gave = vec![[false; 2]; parts];
    keeping(|keep| {
        streams.compare(&seen, job.progress, &mut |part| {
            gave[part.part][usize::from(part.waited)] = true;
            keep(compared.keep_comparison(&part))
        })
    })?;
    own.clone().try_for_each(|part| compared.keep_done(part, &Done { turns: gave[part], ..Done::default() }))
}

/// Solves own layers, stage by stage, once all parts of a stage are there.
fn solve(
    job: Job<'_>,
    plan: &Plan,
    (shard, kept): (&Shard, &KeptLayers),
    source: &Source<'_>,
    stages: &[Stage<'_>],
) -> Result<(), Error> {
    let mut tied = TiedCodes::new(job, &plan.layers)?;
    for stage in stages {
        let rows = job.calibration.map(|_| f64::INFINITY);
        let cost = |layer: &PlannedLayer| seconds(layer, job.config, plan.layers.len(), rows);
        let costs: Vec<f64> = stage.layers.iter().map(cost).collect();
        let mut own = shard.layers(&costs);
        own.retain(|at| !kept.has(stage.start + at));
        if own.is_empty() {
            continue;
        }
        let parts = kept.parts(stage.start);
        let all = Gathered::of(source, job, stage.layers, parts);
        let waiting =
            || all.sets.first().map_or_else(String::new, |(kept, parts)| waiting_for_parts(*stage, kept, *parts));
        shard.wait_for(|| all.are_there(), waiting)?;
        tied.solve(job, &plan.layers, stage.start)?;
        // Layers that ask the same are solved one after the other.
        own.sort_by_key(|&at| all.of_layer[at]);
        let (mut stats, mut asked) = (None, None);
        for at in own {
            if asked != Some(all.of_layer[at]) {
                asked = Some(all.of_layer[at]);
                let look = || all.of_layer[at].map_or(Ok(Some(None)), |request| Ok(all.stats(request)?.map(Some)));
                stats = shard.wait_for(look, waiting)?;
            }
            let layer = &stage.layers[at];
            let stats = stats.as_ref().and_then(|stats: &StageStats| stats.of(0));
            let solved = solve_layer(job, (stage.start + at, layer), stats, &tied)?;
            kept.keep(stage.start + at, layer, &solved)?;
        }
        if kept.has_all(stage.start, stage.layers.len()) {
            all.sets.iter().for_each(|(kept, parts)| kept.drop_moments(0..*parts));
        }
    }
    Ok(())
}

fn waiting_for_parts(stage: Stage<'_>, kept: &KeptParts, parts: usize) -> String {
    let there = (0..parts).filter(|&part| matches!(kept.done(part), Ok(Some(_)))).count();
    format!("stage {} of {}: {there} of {parts} parts of the samples are calibrated", stage.number, stage.of)
}

fn waiting_for_layers(stage: Stage<'_>, kept: &KeptLayers) -> String {
    let layers = stage.layers.len();
    let there = (stage.start..stage.start + layers).filter(|&layer| kept.has(layer)).count();
    format!("stage {} of {}: {there} of {layers} layers are solved", stage.number, stage.of)
}

/// Lets `run` hand over parts, and tells why one could not be kept.
fn keeping(
    run: impl FnOnce(&mut (dyn FnMut(Result<(), Error>) -> Result<(), CalibError> + Send)) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut failure = None;
    let done = run(&mut |kept| {
        kept.map_err(|error| {
            failure = Some(error);
            CalibError::BadModel("a part could not be kept".to_owned())
        })
    });
    failure.map_or(done, Err)
}
