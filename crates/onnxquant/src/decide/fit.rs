//! Takes layers back to float activations where accuracy asks for that, measures the model on held-out samples, and
//! writes it.

use onnxquant_calib::{Measurement, NotMeasured};
use onnxquant_ir::{Model, NodeId};
use onnxquant_passes::sites::LayerId;

use crate::accuracy::{Accuracy, accuracy};
use crate::config::{Activations, Config};
use crate::decide::goal::Goal;
use crate::decide::measure::Measure;
use crate::decide::retreat::{Retreat, SENSITIVITY_SAMPLES, Step};
use crate::decide::trail::{JudgedBy, Trail, Weights};
use crate::error::Error;
use crate::judge::held_out::{Compared, Judge, OnHeldOut};
use crate::judge::served::{OnRuntime, Served, seen};
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
    /// The same in the runtime, where it is there.
    pub(crate) measured: Option<OnRuntime>,
    /// How exact the outputs are with float activations alone, where some had to go back to them or a goal is missed.
    pub(crate) of_weights: Option<Measurement<Accuracy>>,
    /// How exact the outputs are with caches of floats, where they are codes.
    pub(crate) with_float_caches: Option<Measurement<Accuracy>>,
    /// The user's own figure, where there is one.
    pub(crate) metric: Option<f64>,
}

/// Everything that is needed to write and measure the model.
pub(crate) struct Fitting<'a> {
    pub(crate) model: &'a Model,
    pub(crate) plan: &'a Plan,
    pub(crate) codes: Codes<'a>,
    /// The outputs of held-out samples, where they are known.
    pub(crate) of_streams: Option<Compared>,
    pub(crate) config: &'a Config,
    pub(crate) calibration: Option<&'a Calibration>,
    pub(crate) served: Option<&'a Served>,
    pub(crate) progress: Progress<'a>,
}

/// What judging found, and the layers that are left on integers.
struct Judged {
    held_out: OnHeldOut,
    /// As [`Fitted::of_weights`].
    of_weights: Option<Measurement<Accuracy>>,
    assignment: Assignment,
    trail: Trail,
}

impl Fitting<'_> {
    /// Writes the model with as many of the integer layers of `assignment` as the accuracy that is asked for allows;
    /// these too are returned, and the trail with what was tried.
    pub(super) fn fit(&self, assignment: Assignment, trail: Trail) -> Result<(Fitted, Assignment, Trail), Error> {
        let Some(calibration) = self.calibration.filter(|_| self.has_codes(&assignment)) else {
            return Ok((self.written(&assignment, None)?, assignment, trail));
        };
        let Judged { held_out, of_weights, assignment, trail } = self.judge(calibration, assignment, trail)?;
        let fitted = Fitted { of_weights, ..self.written(&assignment, Some(held_out))? };
        match self.falls_short(&fitted) && !assignment.is_empty() {
            true => self.fit_in_runtime(assignment, trail),
            false => Ok((fitted, assignment, trail)),
        }
    }

    /// Writes the model in memory, and measures it in the runtime.
    pub(super) fn written(&self, assignment: &Assignment, held_out: Option<OnHeldOut>) -> Result<Fitted, Error> {
        let Written { model, layers, table_bytes } = written(self.model, self.plan, self.codes, assignment)?;
        let served = self.served.filter(|_| self.has_codes(assignment));
        let measured = served.map(|served| served.measure(&model, self.progress)).transpose()?;
        let with_float_caches = self.with_float_caches(assignment)?;
        let (metric, of_weights) = (None, None);
        Ok(Fitted { written: model, layers, table_bytes, held_out, measured, with_float_caches, metric, of_weights })
    }

    /// How exact the outputs of held-out samples are with caches of floats, where they are codes: as the runtime computes
    /// them, else as simulated.
    fn with_float_caches(&self, assignment: &Assignment) -> Result<Option<Measurement<Accuracy>>, Error> {
        let Some(calibration) = self.calibration.filter(|_| !assignment.caches().is_empty()) else { return Ok(None) };
        let floats = assignment.with_caches(Vec::new());
        let found = match self.served {
            Some(served) => {
                served.accuracy(&written(self.model, self.plan, self.codes, &floats)?.model, self.progress)?
            }
            None => {
                let judge = Judge::new(self.model, calibration, Arithmetic::of(self.config, self.model))?;
                judge.accuracy(self.codes, &floats, &calibration.samples.split.held_out, self.progress)?
            }
        };
        Ok(Some(found))
    }

    /// What weights alone lose, where activations `went_back` to float or a goal is missed; `found` is what is left of the
    /// outputs. It is the same where nothing else loses, for which no judge is needed.
    fn of_weights(
        &self,
        judge: Option<&Judge<'_>>,
        found: &Compared,
        went_back: bool,
    ) -> Result<Option<Measurement<Accuracy>>, Error> {
        let of_all = accuracy(&found.held_out);
        match Goal::of(self.config) {
            Some(goal) if went_back || goal.excess(&of_all) > 1.0 => {}
            _ => return Ok(None),
        }
        let Some(judge) = judge.filter(|_| self.config.activations != Activations::Float) else {
            return Ok(Some(of_all));
        };
        let validation = judge.first_samples(usize::MAX);
        judge.accuracy(self.codes, &Assignment::default(), validation, self.progress).map(Some)
    }

    fn has_codes(&self, assignment: &Assignment) -> bool {
        !self.codes.is_empty() || !assignment.caches().is_empty()
    }

    /// Whether the simulation reached a goal that the runtime misses.
    fn falls_short(&self, fitted: &Fitted) -> bool {
        let Some(goal) = Goal::of(self.config).filter(|_| self.config.activations != Activations::Float) else {
            return false;
        };
        let simulated = fitted.held_out.as_ref().map(|found| goal.excess(&found.accuracy));
        let measured = fitted.measured.as_ref().filter(|found| found.accuracy.measured().is_some());
        simulated.is_some_and(|excess| excess <= 1.0)
            && measured.is_some_and(|found| goal.excess(&found.accuracy) > 1.0)
    }

    /// Takes layers back to float activations by what the runtime measures.
    fn fit_in_runtime(&self, assignment: Assignment, trail: Trail) -> Result<(Fitted, Assignment, Trail), Error> {
        let (Some(calibration), Some(served)) = (self.calibration, self.served) else {
            return Ok((self.written(&assignment, None)?, assignment, trail));
        };
        let judge = Judge::new(self.model, calibration, Arithmetic::of(self.config, self.model))?;
        let whole = |candidate: &Assignment| {
            let model = written(self.model, self.plan, self.codes, candidate)?.model;
            served.accuracy(&model, self.progress)
        };
        let (assignment, trail) = self.retreat(&judge, &whole, JudgedBy::Runtime, assignment, trail)?;
        let found = judge.compared(self.codes, &assignment, &[], self.progress)?;
        let found = OnHeldOut::new(self.model, calibration, found);
        Ok((self.written(&assignment, Some(found))?, assignment, trail))
    }

    /// Takes layers back to float activations where accuracy asks for that; the outputs then. How many go is decided on
    /// validation samples, and on the held-out ones only where these miss a goal all the same.
    fn judge(&self, calibration: &Calibration, assignment: Assignment, mut trail: Trail) -> Result<Judged, Error> {
        if let Some(of_streams) = self.of_streams.as_ref().filter(|found| is_enough(self.config, found)) {
            // Whole networks would take memory and time to prepare.
            trail.note_reached(&assignment, &accuracy(&of_streams.held_out));
            let held_out = OnHeldOut::new(self.model, calibration, of_streams.clone());
            let of_weights = self.of_weights(None, of_streams, false)?;
            return Ok(Judged { held_out, of_weights, assignment, trail });
        }
        let judge = Judge::new(self.model, calibration, Arithmetic::of(self.config, self.model))?;
        let split = &calibration.samples.split;
        let (codes, progress) = (self.codes, self.progress);
        let on_validation = |candidate: &Assignment| judge.accuracy(codes, candidate, &split.validation, progress);
        let on_held_out = |candidate: &Assignment| judge.accuracy(codes, candidate, &split.held_out, progress);
        let (simulated, before) = (JudgedBy::Simulation, assignment.layers());
        let (mut assignment, mut trail) = self.retreat(&judge, &on_validation, simulated, assignment, trail)?;
        let seen = seen(calibration, self.served);
        let compared = |assignment: &Assignment| judge.compared(codes, assignment, &seen, progress);
        let mut found = compared(&assignment)?;
        if !is_enough(self.config, &found) {
            (assignment, trail) = self.retreat(&judge, &on_held_out, simulated, assignment, trail)?;
            found = compared(&assignment)?;
        }
        let of_weights = self.of_weights(Some(&judge), &found, before > assignment.layers())?;
        let held_out = OnHeldOut::new(self.model, calibration, found);
        Ok(Judged { held_out, of_weights, assignment, trail })
    }

    /// The layers of `assignment` in the order in which they go, by what validation samples say, and the trail with that.
    pub(super) fn order(
        &self,
        judge: &Judge<'_>,
        assignment: &Assignment,
        mut trail: Trail,
    ) -> Result<(Vec<NodeId>, Trail), Error> {
        let nobody = |_: &Assignment| Ok(Measurement::NotMeasured(NotMeasured::NoSamples));
        let alone = self.alone(judge);
        let question = self.question(&nobody, &alone, JudgedBy::Metric);
        let order = question.order(assignment, &mut trail)?.iter().map(|layer| layer.leader).collect();
        Ok((order, trail))
    }

    /// Takes `leaders` of `before` back.
    pub(super) fn step(&self, before: &Assignment, leaders: &[NodeId]) -> Result<Step, Error> {
        Step::after(before, self.model.graph(), leaders, self.config)
    }

    /// Says what one layer alone does.
    fn alone<'j>(
        &self,
        judge: &'j Judge<'_>,
    ) -> impl Fn(&Assignment) -> Result<Measurement<Accuracy>, Error> + use<'j> {
        let few = judge.first_samples(SENSITIVITY_SAMPLES);
        move |candidate: &Assignment| judge.with_float_weights(candidate, few, &silent)
    }

    fn question<'q>(
        &'q self,
        whole: &'q dyn Measure<Assignment>,
        alone: &'q (dyn Measure<Assignment> + Sync),
        judged_by: JudgedBy,
    ) -> Retreat<'q> {
        let (graph, config, weights) = (self.model.graph(), self.config, Weights::Codes);
        Retreat { graph, config, weights, judged_by, whole, alone }
    }

    /// Takes as many layers back as `whole` asks for; which go first validation samples say.
    fn retreat(
        &self,
        judge: &Judge<'_>,
        whole: &dyn Measure<Assignment>,
        judged_by: JudgedBy,
        assignment: Assignment,
        trail: Trail,
    ) -> Result<(Assignment, Trail), Error> {
        let alone = self.alone(judge);
        self.question(whole, &alone, judged_by).from(assignment, trail)
    }
}

/// Whether no layer has to go back to float activations.
fn is_enough(config: &Config, found: &Compared) -> bool {
    let goal = Goal::of(config).filter(|_| config.activations != Activations::Float);
    goal.is_none_or(|goal| goal.excess(&accuracy(&found.held_out)) <= 1.0)
}
