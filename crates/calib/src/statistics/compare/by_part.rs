//! Compares two networks that advance side by side, part by part of the samples.

use serde::{Deserialize, Serialize};

use super::super::slices::Slicing;
use super::super::tokens::{Tokens, may_hold_tokens};
use super::{Comparing, OutputComparison, comparing, take_in};
use crate::data::CalibSet;
use crate::error::CalibError;
use crate::run::{Progress, SampleRun};
use crate::stream::{Network, advance, catch_up};

/// What comparing gathered of some samples, by output; it can be added to that of others.
#[derive(Debug, Serialize, Deserialize)]
pub struct ComparisonSums(Vec<Comparing>);

impl ComparisonSums {
    /// Of no samples.
    pub fn new(names: &[String], slicings: &[Slicing]) -> Self {
        Self(comparing(names, slicings))
    }

    /// Adds what was gathered of the part that follows.
    pub fn add(&mut self, part: Self) {
        self.0.iter_mut().zip(part.0).for_each(|(all, one)| all.add(one));
    }

    /// How the outputs differ, over all samples that were added.
    pub fn finish(self) -> Vec<OutputComparison> {
        self.0.into_iter().map(Comparing::finish).collect()
    }
}

/// What comparing gathered of one part of the samples.
#[derive(Debug)]
pub struct PartComparison {
    /// Which part.
    pub part: usize,
    /// Of the samples that waited; they are added behind all that did not.
    pub waited: bool,
    /// By set.
    pub sums: Vec<ComparisonSums>,
}

/// Takes each network to its values `names` and compares these, pair by pair, on the samples of each of `sets`, which
/// share none; `slicings` says by pair which parts are judged apart.
///
/// The streams must run all parts of the samples here.
pub fn compare_streams(
    a: Network<'_>,
    b: Network<'_>,
    data: &CalibSet,
    (names, sets): ([&[String]; 2], &[&[usize]]),
    slicings: &[Slicing],
    progress: &dyn Fn(Progress),
) -> Result<Vec<Vec<OutputComparison>>, CalibError> {
    let mut found: Vec<_> = sets.iter().map(|_| ComparisonSums::new(names[0], slicings)).collect();
    compare_stream_parts([a, b], data, (names, sets), slicings, progress, &mut |part| {
        found.iter_mut().zip(part.sums).for_each(|(all, one)| all.add(one));
        Ok(())
    })?;
    Ok(found.into_iter().map(ComparisonSums::finish).collect())
}

/// The same, but hands over what was gathered of the parts that these streams run, each by itself.
///
/// They are to be added in the order of the parts, those of samples that waited last.
pub fn compare_stream_parts(
    mut networks: [Network<'_>; 2],
    data: &CalibSet,
    (names, sets): ([&[String]; 2], &[&[usize]]),
    slicings: &[Slicing],
    progress: &dyn Fn(Progress),
    take: &mut (dyn FnMut(PartComparison) -> Result<(), CalibError> + Send),
) -> Result<(), CalibError> {
    let has_tokens = may_hold_tokens(data.inputs());
    let parts = networks[0].stream.parts().to_vec();
    let part_of = |sample: usize| {
        parts.iter().position(|part| part.samples.contains(&sample) || part.waiting.contains(&sample)).unwrap_or(0)
    };
    let mut current: Option<PartComparison> = None;
    let mut visit = |waited: bool, runs: &[SampleRun]| {
        for run in runs {
            let part = part_of(run.sample);
            if current.as_ref().is_none_or(|current| (current.part, current.waited) != (part, waited)) {
                current.take().map_or(Ok(()), &mut *take)?;
                let sums = sets.iter().map(|_| ComparisonSums::new(names[0], slicings)).collect();
                current = Some(PartComparison { part, waited, sums });
            }
            let set = sets.iter().position(|set| set.contains(&run.sample));
            if let (Some(current), Some(set), [a, b]) = (&mut current, set, run.values.as_slice()) {
                // A sample is read again only where something can be foretold.
                let foretells = has_tokens && a.iter().any(|tensor| tensor.shape().len() == 3);
                let tokens = if foretells { Tokens::of(&data.load(run.sample)?) } else { None };
                take_in(&mut current.sums[set].0, a, b, tokens.as_ref());
            }
        }
        Ok(())
    };
    advance(&mut networks, &names, data, progress, &mut |runs| visit(false, runs))?;
    let all: Vec<usize> = (0..parts.len()).collect();
    catch_up(&mut networks, &names, &all, data, progress, &mut |runs| visit(true, runs))?;
    current.map_or(Ok(()), take)
}
