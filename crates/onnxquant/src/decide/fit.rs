//! Takes layers back to float activations where accuracy asks for that, measures the model on held-out samples, and
//! writes it.

use onnxquant_calib::OutputComparison;
use onnxquant_ir::Model;
use onnxquant_passes::sites::LayerId;

use crate::accuracy::accuracy;
use crate::config::{Activations, Config};
use crate::decide::goal::Goal;
use crate::decide::retreat::{Retreat, SENSITIVITY_SAMPLES};
use crate::decide::trail::{Trail, Weights};
use crate::error::Error;
use crate::judge::held_out::{Judge, OnHeldOut};
use crate::observe::calibration::Calibration;
use crate::plan::assignment::Assignment;
use crate::plan::layers::Plan;
use crate::progress::{Progress, silent};
use crate::write::codes::Codes;
use crate::write::evaluated::Arithmetic;
use crate::write::written::{Written, written};

/// A model that was written in memory and measured.
pub(crate) struct Fitted {
    pub(crate) written: Model,
    /// Every layer with the bytes of its codes, scales and zero points in the file.
    pub(crate) layers: Vec<(LayerId, usize)>,
    /// The same bytes of every table.
    pub(crate) table_bytes: Vec<usize>,
    pub(crate) held_out: Option<OnHeldOut>,
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
    /// Writes the model with as many of the integer layers of `assignment` as the accuracy that is asked for allows;
    /// these too are returned, and the trail with what was tried.
    pub(super) fn fit(&self, assignment: Assignment, trail: Trail) -> Result<(Fitted, Assignment, Trail), Error> {
        let has_codes = !self.codes.layers.is_empty() || !self.codes.tables.is_empty();
        let (held_out, assignment, trail) = match self.calibration.filter(|_| has_codes) {
            Some(calibration) => {
                let (held_out, assignment, trail) = self.judge(calibration, assignment, trail)?;
                (Some(held_out), assignment, trail)
            }
            None => (None, assignment, trail),
        };
        let Written { model, layers, table_bytes } = written(self.model, self.plan, self.codes, &assignment)?;
        Ok((Fitted { written: model, layers, table_bytes, held_out }, assignment, trail))
    }

    /// Takes layers back to float activations where accuracy asks for that; the outputs then. How many go is decided on
    /// validation samples, and on the held-out ones only where these miss a goal all the same.
    fn judge(
        &self,
        calibration: &Calibration,
        assignment: Assignment,
        mut trail: Trail,
    ) -> Result<(OnHeldOut, Assignment, Trail), Error> {
        if let Some(of_streams) = self.of_streams.as_ref().filter(|outputs| is_enough(self.config, outputs)) {
            // Whole networks would take memory and time to prepare.
            trail.note_reached(&assignment, &accuracy(of_streams));
            return Ok((OnHeldOut::new(self.model, calibration, of_streams.clone()), assignment, trail));
        }
        let judge = Judge::new(self.model, calibration, Arithmetic::of(self.config, self.model))?;
        let split = &calibration.samples.split;
        let (mut assignment, mut trail) = self.retreat(&judge, &split.validation, assignment, trail)?;
        let outputs = |assignment: &Assignment| {
            judge.outputs(self.codes, assignment, judge.arithmetic, &split.held_out, self.progress)
        };
        let mut found = outputs(&assignment)?;
        if !is_enough(self.config, &found) {
            (assignment, trail) = self.retreat(&judge, &split.held_out, assignment, trail)?;
            found = outputs(&assignment)?;
        }
        Ok((OnHeldOut::new(self.model, calibration, found), assignment, trail))
    }

    /// Takes as many layers back as `samples` ask for; which go first validation samples say.
    fn retreat(
        &self,
        judge: &Judge<'_>,
        samples: &[usize],
        assignment: Assignment,
        trail: Trail,
    ) -> Result<(Assignment, Trail), Error> {
        let whole = |candidate: &Assignment| judge.accuracy(self.codes, candidate, samples, self.progress);
        let few = judge.first_samples(SENSITIVITY_SAMPLES);
        let alone = |candidate: &Assignment| judge.with_float_weights(candidate, few, &silent);
        let (graph, config, weights) = (self.model.graph(), self.config, Weights::Codes);
        Retreat { graph, config, weights, whole: &whole, alone: &alone }.from(assignment, trail)
    }
}

/// Whether no layer has to go back to float activations.
fn is_enough(config: &Config, outputs: &[OutputComparison]) -> bool {
    let goal = Goal::of(config).filter(|_| config.activations != Activations::Float);
    goal.is_none_or(|goal| goal.excess(&accuracy(outputs)) <= 1.0)
}
