//! How far the ratio of two sums over samples may be from that of other samples.

use serde::{Deserialize, Serialize};

/// Sums over samples of products of the powers of signal and error.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Products {
    signal_signal: f64,
    signal_error: f64,
    error_error: f64,
}

impl Products {
    pub(super) fn take_in(&mut self, signal: f64, error: f64) {
        self.signal_signal += signal * signal;
        self.signal_error += signal * error;
        self.error_error += error * error;
    }

    pub(super) fn add(&mut self, part: Self) {
        self.signal_signal += part.signal_signal;
        self.signal_error += part.signal_error;
        self.error_error += part.error_error;
    }

    /// The standard error of the ratio of two sums, of `error` over `signal`, as a part of it (Cochran, Sampling
    /// Techniques, 1977, section 6.4).
    pub(super) fn spread(self, signal: f64, error: f64, samples: usize) -> Option<f64> {
        let ratio = error / signal;
        let squares = self.error_error - 2.0 * ratio * self.signal_error + ratio * ratio * self.signal_signal;
        let spread = (squares.max(0.0) * samples as f64 / (samples as f64 - 1.0)).sqrt() / error;
        (samples > 1 && spread.is_finite()).then_some(spread)
    }
}
