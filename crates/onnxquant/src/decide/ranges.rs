//! Chooses how the ranges of tensors are found, by the error of the outputs on validation samples.
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
//! 3. With fewer than [`MANY`] validation samples neither may have more than [`LOSES`] times the expected squared error of
//!    `mse` over the calibration samples. These are more, and know the large values that a few validation samples lack: a
//!    range of 6 for values up to 9 won on 6 samples of a network, and lost 25 dB on others.
//! 4. Tensors that make outputs without a layer in between keep all their values ([`crate::plan::exposed`]), whatever serves
//!    the others.
//! 5. Both assignments are compared on all validation samples; the better one stays.
//!
//! # Guarantee
//!
//! Never worse than `mse` for all, on the validation samples that were looked at.
//!
//! # Cost
//!
//! Five runs of at most [`SAMPLES_FOR_ALL`] validation samples and two of [`SAMPLES`]; where single tensors matter, at
//! most `5 TENSORS` more of these, and two over all. Each has an engine of its own.

use onnxquant_ir::{Graph, ValueId};
use onnxquant_quant::RangeMethod;
use rayon::prelude::*;

use crate::config::Config;
use crate::decide::measure::{Measure, error};
use crate::error::Error;
use crate::plan::assignment::Assignment;
use crate::plan::scales::{Histograms, Origin, Rules, Scales};

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
/// may well be absent from a few validation samples (in one network 11 % gained on 4 of them were 9 dB lost on 400).
const WORTHWHILE: f64 = 0.25;
/// How many times the expected squared error of `mse` another range may have, on few validation samples.
const LOSES: f64 = 2.0;
/// Validation samples from which on they are not few.
const MANY: usize = 32;
/// Scales that differ by less than this part are the same.
const SAME_SCALE: f32 = 0.05;

/// An assignment, and how many of the first validation samples it is tried on.
pub(super) struct Trial {
    pub(super) assignment: Assignment,
    pub(super) samples: usize,
}

impl Trial {
    /// As many as there are.
    pub(super) const ALL: usize = usize::MAX;
}

/// The question which ranges tensors get, and who can tell what they do.
pub(super) struct Ranges<'a> {
    pub(super) graph: &'a Graph,
    pub(super) config: &'a Config,
    pub(super) histograms: &'a Histograms,
    /// Validation samples that there are.
    pub(super) validation: usize,
    pub(super) measure: &'a (dyn Measure<Trial> + Sync),
}

impl Ranges<'_> {
    /// The assignment `start` on the scales with the least error of the outputs.
    pub(super) fn of(&self, start: &Assignment) -> Result<Assignment, Error> {
        let best = self.for_all(start)?;
        let own = self.of_single_tensors(start, &best)?;
        if own.is_empty() {
            return Ok(best);
        }
        let scales = best.scales().with(best.rules(self.graph, self.config), self.histograms, &own)?;
        let with = best.on_scales(self.graph, scales)?;
        Ok(if self.error(&with, Trial::ALL)? < self.error(&best, Trial::ALL)? { with } else { best })
    }

    fn error(&self, assignment: &Assignment, samples: usize) -> Result<f64, Error> {
        error(self.measure, &Trial { assignment: assignment.clone(), samples })
    }

    /// The method that serves all tensors best.
    fn for_all(&self, start: &Assignment) -> Result<Assignment, Error> {
        let rules = start.rules(self.graph, self.config);
        let uniform = |range: &RangeMethod| {
            let scales = Scales::uniform(rules, start.values(), self.histograms, *range, Origin::BestForAll)?;
            let candidate = start.on_scales(self.graph, scales)?;
            Ok((self.error(&candidate, SAMPLES_FOR_ALL)?, candidate))
        };
        let mut tried = CANDIDATES.par_iter().map(uniform).collect::<Result<Vec<(f64, Assignment)>, Error>>()?;
        let expected = tried.iter().map(|(_, candidate)| self.expected_error(candidate));
        let expected = expected.collect::<Result<Vec<f64>, Error>>()?;
        for ((error, _), &of_tensors) in tried.iter_mut().zip(&expected) {
            if of_tensors > self.loses() * expected[0] {
                *error = f64::INFINITY;
            }
        }
        Ok(tried.into_iter().reduce(worthwhile).map_or_else(|| start.clone(), |(_, best)| best))
    }

    /// How many times the expected squared error of `mse` another range may have.
    fn loses(&self) -> f64 {
        if self.validation < MANY { LOSES } else { f64::INFINITY }
    }

    /// The expected squared errors of all tensors over the powers of their values.
    fn expected_error(&self, assignment: &Assignment) -> Result<f64, Error> {
        let classes = assignment.regions().classes.iter();
        let observed = classes.filter(|value| self.graph.value(**value).constant().is_none());
        let error = |&value: &ValueId| {
            let params = assignment.scales().of(self.graph, value)?.params;
            self.histograms.relative_error(self.graph, value, params)
        };
        observed.map(error).sum()
    }

    /// The tensors that do clearly better with a method of their own, each with the best one.
    fn of_single_tensors(&self, start: &Assignment, best: &Assignment) -> Result<Vec<(ValueId, RangeMethod)>, Error> {
        let error = self.error(best, SAMPLES)?;
        let rules = start.rules(self.graph, self.config);
        let alone = |(value, range): (ValueId, RangeMethod)| {
            let scales = best.scales().with(rules, self.histograms, &[(value, range)])?;
            Ok((self.error(&start.on_scales(self.graph, scales)?, SAMPLES)?, value, range))
        };
        let tries = self.worth_trying(start, best, error)?;
        let mut found =
            tries.into_par_iter().map(alone).collect::<Result<Vec<(f64, ValueId, RangeMethod)>, Error>>()?;
        found.retain(|(with, ..)| removes_much(*with, error));
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut own: Vec<(ValueId, RangeMethod)> = Vec::new();
        for (_, value, range) in found {
            if !own.iter().any(|(known, _)| *known == value) {
                own.push((value, range));
            }
        }
        Ok(own)
    }

    /// Other ranges of the tensors that lose most, where the outputs gain by more exact ones; `error` is that of `best`.
    fn worth_trying(
        &self,
        start: &Assignment,
        best: &Assignment,
        error: f64,
    ) -> Result<Vec<(ValueId, RangeMethod)>, Error> {
        let matter = |values: &[ValueId]| -> Result<bool, Error> {
            Ok(!values.is_empty() && removes_much(self.error(&self.widened(start, best, values)?, SAMPLES)?, error))
        };
        let lossy = most_lossy(self.graph, best, self.histograms)?;
        let mut tries = Vec::new();
        if !matter(&lossy)? {
            return Ok(tries);
        }
        for value in lossy {
            if matter(&[value])? {
                let rules = best.rules(self.graph, self.config);
                let others = others(best, self.histograms, value, rules, self.loses())?;
                tries.extend(others.into_iter().map(|range| (value, range)));
            }
        }
        Ok(tries)
    }

    /// The best assignment with codes of 16 bits for `values`.
    fn widened(&self, start: &Assignment, best: &Assignment, values: &[ValueId]) -> Result<Assignment, Error> {
        let own: Vec<(ValueId, RangeMethod)> = values.iter().map(|&value| (value, RangeMethod::MinMax)).collect();
        let wide = start.wide().iter().chain(values).copied().collect();
        let rules = Rules { wide: &wide, ..start.rules(self.graph, self.config) };
        start.on_scales(self.graph, best.scales().with(rules, self.histograms, &own)?)
    }
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

/// The candidates that would give the value another scale, each such scale once, and expect at most `loses` times the
/// squared error of `mse`.
fn others(
    assignment: &Assignment,
    histograms: &Histograms,
    value: ValueId,
    rules: Rules<'_>,
    loses: f64,
) -> Result<Vec<RangeMethod>, Error> {
    let mut known = vec![assignment.scales().of(rules.graph, value)?.params];
    let mut kept = Vec::new();
    let error = |params| histograms.relative_error(rules.graph, value, params);
    let most = loses * error(histograms.params(rules, value, RangeMethod::MeanSquaredError)?)?;
    for range in CANDIDATES {
        let params = histograms.params(rules, value, range)?;
        if error(params)? > most {
            continue;
        }
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

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
