//! What decisions ask of those who can run a network.
//!
//! A decision hands over a candidate and gets a score. It knows nothing of engines and samples, so that its rule can be
//! tested with scores that are made up.

use onnxquant_calib::Measurement;

use crate::accuracy::{Accuracy, power};
use crate::error::Error;

/// Says how exact the outputs are with a candidate.
pub(crate) trait Measure<C: ?Sized> {
    /// How exact they are.
    fn accuracy(&self, candidate: &C) -> Result<Measurement<Accuracy>, Error>;
}

impl<C: ?Sized, F: Fn(&C) -> Result<Measurement<Accuracy>, Error>> Measure<C> for F {
    fn accuracy(&self, candidate: &C) -> Result<Measurement<Accuracy>, Error> {
        self(candidate)
    }
}

/// The power of the error of the outputs over that of the outputs; infinite where it was not measured.
pub(super) fn error<C: ?Sized>(measure: &dyn Measure<C>, candidate: &C) -> Result<f64, Error> {
    Ok(power(&measure.accuracy(candidate)?))
}
