//! What a solver may be told beyond the specification.

use crate::error::QuantError;

/// Damping of the first attempt, as a fraction of the mean diagonal.
pub(crate) const FIRST_DAMPING: f64 = 0.01;

/// Settings of the methods that work in the metric of the data; the default suits nearly every layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SolverOptions {
    beam: usize,
    shrink: f64,
    damping: Option<f64>,
    walk_limit: f64,
}

/// Half a minute on one core.
const LARGEST_WALK: f64 = 3e11;

impl Default for SolverOptions {
    fn default() -> SolverOptions {
        SolverOptions { beam: 1, shrink: 0.0, damping: None, walk_limit: LARGEST_WALK }
    }
}

impl SolverOptions {
    /// How many partial solutions are followed side by side ([`Method::Feedback`](crate::Method::Feedback)); 1 to 64,
    /// by default 1, which is error feedback. 4 to 8 gain a few percent of the layer's error at as many times the cost.
    pub fn with_beam(self, beam: usize) -> Result<SolverOptions, QuantError> {
        if !(1..=64).contains(&beam) {
            return Err(setting("beam", beam.to_string(), "1 to 64"));
        }
        Ok(SolverOptions { beam, ..self })
    }

    /// Weight of the largest weight of a neuron against its error ([`Method::Feedback`](crate::Method::Feedback)),
    /// as a fraction of the largest eigenvalue of the inputs' covariance; by default 0: weights are not shrunk.
    pub fn with_shrink(self, shrink: f64) -> Result<SolverOptions, QuantError> {
        if !(0.0..=1.0).contains(&shrink) {
            return Err(setting("shrinkage", shrink.to_string(), "0 to 1"));
        }
        Ok(SolverOptions { shrink, ..self })
    }

    /// What is added to the diagonal of the inputs' covariance, as a fraction of its mean. By default 0.01, or what
    /// held-out rows choose where a method lets them.
    pub fn with_damping(self, damping: f64) -> Result<SolverOptions, QuantError> {
        if !(1e-9..=10.0).contains(&damping) {
            return Err(setting("damping", damping.to_string(), "1e-9 to 10"));
        }
        Ok(SolverOptions { damping: Some(damping), ..self })
    }

    /// Multiply-adds that a walk over the layer may take where [`auto`](crate::auto) chooses the method, at most and by
    /// default `3e11`; a share of that where a model has many layers.
    pub fn with_walk_limit(self, limit: f64) -> SolverOptions {
        SolverOptions { walk_limit: limit.min(LARGEST_WALK), ..self }
    }

    /// Partial solutions side by side.
    pub fn beam(&self) -> usize {
        self.beam
    }

    /// Weight of the largest weight.
    pub fn shrink(&self) -> f64 {
        self.shrink
    }

    /// The damping, if it is fixed.
    pub fn damping(&self) -> Option<f64> {
        self.damping
    }

    pub(crate) fn walk_limit(&self) -> f64 {
        self.walk_limit
    }

    pub(crate) fn first_damping(&self) -> f64 {
        self.damping.unwrap_or(FIRST_DAMPING)
    }
}

fn setting(what: &'static str, found: String, expected: &'static str) -> QuantError {
    QuantError::Setting { what, found, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused() {
        let options = SolverOptions::default();
        assert!(options.with_beam(0).is_err() && options.with_beam(65).is_err());
        assert!(options.with_shrink(-0.1).is_err() && options.with_shrink(f64::NAN).is_err());
        assert!(options.with_damping(0.0).is_err() && options.with_damping(f64::INFINITY).is_err());
        let all = options.with_beam(8).and_then(|o| o.with_shrink(1e-3)).and_then(|o| o.with_damping(0.1)).unwrap();
        assert_eq!((all.beam(), all.shrink(), all.damping()), (8, 1e-3, Some(0.1)));
    }
}
