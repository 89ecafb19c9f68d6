//! Chooses the bits of every layer.
//!
//! # Problem
//!
//! Layers differ in what rounding their weights does to the outputs, by orders of magnitude, and in how many weights they
//! have. At one width for all, some layers have bits to spare and others spoil the outputs.
//!
//! # Method
//!
//! 1. **Sweep.** The float network is run once. Every layer gets quick codes at every width ([`WIDTHS`]) from its own
//!    inputs ([`crate::decide::sketch`]); its error is the relative one of its outputs on held-out samples, squared.
//! 2. **Sensitivity.** Of every layer the engine measures what it does to the outputs when it alone has the quick codes
//!    of the width [`PROBE`], on a few held-out samples. The harm of a layer at a width is its error there, times harm over
//!    error at the probe: layers add up in power, nearly. Where that would take too many engines ([`LARGEST_PROBE`]), all
//!    layers count alike.
//! 3. **Allocation** ([`onnxquant_quant::least_error`], [`onnxquant_quant::cheapest`]) on the lower hulls of harm
//!    over bits or bytes.
//! 4. **Refinement.** Plans by harm, by error alone, by both in equal parts, and the widest one width for all that the
//!    budget allows, are written with the quick codes and compared on the held-out outputs; the best is kept. For a
//!    number of bytes the plan is written in memory and the budget corrected by what the file has too many. For an SQNR the
//!    budget is bisected with the quick codes, then the model solved in earnest, and the aim moved by what that was off.
//!
//! # Guarantee
//!
//! The average of bits is kept. Held-out outputs are no worse, with the quick codes, than with one width for all. The
//! SQNR is checked on the final model; where no plan reaches it, the run says so.
//!
//! # Cost
//!
//! Quick codes of every layer at four widths; an engine for every layer and for every plan compared; at most
//! [`MOST_SOLUTIONS`] solutions of the whole model for an SQNR. Memory: the quick codes, about two bytes a weight.

use ndarray::Array3;
use onnxquant_passes::write_codes::PackedWeight;
use onnxquant_quant::{Choice, cheapest, least_error};
use rayon::prelude::*;

use crate::accuracy::{accuracy, power};
use crate::config::Budget;
use crate::decide::sketch::{Sketch, sketch_codes, sketch_layer};
use crate::error::Error;
use crate::fingerprint::encoded_bytes;
use crate::judge::held_out::Judge;
use crate::observe::calibration::LayerStats;
use crate::plan::assignment::Assignment;
use crate::plan::layers::{Plan, PlannedLayer};
use crate::progress::{Phase, silent};
use crate::solve::job::Job;
use crate::solve::source::Source;
use crate::solve::tied::Tied;
use crate::write::codes::{Codes, QuantizedTable};
use crate::write::evaluated::Arithmetic;
use crate::write::written::written;

/// The widths between which layers choose.
const WIDTHS: [u32; 4] = Budget::WIDTHS;
/// Place of the width at which sensitivity is measured: where errors are well above noise and still small.
const PROBE: usize = 1;
/// Held-out samples on which sensitivity is measured.
const PROBE_SAMPLES: usize = 4;
/// Weights loaded into engines, all probes together, up to which sensitivity is measured: a few minutes.
const LARGEST_PROBE: usize = 20_000_000_000;
/// Halvings of the range in which the harm is sought that leaves an SQNR.
const HALVINGS: usize = 8;
/// Solutions of the whole model for an SQNR.
const MOST_SOLUTIONS: usize = 4;
/// An SQNR is close enough above the one that was asked for, in dB.
const CLOSE_DB: f64 = 0.5;
/// Corrections of the budget for a number of bytes.
const MOST_CORRECTIONS: usize = 8;
/// Bytes of the metadata of a layer, its name apart, and of the settings, about.
const METADATA_BYTES: usize = 130;
const SETTINGS_BYTES: usize = 800;

/// The codes of tables, which are the same in all plans.
type Tables<'a> = &'a [QuantizedTable];

/// What every layer does at every width.
pub(crate) struct Sweep<'a> {
    job: Job<'a>,
    plan: &'a Plan,
    tables: Tables<'a>,
    tied: Tied,
    /// Layers that have one width, for they read one weight; the others alone.
    units: Vec<Vec<usize>>,
    judge: Option<Judge<'a>>,
    /// `[layer][width]`: relative squared error of the layer's output.
    errors: Vec<[f64; WIDTHS.len()]>,
    /// By layer: harm to the outputs for such an error.
    sensitivity: Vec<f64>,
    /// `[width][layer]`.
    codes: Vec<Vec<(PlannedLayer, PackedWeight)>>,
    /// `[layer][width]`: bytes of codes, scales and zero points.
    bytes: Vec<[u64; WIDTHS.len()]>,
    /// Bytes of the file beside these, at least.
    rest_bytes: u64,
}

/// A width for every layer, as its place in [`WIDTHS`].
type Widths = Vec<usize>;

impl<'a> Sweep<'a> {
    /// Solves every layer of `plan` at every width and measures what that does.
    pub(crate) fn new(job: Job<'a>, plan: &'a Plan, tables: Tables<'a>) -> Result<Self, Error> {
        let tied = Tied::find(job, &plan.layers)?;
        let mut sweep = Self {
            job,
            plan,
            tables,
            units: tied.units(plan.layers.len()),
            tied,
            judge: None,
            errors: Vec::new(),
            sensitivity: vec![1.0; plan.layers.len()],
            codes: WIDTHS.map(|_| Vec::new()).into(),
            bytes: vec![[0; WIDTHS.len()]; plan.layers.len()],
            rest_bytes: u64::MAX,
        };
        sweep.sketch()?;
        sweep.weigh()?;
        if let Some(calibration) = job.calibration.filter(|_| !plan.layers.is_empty()) {
            // Of the weights alone: what activations lose is the same in all plans.
            sweep.judge = Some(Judge::new(job.model, calibration, Arithmetic::File)?);
            sweep.measure_sensitivity()?;
        }
        Ok(sweep)
    }

    fn sketch(&mut self) -> Result<(), Error> {
        let Job { model, config, calibration, progress, .. } = self.job;
        let mut source = calibration.map_or(Source::Nowhere, |calibration| Source::float(calibration, true));
        let layers = &self.plan.layers;
        let codes = |layer: &PlannedLayer, exact: &Array3<f32>, stats: Option<LayerStats<'_>>| {
            sketch_codes(self.job, layer, &WIDTHS, exact, stats.as_ref())
        };
        let shared = self.tied.solve(self.job, layers, 0, true, codes)?;
        for stage in source.stages(model, layers, config) {
            let stats = source.statistics(model, &layers[stage.clone()], &[], progress)?;
            for (at, layer) in layers[stage.clone()].iter().enumerate() {
                let stats = stats.as_ref().and_then(|stats| stats.of(at));
                let shared = self.tied.with(stage.start + at).and_then(|group| shared.get(&group[0]));
                let sketches = sketch_layer(self.job, layer, &WIDTHS, stats.as_ref(), shared)?;
                let mut errors = [0.0; WIDTHS.len()];
                for (width, Sketch { planned, weight, error }) in sketches.into_iter().enumerate() {
                    errors[width] = error;
                    self.codes[width].push((planned, weight));
                }
                self.errors.push(errors);
                progress(Phase::Quantize, stage.start + at + 1, layers.len());
            }
        }
        Ok(())
    }

    /// Writes the model at every width in memory.
    fn weigh(&mut self) -> Result<(), Error> {
        for width in 0..WIDTHS.len() {
            let widths = vec![width; self.plan.layers.len()];
            let (total, layers) = self.written_bytes(&widths)?;
            for (layer, &bytes) in layers.iter().enumerate() {
                self.bytes[layer][width] = bytes;
            }
            self.rest_bytes = self.rest_bytes.min(total.saturating_sub(layers.iter().sum()));
        }
        Ok(())
    }

    /// Bytes of the file, and those of every layer's codes, scales and zero points.
    fn written_bytes(&self, widths: &Widths) -> Result<(u64, Vec<u64>), Error> {
        let mut plan = self.plan.clone();
        plan.set_bits(self.job.config, &self.bits(widths))?;
        let layers = self.quick_codes(widths);
        let codes = Codes { layers: &layers, tables: self.tables, planned_tables: &plan.tables };
        let found = written(self.job.model, &plan, codes, self.job.assignment)?;
        let metadata = plan.layers.iter().map(|layer| METADATA_BYTES + layer.label.len()).sum::<usize>();
        let total = encoded_bytes(&found.model)? + (metadata + SETTINGS_BYTES) as u64;
        Ok((total, found.layers.iter().map(|&(_, bytes)| bytes as u64).collect()))
    }

    fn quick_codes(&self, widths: &Widths) -> Vec<(PlannedLayer, PackedWeight)> {
        widths.iter().enumerate().map(|(layer, &width)| self.codes[width][layer].clone()).collect()
    }

    fn measure_sensitivity(&mut self) -> Result<(), Error> {
        let Some(judge) = &self.judge else { return Ok(()) };
        let parameters: usize = self.plan.layers.iter().map(|layer| layer.site.parameters()).sum();
        if parameters.saturating_mul(self.plan.layers.len()) > LARGEST_PROBE {
            return Ok(());
        }
        let samples = &judge.calibration.samples.split.held_out;
        let samples = &samples[..samples.len().min(PROBE_SAMPLES)];
        let measure = |layer: usize| {
            let codes = Codes { layers: &self.codes[PROBE][layer..=layer], ..Codes::default() };
            let outputs = judge.outputs(codes, &Assignment::default(), Arithmetic::File, samples, &silent)?;
            Ok(power(&accuracy(&outputs)) / self.errors[layer][PROBE].max(f64::MIN_POSITIVE))
        };
        let behind = judge.calibration.reach.behind(judge.model().graph());
        let is_seen = |layer: &usize| !behind.contains_key(&self.plan.layers[*layer].site.input);
        let seen: Vec<usize> = (0..self.plan.layers.len()).filter(is_seen).collect();
        let of_seen = seen.par_iter().map(|layer| measure(*layer)).collect::<Result<Vec<f64>, Error>>()?;
        // What layers do that the engine does not reach is not known: as much as the others, on the average.
        let mean = of_seen.iter().sum::<f64>() / of_seen.len().max(1) as f64;
        let mut found = vec![mean; self.plan.layers.len()];
        seen.into_iter().zip(of_seen).for_each(|(layer, harm)| found[layer] = harm);
        if found.iter().all(|harm| harm.is_finite()) && found.iter().any(|harm| *harm > 0.0) {
            self.sensitivity = found;
        }
        Ok(())
    }

    /// The bits of every layer for a budget; an error where there are none.
    ///
    /// An SQNR needs [`Sweep::reach`].
    pub(crate) fn within(&self, budget: Budget) -> Result<Vec<u32>, Error> {
        let widths = match budget {
            Budget::AverageBits(bits) => self.at_average(bits),
            Budget::TargetBytes(bytes) => self.at_size(bytes),
            Budget::MinSqnrDb(sqnr_db) => self.at_sqnr(sqnr_db).map(Some),
        };
        widths?.map(|widths| self.bits(&widths)).ok_or_else(|| {
            let least = self.least_bytes();
            Error::Usage(format!("the budget is too small: at {} bits a weight the file has {least} bytes", WIDTHS[0]))
        })
    }

    fn at_average(&self, bits: f64) -> Result<Option<Widths>, Error> {
        let parameters: u64 = (0..self.plan.layers.len()).map(|layer| self.stored_parameters(layer)).sum();
        // Rounding must not take the last weight.
        let budget = (bits * parameters as f64 * (1.0 + 1e-12)).floor() as u64;
        self.best(budget, &|layer, width| self.stored_parameters(layer) * u64::from(WIDTHS[width]))
    }

    /// Weights of a layer; those that several layers read count for the first.
    fn stored_parameters(&self, layer: usize) -> u64 {
        if self.tied.is_first(layer) { self.plan.layers[layer].site.parameters() as u64 } else { 0 }
    }

    fn at_size(&self, bytes: u64) -> Result<Option<Widths>, Error> {
        let mut budget = bytes.checked_sub(self.rest_bytes);
        for _ in 0..MOST_CORRECTIONS {
            let Some(now) = budget else { return Ok(None) };
            let Some(widths) = self.best(now, &|layer, width| self.bytes[layer][width])? else { return Ok(None) };
            let excess = self.written_bytes(&widths)?.0.saturating_sub(bytes);
            if excess == 0 {
                return Ok(Some(widths));
            }
            // What is spent may be less than the budget.
            let spent = widths.iter().enumerate().map(|(layer, &width)| self.bytes[layer][width]).sum::<u64>();
            budget = now.min(spent).checked_sub(excess);
        }
        Ok(None)
    }

    fn least_bytes(&self) -> u64 {
        self.rest_bytes + self.bytes.iter().map(|bytes| bytes[0]).sum::<u64>()
    }

    /// The plan within a budget that leaves the outputs most exact.
    fn best(&self, budget: u64, cost: &dyn Fn(usize, usize) -> u64) -> Result<Option<Widths>, Error> {
        // Shares of the sensitivity: all, none, half.
        let by_harm = [1.0, 0.0, 0.5]
            .map(|share| least_error(&self.choices(share, cost), budget).map(|of_units| self.of_layers(&of_units)));
        let total = |width: usize| (0..self.plan.layers.len()).map(|layer| cost(layer, width)).sum::<u64>();
        let uniform = (0..WIDTHS.len()).rev().find(|&width| total(width) <= budget);
        let uniform = uniform.map(|width| vec![width; self.plan.layers.len()]);
        let mut plans: Vec<Widths> = Vec::new();
        for plan in by_harm.into_iter().chain([uniform]).flatten() {
            if !plans.contains(&plan) {
                plans.push(plan);
            }
        }
        if plans.len() < 2 || self.judge.is_none() {
            return Ok(plans.into_iter().next());
        }
        let measured = plans.iter().map(|plan| self.quick_sqnr_db(plan)).collect::<Result<Vec<f64>, Error>>()?;
        // The first of equals.
        let best = measured.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(best, _)| best);
        Ok(Some(plans.swap_remove(best)))
    }

    /// Harm and cost of every unit at every width; sensitivity counts with an exponent.
    fn choices(&self, exponent: f64, cost: &dyn Fn(usize, usize) -> u64) -> Vec<Vec<Choice>> {
        let harm = |layer: usize, width: usize| self.errors[layer][width] * self.sensitivity[layer].powf(exponent);
        let choice = |unit: &[usize], width: usize| Choice {
            error: unit.iter().map(|&layer| harm(layer, width)).sum(),
            cost: unit.iter().map(|&layer| cost(layer, width)).sum(),
        };
        self.units.iter().map(|unit| (0..WIDTHS.len()).map(|width| choice(unit, width)).collect()).collect()
    }

    /// The widths of all layers from those of the units.
    fn of_layers(&self, of_units: &[usize]) -> Widths {
        let mut widths = vec![0; self.plan.layers.len()];
        for (unit, &width) in self.units.iter().zip(of_units) {
            unit.iter().for_each(|&layer| widths[layer] = width);
        }
        widths
    }

    /// The SQNR of the held-out outputs with the quick codes, in dB.
    fn quick_sqnr_db(&self, widths: &Widths) -> Result<f64, Error> {
        let Some(judge) = &self.judge else { return Ok(0.0) };
        let layers = self.quick_codes(widths);
        let codes = Codes { layers: &layers, tables: self.tables, planned_tables: &self.plan.tables };
        let found = judge.accuracy(codes, &Assignment::default(), &silent)?;
        Ok(found.measured().map_or(f64::NEG_INFINITY, |found| found.sqnr_db))
    }

    /// The smallest plan whose outputs have this SQNR with the quick codes; the most exact one where none has.
    fn at_sqnr(&self, sqnr_db: f64) -> Result<Widths, Error> {
        let choices = self.choices(1.0, &|layer, width| self.bytes[layer][width]);
        let total = |width: usize| choices.iter().map(|choices| choices[width].error).sum::<f64>();
        let (mut low, mut high) = (total(WIDTHS.len() - 1).max(f64::MIN_POSITIVE), total(0));
        let narrowest = vec![0; self.plan.layers.len()];
        if self.quick_sqnr_db(&narrowest)? >= sqnr_db {
            return Ok(narrowest);
        }
        let mut best = vec![WIDTHS.len() - 1; self.plan.layers.len()];
        for _ in 0..HALVINGS {
            let limit = (low * high).sqrt();
            let Some(widths) = cheapest(&choices, limit).map(|of_units| self.of_layers(&of_units)) else { break };
            if self.quick_sqnr_db(&widths)? >= sqnr_db {
                (best, low) = (widths, limit);
            } else {
                high = limit;
            }
        }
        Ok(best)
    }

    /// Solves the model with bits for an SQNR: the smallest of those tried that reach it, else the most exact.
    ///
    /// `solve` returns a model with these bits and its SQNR in dB.
    pub(crate) fn reach<T>(
        &self,
        wanted_db: f64,
        mut solve: impl FnMut(&[u32]) -> Result<(T, f64), Error>,
    ) -> Result<T, Error> {
        let mut aim = wanted_db;
        let mut tried: Vec<Widths> = Vec::new();
        let mut best: Option<(T, f64, u64)> = None;
        for _ in 0..MOST_SOLUTIONS {
            let widths = self.at_sqnr(aim)?;
            if tried.contains(&widths) {
                break;
            }
            let bytes = widths.iter().enumerate().map(|(layer, &width)| self.bytes[layer][width]).sum();
            let (result, reached) = solve(&self.bits(&widths))?;
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

    fn bits(&self, widths: &Widths) -> Vec<u32> {
        widths.iter().map(|&width| WIDTHS[width]).collect()
    }
}
