//! Measures the model on held-out samples, takes layers back to float activations where that is needed, and writes it.

use onnxquant_calib::OutputComparison;
use onnxquant_ir::Model;
use onnxquant_passes::sites::LayerId;

use crate::calibration::Calibration;
use crate::config::{Activations, Config};
use crate::error::Error;
use crate::integer::{Accuracy, Goal, IntegerPlan, retreat};
use crate::judge::{Judge, accuracy};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::{HeldOut, OutputReport, Weights, unless_equal};
use crate::write::{Arithmetic, Codes, Written, written};

/// A model that was written in memory and measured.
pub(crate) struct Fitted {
    pub(crate) written: Model,
    /// Every layer with the bytes of its codes, scales and zero points in the file.
    pub(crate) layers: Vec<(LayerId, usize)>,
    /// The same bytes of every table.
    pub(crate) table_bytes: Vec<usize>,
    pub(crate) held_out: Option<HeldOut>,
}

/// Everything that is needed to write and measure the model.
pub(crate) struct Fitting<'a> {
    pub(crate) model: &'a Model,
    pub(crate) plan: &'a Plan,
    pub(crate) codes: Codes<'a>,
    /// The outputs of held-out samples, where they are known.
    pub(crate) of_streams: Option<Vec<OutputComparison>>,
    pub(crate) config: &'a Config,
    pub(crate) calibration: Option<&'a Calibration>,
    pub(crate) progress: Progress<'a>,
}

impl Fitting<'_> {
    /// Writes the model with as many integer layers as the accuracy that is asked for allows.
    pub(crate) fn fit(&self, integers: &mut IntegerPlan) -> Result<Fitted, Error> {
        let has_codes = !self.codes.layers.is_empty() || !self.codes.tables.is_empty();
        let calibration = self.calibration.filter(|_| has_codes);
        let held_out = calibration.map(|calibration| self.judge(calibration, integers)).transpose()?;
        let Written { model: written, layers, table_bytes } = written(self.model, self.plan, self.codes, integers)?;
        Ok(Fitted { written, layers, table_bytes, held_out })
    }

    /// Takes layers back to float activations where accuracy asks for that; the outputs then.
    fn judge(&self, calibration: &Calibration, integers: &mut IntegerPlan) -> Result<HeldOut, Error> {
        if let Some(of_streams) = self.of_streams.as_ref().filter(|outputs| is_enough(self.config, outputs)) {
            // Whole networks would take memory and time to prepare.
            integers.note_reached(self.model.graph(), &accuracy(of_streams));
            return Ok(held_out(calibration, of_streams));
        }
        let judge = Judge::new(self.model, calibration, Arithmetic::of(self.config, self.model))?;
        let measure = |plan: &IntegerPlan| judge.accuracy(self.codes, plan, self.progress);
        retreat(integers, &judge, self.config, Weights::Codes, &measure)?;
        let samples = &calibration.split.held_out;
        Ok(held_out(calibration, &judge.outputs(self.codes, integers, judge.arithmetic, samples, self.progress)?))
    }
}

/// Whether no layer has to go back to float activations.
fn is_enough(config: &Config, outputs: &[OutputComparison]) -> bool {
    let goal = Goal::of(config).filter(|_| config.activations != Activations::Float);
    goal.is_none_or(|goal| goal.excess(&accuracy(outputs)) <= 1.0)
}

fn held_out(calibration: &Calibration, outputs: &[OutputComparison]) -> HeldOut {
    let split = &calibration.split;
    let Accuracy { sqnr_db, loss } = accuracy(outputs);
    HeldOut {
        calibration_samples: split.calibration.len(),
        held_out_samples: split.held_out.len(),
        shared: split.shared,
        sqnr_db: unless_equal(sqnr_db),
        loss,
        outputs: outputs.iter().map(OutputReport::from).collect(),
    }
}
