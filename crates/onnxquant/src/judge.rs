//! Says how exact the outputs of a quantized model are on held-out samples.

use std::sync::Arc;

use onnxquant_calib::{Measurement, OutputComparison};
use onnxquant_ir::Model;

use crate::accuracy::{Accuracy, accuracy, power};
use crate::calibration::Calibration;
use crate::compare::Reference;
use crate::error::Error;
use crate::integer::IntegerPlan;
use crate::progress::Progress;
use crate::write::{Arithmetic, Codes, evaluated};

/// Compares quantized models with the float one.
pub(crate) struct Judge<'a> {
    model: &'a Model,
    float: Arc<Reference>,
    pub(crate) calibration: &'a Calibration,
    pub(crate) arithmetic: Arithmetic,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(model: &'a Model, calibration: &'a Calibration, arithmetic: Arithmetic) -> Result<Self, Error> {
        let float = Reference::new(model.clone(), calibration, &calibration.split.held_out)?;
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

    /// How exact the model with these codes and integer layers is on all held-out samples.
    pub(crate) fn accuracy(
        &self,
        codes: Codes<'_>,
        integers: &IntegerPlan,
        progress: Progress<'_>,
    ) -> Result<Measurement<Accuracy>, Error> {
        let samples = &self.calibration.split.held_out;
        Ok(accuracy(&self.outputs(codes, integers, self.arithmetic, samples, progress)?))
    }

    /// The float model.
    pub(crate) fn model(&self) -> &'a Model {
        self.model
    }

    /// How exact the model with float weights is on `samples`.
    pub(crate) fn with_float_weights(
        &self,
        integers: &IntegerPlan,
        samples: &[usize],
        progress: Progress<'_>,
    ) -> Result<Measurement<Accuracy>, Error> {
        Ok(accuracy(&self.outputs(Codes::default(), integers, Arithmetic::File, samples, progress)?))
    }

    /// The power of the error of the outputs over that of the outputs, with float weights; infinite where it was not
    /// measured.
    pub(crate) fn error(
        &self,
        integers: &IntegerPlan,
        samples: &[usize],
        progress: Progress<'_>,
    ) -> Result<f64, Error> {
        Ok(power(&self.with_float_weights(integers, samples, progress)?))
    }

    /// The first held-out samples, at most so many.
    pub(crate) fn first_samples(&self, most: usize) -> &'a [usize] {
        let samples = &self.calibration.split.held_out;
        &samples[..samples.len().min(most)]
    }

    /// Its outputs on `samples`.
    pub(crate) fn outputs(
        &self,
        codes: Codes<'_>,
        integers: &IntegerPlan,
        arithmetic: Arithmetic,
        samples: &[usize],
        progress: Progress<'_>,
    ) -> Result<Vec<OutputComparison>, Error> {
        let evaluated = evaluated(self.model, codes, integers, arithmetic)?;
        self.float.compare(evaluated, self.calibration, samples, progress)
    }
}
