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
//! 3. Tensors that make outputs without a layer in between keep all their values ([`super::exposed`]), whatever serves
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

use onnxquant_ir::ValueId;
use onnxquant_quant::RangeMethod;
use rayon::prelude::*;

use super::IntegerPlan;
use super::scales::{Histograms, Origin, Scales};
use crate::config::Config;
use crate::error::Error;
use crate::judge::Judge;
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

/// Gives the tensors of `integers` the scales with the least error of the outputs.
pub(super) fn choose_ranges(
    integers: &mut IntegerPlan,
    histograms: &Histograms,
    judge: &Judge<'_>,
    config: &Config,
    progress: Progress<'_>,
) -> Result<(), Error> {
    let graph = judge.model().graph();
    let samples = &judge.calibration.split.held_out;
    let few = &samples[..samples.len().min(SAMPLES)];
    let many = &samples[..samples.len().min(SAMPLES_FOR_ALL)];
    let of = |scales: Scales| -> Result<IntegerPlan, Error> {
        let mut plan = integers.clone();
        plan.set_scales(graph, scales)?;
        Ok(plan)
    };
    let uniform = |range: &RangeMethod| {
        let plan = of(Scales::uniform(graph, integers, histograms, *range, Origin::BestForAll, config)?)?;
        Ok((judge.error(&plan, many, &silent)?, plan))
    };
    let tried = CANDIDATES.par_iter().map(uniform).collect::<Result<Vec<(f64, IntegerPlan)>, Error>>()?;
    let Some((_, best)) = tried.into_iter().reduce(worthwhile) else { return Ok(()) };
    let error = judge.error(&best, few, &silent)?;
    let is_worthwhile = |with: f64| removes_much(with, error);
    let matter = |values: &[ValueId]| -> Result<bool, Error> {
        let own: Vec<(ValueId, RangeMethod)> = values.iter().map(|&value| (value, RangeMethod::MinMax)).collect();
        let plan = of(best.scales().with(graph, &integers.with_wide(values), histograms, &own, config)?)?;
        Ok(!values.is_empty() && is_worthwhile(judge.error(&plan, few, &silent)?))
    };
    let mut tries: Vec<(ValueId, RangeMethod)> = Vec::new();
    let lossy = most_lossy(&best, histograms, judge)?;
    if matter(&lossy)? {
        for value in lossy {
            if matter(&[value])? {
                tries.extend(others(&best, histograms, judge, value, config)?.into_iter().map(|range| (value, range)));
            }
        }
    }
    let alone = |&(value, range): &(ValueId, RangeMethod)| {
        let plan = of(best.scales().with(graph, integers, histograms, &[(value, range)], config)?)?;
        Ok((judge.error(&plan, few, &silent)?, value, range))
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
    *integers = best;
    if !own.is_empty() {
        let with = of_scales(integers, integers.scales().with(graph, integers, histograms, &own, config)?, judge)?;
        if judge.error(&with, samples, progress)? < judge.error(integers, samples, progress)? {
            *integers = with;
        }
    }
    Ok(())
}

fn of_scales(integers: &IntegerPlan, scales: Scales, judge: &Judge<'_>) -> Result<IntegerPlan, Error> {
    let mut plan = integers.clone();
    plan.set_scales(judge.model().graph(), scales)?;
    Ok(plan)
}

/// The second where it has clearly less error.
fn worthwhile(first: (f64, IntegerPlan), second: (f64, IntegerPlan)) -> (f64, IntegerPlan) {
    if removes_much(second.0, first.0) { second } else { first }
}

/// Whether an error is clearly less than another; one that was not measured is infinite, and never less.
fn removes_much(with: f64, without: f64) -> bool {
    with < without && with <= (1.0 - WORTHWHILE) * without
}

/// The tensors with the largest expected error over their power, worst first.
fn most_lossy(plan: &IntegerPlan, histograms: &Histograms, judge: &Judge<'_>) -> Result<Vec<ValueId>, Error> {
    let graph = judge.model().graph();
    let mut ranked: Vec<(f64, ValueId)> = Vec::new();
    for &value in plan.regions.classes.iter().filter(|value| graph.value(**value).constant().is_none()) {
        ranked.push((histograms.relative_error(graph, value, plan.scales().of(graph, value)?.params)?, value));
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(ranked.into_iter().take(TENSORS).map(|(_, value)| value).collect())
}

/// The candidates that would give the value another scale, each such scale once.
fn others(
    plan: &IntegerPlan,
    histograms: &Histograms,
    judge: &Judge<'_>,
    value: ValueId,
    config: &Config,
) -> Result<Vec<RangeMethod>, Error> {
    let graph = judge.model().graph();
    let mut known = vec![plan.scales().of(graph, value)?.params];
    let mut kept = Vec::new();
    for range in CANDIDATES {
        let params = histograms.params(graph, plan, value, range, config)?;
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
