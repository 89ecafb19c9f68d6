//! Says how exact the outputs of a quantized model are on held-out samples.

use std::sync::Arc;

use onnxquant_calib::{Measurement, NotMeasured, OutputComparison};
use onnxquant_ir::{Model, Port};

use crate::accuracy::{Accuracy, accuracy};
use crate::error::Error;
use crate::judge::compare::Reference;
use crate::judge::expected::expected_db;
use crate::judge::served::Served;
use crate::observe::calibration::Calibration;
use crate::plan::assignment::Assignment;
use crate::progress::Progress;
use crate::write::codes::Codes;
use crate::write::evaluated::{Arithmetic, evaluated};

/// Samples that were used before and are run as well: more cost time and tell little more.
pub(super) const MOST_SEEN: usize = 64;

/// What comparing tells, by output.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    /// On held-out samples.
    pub(crate) held_out: Vec<OutputComparison>,
    /// On others, which were used before.
    pub(crate) seen: Vec<OutputComparison>,
}

/// Samples that were used before and are compared as well; none where a runtime does that.
pub(crate) fn seen(calibration: &Calibration, served: Option<&Served>) -> Vec<usize> {
    if served.is_some() { Vec::new() } else { calibration.samples.split.seen(MOST_SEEN) }
}

/// How the outputs of a quantized model are on held-out samples.
#[derive(Debug)]
pub(crate) struct OnHeldOut {
    pub(crate) calibration_samples: usize,
    pub(crate) validation_samples: usize,
    pub(crate) held_out_samples: usize,
    /// There were so few samples that some were used for both.
    pub(crate) shared: bool,
    /// Over all outputs.
    pub(crate) accuracy: Measurement<Accuracy>,
    /// The SQNR that can be expected on new data.
    pub(crate) expected_db: Option<f64>,
    /// Output by output, and value by value that is compared instead.
    pub(crate) outputs: Vec<OutputComparison>,
    /// Outputs that could not be compared, and why.
    pub(crate) not_compared: Vec<(Port, NotMeasured)>,
}

impl OnHeldOut {
    /// What was `found`, and which outputs are not among it.
    pub(crate) fn new(model: &Model, calibration: &Calibration, found: Compared) -> Self {
        let Compared { held_out: outputs, seen } = found;
        let split = &calibration.samples.split;
        let not_compared = calibration.reach.not_compared(model.graph()).into_iter();
        let not_compared: Vec<(Port, NotMeasured)> = not_compared.map(|(port, why)| (port.clone(), why)).collect();
        let accuracy = match (accuracy(&outputs), not_compared.first()) {
            (Measurement::NotMeasured(NotMeasured::NoOutputs), Some((_, why))) => Measurement::NotMeasured(why.clone()),
            (found, _) => found,
        };
        Self {
            calibration_samples: split.calibration.len(),
            validation_samples: split.validation.len(),
            held_out_samples: split.held_out.len(),
            shared: split.shared,
            accuracy,
            expected_db: expected_db(&outputs, &seen),
            outputs,
            not_compared,
        }
    }
}

/// Compares quantized models with the float one.
pub(crate) struct Judge<'a> {
    model: &'a Model,
    float: Arc<Reference>,
    pub(crate) calibration: &'a Calibration,
    pub(crate) arithmetic: Arithmetic,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(model: &'a Model, calibration: &'a Calibration, arithmetic: Arithmetic) -> Result<Self, Error> {
        let split = &calibration.samples.split;
        let samples = [&split.validation[..], &split.held_out[..], &split.seen(MOST_SEEN)[..]].concat();
        let float = Reference::new(model.clone(), calibration, &samples)?;
        Ok(Self::beside(Arc::new(float), model, calibration, arithmetic))
    }

    /// With a reference that computes what `model` does.
    pub(crate) fn beside(
        float: Arc<Reference>,
        model: &'a Model,
        calibration: &'a Calibration,
        arithmetic: Arithmetic,
    ) -> Self {
        Self { model, float, calibration, arithmetic }
    }

    /// How exact the model with these codes and integer layers is on `samples`.
    pub(crate) fn accuracy(
        &self,
        codes: Codes<'_>,
        assignment: &Assignment,
        samples: &[usize],
        progress: Progress<'_>,
    ) -> Result<Measurement<Accuracy>, Error> {
        Ok(accuracy(&self.outputs(codes, assignment, self.arithmetic, samples, progress)?))
    }

    /// The float model.
    pub(crate) fn model(&self) -> &'a Model {
        self.model
    }

    /// How exact the model with float weights is on `samples`.
    pub(crate) fn with_float_weights(
        &self,
        assignment: &Assignment,
        samples: &[usize],
        progress: Progress<'_>,
    ) -> Result<Measurement<Accuracy>, Error> {
        Ok(accuracy(&self.outputs(Codes::default(), assignment, Arithmetic::File, samples, progress)?))
    }

    /// The first samples to choose on, at most so many.
    pub(crate) fn first_samples(&self, most: usize) -> &'a [usize] {
        let samples = &self.calibration.samples.split.validation;
        &samples[..samples.len().min(most)]
    }

    /// Its outputs on `samples`.
    pub(crate) fn outputs(
        &self,
        codes: Codes<'_>,
        assignment: &Assignment,
        arithmetic: Arithmetic,
        samples: &[usize],
        progress: Progress<'_>,
    ) -> Result<Vec<OutputComparison>, Error> {
        let evaluated = evaluated(self.model, codes, assignment, arithmetic)?;
        let [found] = self.float.compare(evaluated, self.calibration, [samples], progress)?;
        Ok(found)
    }

    /// Its outputs on the held-out samples and on those of `seen`.
    pub(crate) fn compared(
        &self,
        codes: Codes<'_>,
        assignment: &Assignment,
        seen: &[usize],
        progress: Progress<'_>,
    ) -> Result<Compared, Error> {
        let evaluated = evaluated(self.model, codes, assignment, self.arithmetic)?;
        let samples = [&self.calibration.samples.split.held_out[..], seen];
        let [held_out, seen] = self.float.compare(evaluated, self.calibration, samples, progress)?;
        Ok(Compared { held_out, seen })
    }
}
