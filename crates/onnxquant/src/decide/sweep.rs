//! What every layer does at every width: quick codes of all, and measurements of the outputs with them.

use ndarray::Array3;
use onnxquant_calib::{Measurement, NotMeasured};
use onnxquant_passes::write_codes::PackedWeight;
use rayon::prelude::*;

use crate::accuracy::{Accuracy, accuracy, power};
use crate::config::Budget;
use crate::decide::bits::{Harms, WIDTHS, Widths, bits_of};
use crate::decide::curve::Curve;
use crate::decide::measure::Measure;
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

/// Place of the width at which sensitivity is measured: where errors are well above noise and still small.
const PROBE: usize = 1;
/// Held-out samples on which sensitivity is measured.
const PROBE_SAMPLES: usize = 4;
/// Weights loaded into engines, all probes together, up to which sensitivity is measured: a few minutes.
const LARGEST_PROBE: usize = 20_000_000_000;
/// Bytes of the metadata of a layer, its name apart, and of the settings, about.
const METADATA_BYTES: usize = 130;
const SETTINGS_BYTES: usize = 800;

/// Quick codes of every layer at every width, and what they do.
pub(super) struct Sweep<'a> {
    job: Job<'a>,
    plan: &'a Plan,
    /// The codes of tables, which are the same in all plans.
    tables: &'a [QuantizedTable],
    tied: Tied,
    judge: Option<Judge<'a>>,
    /// `[width][layer]`.
    codes: Vec<Vec<(PlannedLayer, PackedWeight)>>,
    harms: Harms,
    /// The sensitivity of the layers was measured.
    is_measured: bool,
}

impl<'a> Sweep<'a> {
    /// Solves every layer of `plan` at every width and measures what that does.
    pub(super) fn new(job: Job<'a>, plan: &'a Plan, tables: &'a [QuantizedTable]) -> Result<Self, Error> {
        let tied = Tied::find(job, &plan.layers)?;
        let layers = plan.layers.len();
        // A weight that several layers read counts for the first.
        let stored = |layer: usize| if tied.is_first(layer) { plan.layers[layer].site.parameters() as u64 } else { 0 };
        let harms = Harms {
            units: tied.units(layers),
            parameters: (0..layers).map(stored).collect(),
            errors: Vec::new(),
            sensitivity: vec![1.0; layers],
            bytes: vec![[0; WIDTHS.len()]; layers],
            rest_bytes: u64::MAX,
        };
        let codes = WIDTHS.map(|_| Vec::new()).into();
        let mut sweep = Self { job, plan, tables, tied, judge: None, codes, harms, is_measured: false };
        sweep.sketch()?;
        sweep.weigh()?;
        if let Some(calibration) = job.calibration.filter(|_| !plan.layers.is_empty()) {
            // Of the weights alone: what activations lose is the same in all plans.
            sweep.judge = Some(Judge::new(job.model, calibration, Arithmetic::File)?);
            sweep.measure_sensitivity()?;
        }
        Ok(sweep)
    }

    /// The bits of every layer for a budget; an error where there are none.
    ///
    /// An SQNR needs [`Sweep::reach`].
    pub(super) fn within(&self, budget: Budget) -> Result<Vec<u32>, Error> {
        let weigh = |widths: &Widths| Ok(self.written_bytes(widths)?.0);
        let found = self.harms.within(budget, self.measure(), &weigh)?;
        found.map(|widths| bits_of(&widths)).ok_or_else(|| {
            let least = self.harms.least_bytes();
            Error::Usage(format!("the budget is too small: at {} bits a weight the file has {least} bytes", WIDTHS[0]))
        })
    }

    /// Solves the model with bits for an SQNR: the smallest of those tried that reach it, else the most exact.
    ///
    /// `solve` returns a model with these bits and its SQNR in dB.
    pub(super) fn reach<T>(
        &self,
        wanted_db: f64,
        mut solve: impl FnMut(&[u32]) -> Result<(T, f64), Error>,
    ) -> Result<T, Error> {
        self.harms.reach(wanted_db, self.measure(), |widths| solve(&bits_of(widths)))
    }

    /// What bits buy, where the outputs were measured.
    pub(super) fn curve(&self) -> Option<Curve> {
        let labels = self.plan.layers.iter().map(|layer| layer.label.clone());
        self.is_measured.then(|| self.harms.curve(labels, PROBE))
    }

    /// Who says how exact the outputs are with the quick codes, where there are data.
    fn measure(&self) -> Option<&dyn Measure<Widths>> {
        self.judge.as_ref().map(|_| self as &dyn Measure<Widths>)
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
                self.harms.errors.push(errors);
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
                self.harms.bytes[layer][width] = bytes;
            }
            self.harms.rest_bytes = self.harms.rest_bytes.min(total.saturating_sub(layers.iter().sum()));
        }
        Ok(())
    }

    /// Bytes of the file, and those of every layer's codes, scales and zero points.
    fn written_bytes(&self, widths: &Widths) -> Result<(u64, Vec<u64>), Error> {
        let mut plan = self.plan.clone();
        plan.set_bits(self.job.config, &bits_of(widths))?;
        let layers = self.quick_codes(widths);
        let codes = self.all_codes(&layers);
        let found = written(self.job.model, &plan, codes, self.job.assignment)?;
        let metadata = plan.layers.iter().map(|layer| METADATA_BYTES + layer.label.len()).sum::<usize>();
        let total = encoded_bytes(&found.model)? + (metadata + SETTINGS_BYTES) as u64;
        Ok((total, found.layers.iter().map(|&(_, bytes)| bytes as u64).collect()))
    }

    fn quick_codes(&self, widths: &Widths) -> Vec<(PlannedLayer, PackedWeight)> {
        widths.iter().enumerate().map(|(layer, &width)| self.codes[width][layer].clone()).collect()
    }

    /// Those of layers, and what is the same in all plans.
    fn all_codes<'c>(&'c self, layers: &'c [(PlannedLayer, PackedWeight)]) -> Codes<'c> {
        let Plan { tables, bodies, .. } = self.plan;
        let (planned_tables, planned_bodies) = (&tables[..], &bodies[..]);
        Codes { layers, tables: self.tables, planned_tables, bodies: self.job.bodies, planned_bodies }
    }

    fn measure_sensitivity(&mut self) -> Result<(), Error> {
        let Some(judge) = &self.judge else { return Ok(()) };
        let parameters: usize = self.plan.layers.iter().map(|layer| layer.site.parameters()).sum();
        if parameters.saturating_mul(self.plan.layers.len()) > LARGEST_PROBE {
            return Ok(());
        }
        let samples = &judge.calibration.samples.split.validation;
        let samples = &samples[..samples.len().min(PROBE_SAMPLES)];
        let measure = |layer: usize| {
            let codes = Codes { layers: &self.codes[PROBE][layer..=layer], ..Codes::default() };
            let outputs = judge.outputs(codes, &Assignment::default(), Arithmetic::File, samples, &silent)?;
            Ok(power(&accuracy(&outputs)) / self.harms.errors[layer][PROBE].max(f64::MIN_POSITIVE))
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
            self.harms.sensitivity = found;
            self.is_measured = true;
        }
        Ok(())
    }
}

impl Measure<Widths> for Sweep<'_> {
    /// On all validation samples, with the quick codes.
    fn accuracy(&self, widths: &Widths) -> Result<Measurement<Accuracy>, Error> {
        let Some(judge) = &self.judge else { return Ok(Measurement::NotMeasured(NotMeasured::NoSamples)) };
        let layers = self.quick_codes(widths);
        let codes = self.all_codes(&layers);
        judge.accuracy(codes, &Assignment::default(), &judge.calibration.samples.split.validation, &silent)
    }
}
