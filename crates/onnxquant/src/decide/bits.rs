//! Chooses the bits of every layer.
//!
//! # Problem
//!
//! Layers differ in what rounding their weights does to the outputs, by orders of magnitude, and in how many weights they
//! have. At one width for all, some layers have bits to spare and others spoil the outputs.
//!
//! # Method
//!
//! The first two steps are measurements ([`crate::decide::sweep`]), the others are here.
//!
//! 1. **Sweep.** The float network is run once. Every layer gets quick codes at every width ([`WIDTHS`]) from its own
//!    inputs ([`crate::decide::sketch`]); its error is the relative one of its outputs on validation samples, squared.
//! 2. **Sensitivity.** Of every layer the engine measures what it does to the outputs when it alone has the quick codes
//!    of the second width, on a few validation samples. The harm of a layer at a width is its error there, times harm over
//!    error at the probe: layers add up in power, nearly. Where that would take too many engines, all
//!    layers count alike.
//! 3. **Allocation** ([`onnxquant_quant::least_error`], [`onnxquant_quant::cheapest`]) on the lower hulls of harm
//!    over bits or bytes.
//! 4. **Refinement.** Plans by harm, by error alone, by both in equal parts, and the widest one width for all that the
//!    budget allows, are written with the quick codes and compared on validation samples; the best is kept. For a
//!    number of bytes the plan is written in memory and the budget corrected by what the file has too many. For an SQNR the
//!    budget is bisected with the quick codes, then the model solved in earnest, and the aim moved by what that was off.
//!
//! # Guarantee
//!
//! The average of bits is kept. Outputs of validation samples are no worse, with the quick codes, than with one width for all. The
//! SQNR is checked on the final model; where no plan reaches it, the run says so.
//!
//! # Cost
//!
//! Quick codes of every layer at four widths; an engine for every layer and for every plan compared; at most
//! [`MOST_SOLUTIONS`] solutions of the whole model for an SQNR. Memory: the quick codes, about two bytes a weight.

use onnxquant_quant::{Choice, cheapest, least_error};

use crate::config::Budget;
use crate::decide::measure::Measure;
use crate::error::Error;

/// The widths between which layers choose.
pub(super) const WIDTHS: [u32; 4] = Budget::WIDTHS;
/// Halvings of the range in which the harm is sought that leaves an SQNR.
const HALVINGS: usize = 8;
/// Solutions of the whole model for an SQNR.
const MOST_SOLUTIONS: usize = 4;
/// An SQNR is close enough above the one that was asked for, in dB.
const CLOSE_DB: f64 = 0.5;
/// Corrections of the budget for a number of bytes.
const MOST_CORRECTIONS: usize = 8;

/// A width for every layer, as its place in [`WIDTHS`].
pub(super) type Widths = Vec<usize>;

/// What every layer does and takes at every width.
#[derive(Debug)]
pub(super) struct Harms {
    /// Layers that have one width, for they read one weight; the others alone.
    pub(super) units: Vec<Vec<usize>>,
    /// By layer: weights that it stores; those that several layers read are stored by the first.
    pub(super) parameters: Vec<u64>,
    /// `[layer][width]`: relative squared error of the layer's output.
    pub(super) errors: Vec<[f64; WIDTHS.len()]>,
    /// By layer: harm to the outputs for such an error.
    pub(super) sensitivity: Vec<f64>,
    /// `[layer][width]`: bytes of codes, scales and zero points.
    pub(super) bytes: Vec<[u64; WIDTHS.len()]>,
    /// Bytes of the file beside these, at least.
    pub(super) rest_bytes: u64,
}

/// The bits that these widths stand for.
pub(super) fn bits_of(widths: &Widths) -> Vec<u32> {
    widths.iter().map(|&width| WIDTHS[width]).collect()
}

impl Harms {
    /// The widths for a budget; nothing where it is too small. `measure` says how exact the outputs are with quick codes,
    /// where there are data, and `weigh` how many bytes the file has.
    pub(super) fn within(
        &self,
        budget: Budget,
        measure: Option<&dyn Measure<Widths>>,
        weigh: &dyn Fn(&Widths) -> Result<u64, Error>,
    ) -> Result<Option<Widths>, Error> {
        match budget {
            Budget::AverageBits(bits) => self.at_average(bits, measure),
            Budget::TargetBytes(bytes) => self.at_size(bytes, measure, weigh),
            Budget::MinSqnrDb(sqnr_db) => self.at_sqnr(sqnr_db, measure).map(Some),
        }
    }

    /// The smallest file there can be.
    pub(super) fn least_bytes(&self) -> u64 {
        self.rest_bytes + self.bytes.iter().map(|bytes| bytes[0]).sum::<u64>()
    }

    fn at_average(&self, bits: f64, measure: Option<&dyn Measure<Widths>>) -> Result<Option<Widths>, Error> {
        let parameters: u64 = self.parameters.iter().sum();
        // Rounding must not take the last weight.
        let budget = (bits * parameters as f64 * (1.0 + 1e-12)).floor() as u64;
        self.best(budget, &|layer, width| self.parameters[layer] * u64::from(WIDTHS[width]), measure)
    }

    fn at_size(
        &self,
        bytes: u64,
        measure: Option<&dyn Measure<Widths>>,
        weigh: &dyn Fn(&Widths) -> Result<u64, Error>,
    ) -> Result<Option<Widths>, Error> {
        let mut budget = bytes.checked_sub(self.rest_bytes);
        for _ in 0..MOST_CORRECTIONS {
            let Some(now) = budget else { return Ok(None) };
            let Some(widths) = self.best(now, &|layer, width| self.bytes[layer][width], measure)? else {
                return Ok(None);
            };
            let excess = weigh(&widths)?.saturating_sub(bytes);
            if excess == 0 {
                return Ok(Some(widths));
            }
            // What is spent may be less than the budget.
            budget = now.min(self.spent(&widths)).checked_sub(excess);
        }
        Ok(None)
    }

    /// Bytes of codes, scales and zero points of all layers.
    pub(super) fn spent(&self, widths: &Widths) -> u64 {
        widths.iter().enumerate().map(|(layer, &width)| self.bytes[layer][width]).sum()
    }

    /// The plan within a budget that leaves the outputs most exact.
    fn best(
        &self,
        budget: u64,
        cost: &dyn Fn(usize, usize) -> u64,
        measure: Option<&dyn Measure<Widths>>,
    ) -> Result<Option<Widths>, Error> {
        // Shares of the sensitivity: all, none, half.
        let by_harm = [1.0, 0.0, 0.5]
            .map(|share| least_error(&self.choices(share, cost), budget).map(|of_units| self.of_layers(&of_units)));
        let total = |width: usize| (0..self.parameters.len()).map(|layer| cost(layer, width)).sum::<u64>();
        let uniform = (0..WIDTHS.len()).rev().find(|&width| total(width) <= budget);
        let uniform = uniform.map(|width| vec![width; self.parameters.len()]);
        let mut plans: Vec<Widths> = Vec::new();
        for plan in by_harm.into_iter().chain([uniform]).flatten() {
            if !plans.contains(&plan) {
                plans.push(plan);
            }
        }
        let Some(measure) = measure.filter(|_| plans.len() > 1) else { return Ok(plans.into_iter().next()) };
        let measured = plans.iter().map(|plan| sqnr_db(measure, plan)).collect::<Result<Vec<f64>, Error>>()?;
        // The first of equals.
        let best = measured.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(best, _)| best);
        Ok(Some(plans.swap_remove(best)))
    }

    /// Harm and cost of every unit at every width; sensitivity counts with an exponent.
    pub(super) fn choices(&self, exponent: f64, cost: &dyn Fn(usize, usize) -> u64) -> Vec<Vec<Choice>> {
        let harm = |layer: usize, width: usize| self.errors[layer][width] * self.sensitivity[layer].powf(exponent);
        let choice = |unit: &[usize], width: usize| Choice {
            error: unit.iter().map(|&layer| harm(layer, width)).sum(),
            cost: unit.iter().map(|&layer| cost(layer, width)).sum(),
        };
        self.units.iter().map(|unit| (0..WIDTHS.len()).map(|width| choice(unit, width)).collect()).collect()
    }

    /// The widths of all layers from those of the units.
    pub(super) fn of_layers(&self, of_units: &[usize]) -> Widths {
        let mut widths = vec![0; self.parameters.len()];
        for (unit, &width) in self.units.iter().zip(of_units) {
            unit.iter().for_each(|&layer| widths[layer] = width);
        }
        widths
    }

    /// The smallest plan whose outputs have this SQNR with the quick codes; the most exact one where none has.
    fn at_sqnr(&self, wanted_db: f64, measure: Option<&dyn Measure<Widths>>) -> Result<Widths, Error> {
        let reaches = |widths: &Widths| -> Result<bool, Error> {
            Ok(measure.map_or(Ok(0.0), |measure| sqnr_db(measure, widths))? >= wanted_db)
        };
        let choices = self.choices(1.0, &|layer, width| self.bytes[layer][width]);
        let total = |width: usize| choices.iter().map(|choices| choices[width].error).sum::<f64>();
        let (mut low, mut high) = (total(WIDTHS.len() - 1).max(f64::MIN_POSITIVE), total(0));
        let narrowest = vec![0; self.parameters.len()];
        if reaches(&narrowest)? {
            return Ok(narrowest);
        }
        let mut best = vec![WIDTHS.len() - 1; self.parameters.len()];
        for _ in 0..HALVINGS {
            let limit = (low * high).sqrt();
            let Some(widths) = cheapest(&choices, limit).map(|of_units| self.of_layers(&of_units)) else { break };
            if reaches(&widths)? {
                (best, low) = (widths, limit);
            } else {
                high = limit;
            }
        }
        Ok(best)
    }

    /// Solves the model with widths for an SQNR: the smallest of those tried that reach it, else the most exact.
    ///
    /// `solve` returns a model with these widths and its SQNR in dB.
    pub(super) fn reach<T>(
        &self,
        wanted_db: f64,
        measure: Option<&dyn Measure<Widths>>,
        mut solve: impl FnMut(&Widths) -> Result<(T, f64), Error>,
    ) -> Result<T, Error> {
        let mut aim = wanted_db;
        let mut tried: Vec<Widths> = Vec::new();
        let mut best: Option<(T, f64, u64)> = None;
        for _ in 0..MOST_SOLUTIONS {
            let widths = self.at_sqnr(aim, measure)?;
            if tried.contains(&widths) {
                break;
            }
            let bytes = self.spent(&widths);
            let (result, reached) = solve(&widths)?;
            tried.push(widths);
            let better = match &best {
                None => true,
                Some((_, before, most)) if *before >= wanted_db => reached >= wanted_db && bytes < *most,
                Some((_, before, _)) => reached > *before,
            };
            if better {
                best = Some((result, reached, bytes));
            }
            if (wanted_db..wanted_db + CLOSE_DB).contains(&reached) || !reached.is_finite() {
                break;
            }
            aim += wanted_db + CLOSE_DB / 2.0 - reached;
        }
        best.map(|(result, ..)| result).ok_or_else(|| Error::Internal("no plan was tried".to_owned()))
    }
}

/// The SQNR of the outputs with these widths, in dB; less than any number where it was not measured.
fn sqnr_db(measure: &dyn Measure<Widths>, widths: &Widths) -> Result<f64, Error> {
    Ok(measure.accuracy(widths)?.measured().map_or(f64::NEG_INFINITY, |found| found.sqnr_db))
}

#[cfg(test)]
#[path = "bits_tests.rs"]
mod tests;
