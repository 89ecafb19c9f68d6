//! Chooses how the ranges of tensors are found, by the error of the outputs on held-out samples.
//!
//! # Problem
//!
//! A range that was found on the calibration samples clips what other samples have beyond it, and what clipping does
//! to the outputs depends on all that follows. The error of the tensor alone does not tell: clipped values err together,
//! where rounded ones do not.
//!
//! # Method
//!
//! 1. Each of [`CANDIDATES`] serves all tensors at once. `mse` is kept unless another one removes a part of
//!    [`WORTHWHILE`] or more of the power of the outputs' error.
//! 2. The [`TENSORS`] tensors that lose most, by the expected squared error over the mean square of their values, try
//!    every other candidate alone, as far as its scale is another one. A tensor takes the best where it is worthwhile
//!    in the same sense. What no range can do better than is codes of 16 bits: tensors for which even those are not
//!    worthwhile, first all together and then each alone, are passed over.
//! 3. Tensors that make outputs without a layer in between keep all their values ([`crate::plan::exposed`]), whatever serves
//!    the others.
//! 4. Both assignments are compared on all held-out samples; the better one stays.
//!
//! # Guarantee
//!
//! Never worse than `mse` for all, on the held-out samples that were looked at.
//!
//! # Cost
//!
//! Five runs of at most [`SAMPLES_FOR_ALL`] held-out samples and two of [`SAMPLES`]; where single tensors matter, at
//! most `5 TENSORS` more of these, and two over all. Each has an engine of its own.

use onnxquant_ir::{Graph, ValueId};
use onnxquant_quant::RangeMethod;
use rayon::prelude::*;

use crate::config::Config;
use crate::error::Error;
use crate::judge::held_out::Judge;
use crate::plan::assignment::Assignment;
use crate::plan::scales::{Histograms, Origin, Rules, Scales};
use crate::progress::{Progress, silent};

/// Tried for all tensors together; of equal ones the first is kept.
const CANDIDATES: [RangeMethod; 5] = [
    RangeMethod::MeanSquaredError,
    RangeMethod::MinMax,
    RangeMethod::Stretched(1.25),
    RangeMethod::Percentile(RangeMethod::DEFAULT_PERCENTILE),
    RangeMethod::Entropy,
];
/// Tensors that try ranges of their own.
const TENSORS: usize = 3;
/// Held-out samples on which methods for all tensors are compared: clipping errors are rare and large.
const SAMPLES_FOR_ALL: usize = 32;
/// Held-out samples on which single tensors try methods of their own.
const SAMPLES: usize = 4;
/// What another range must remove of the power of the error. Less is no evidence: what a tight range clips is rare, and
/// may well be absent from a few held-out samples (in one network 11 % gained on 4 of them were 9 dB lost on 400).
const WORTHWHILE: f64 = 0.25;
/// Scales that differ by less than this part are the same.
const SAME_SCALE: f32 = 0.05;

/// Gives the tensors of the regions the scales with the least error of the outputs.
pub(super) fn choose_ranges(
    assignment: Assignment,
    histograms: &Histograms,
    judge: &Judge<'_>,
    config: &Config,
    progress: Progress<'_>,
) -> Result<Assignment, Error> {
    let graph = judge.model().graph();
    let samples = &judge.calibration.samples.split.held_out;
    let few = &samples[..samples.len().min(SAMPLES)];
    let many = &samples[..samples.len().min(SAMPLES_FOR_ALL)];
    let rules = assignment.rules(graph, config);
    let uniform = |range: &RangeMethod| {
        let scales = Scales::uniform(rules, assignment.values(), histograms, *range, Origin::BestForAll)?;
        let candidate = assignment.on_scales(graph, scales)?;
        Ok((judge.error(&candidate, many, &silent)?, candidate))
    };
    let tried = CANDIDATES.par_iter().map(uniform).collect::<Result<Vec<(f64, Assignment)>, Error>>()?;
    let Some((_, best)) = tried.into_iter().reduce(worthwhile) else { return Ok(assignment) };
    let error = judge.error(&best, few, &silent)?;
    let is_worthwhile = |with: f64| removes_much(with, error);
    let matter = |values: &[ValueId]| -> Result<bool, Error> {
        let own: Vec<(ValueId, RangeMethod)> = values.iter().map(|&value| (value, RangeMethod::MinMax)).collect();
        let wide = assignment.wide().iter().chain(values).copied().collect();
        let scales = best.scales().with(Rules { wide: &wide, ..rules }, histograms, &own)?;
        let candidate = assignment.on_scales(graph, scales)?;
        Ok(!values.is_empty() && is_worthwhile(judge.error(&candidate, few, &silent)?))
    };
    let mut tries: Vec<(ValueId, RangeMethod)> = Vec::new();
    let lossy = most_lossy(graph, &best, histograms)?;
    if matter(&lossy)? {
        for value in lossy {
            if matter(&[value])? {
                tries.extend(
                    others(&best, histograms, value, best.rules(graph, config))?
                        .into_iter()
                        .map(|range| (value, range)),
                );
            }
        }
    }
    let alone = |&(value, range): &(ValueId, RangeMethod)| {
        let scales = best.scales().with(rules, histograms, &[(value, range)])?;
        Ok((judge.error(&assignment.on_scales(graph, scales)?, few, &silent)?, value, range))
    };
    let mut found = tries.par_iter().map(alone).collect::<Result<Vec<(f64, ValueId, RangeMethod)>, Error>>()?;
    found.retain(|(with, ..)| is_worthwhile(*with));
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut own: Vec<(ValueId, RangeMethod)> = Vec::new();
    for (_, value, range) in found {
        if !own.iter().any(|(known, _)| *known == value) {
            own.push((value, range));
        }
    }
    if !own.is_empty() {
        let scales = best.scales().with(best.rules(graph, config), histograms, &own)?;
        let with = best.on_scales(graph, scales)?;
        if judge.error(&with, samples, progress)? < judge.error(&best, samples, progress)? {
            return Ok(with);
        }
    }
    Ok(best)
}

/// The second where it has clearly less error.
fn worthwhile(first: (f64, Assignment), second: (f64, Assignment)) -> (f64, Assignment) {
    if removes_much(second.0, first.0) { second } else { first }
}

/// Whether an error is clearly less than another; one that was not measured is infinite, and never less.
fn removes_much(with: f64, without: f64) -> bool {
    with < without && with <= (1.0 - WORTHWHILE) * without
}

/// The tensors with the largest expected error over their power, worst first.
fn most_lossy(graph: &Graph, assignment: &Assignment, histograms: &Histograms) -> Result<Vec<ValueId>, Error> {
    let mut ranked: Vec<(f64, ValueId)> = Vec::new();
    for &value in assignment.regions().classes.iter().filter(|value| graph.value(**value).constant().is_none()) {
        ranked.push((histograms.relative_error(graph, value, assignment.scales().of(graph, value)?.params)?, value));
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(ranked.into_iter().take(TENSORS).map(|(_, value)| value).collect())
}

/// The candidates that would give the value another scale, each such scale once.
fn others(
    assignment: &Assignment,
    histograms: &Histograms,
    value: ValueId,
    rules: Rules<'_>,
) -> Result<Vec<RangeMethod>, Error> {
    let mut known = vec![assignment.scales().of(rules.graph, value)?.params];
    let mut kept = Vec::new();
    for range in CANDIDATES {
        let params = histograms.params(rules, value, range)?;
        let same = |other: &onnxquant_quant::ActivationParams| {
            (other.scale() / params.scale() - 1.0).abs() < SAME_SCALE && other.zero_point() == params.zero_point()
        };
        if !known.iter().any(same) {
            known.push(params);
            kept.push(range);
        }
    }
    Ok(kept)
}
