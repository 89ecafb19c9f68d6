//! How good the written model is by a figure of the user's own.

use schemars::JsonSchema;
use serde::Serialize;

use crate::judge::metered::Metered;

/// The figure of both models.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MetricReport {
    /// That of the written model.
    pub value: f64,
    /// That of the float model.
    pub of_float: f64,
    /// What was wanted, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<f64>,
    /// Models that were measured on the way, beside the float one.
    pub measured: usize,
}

impl MetricReport {
    pub(super) fn new(value: f64, metered: &Metered) -> Self {
        Self { value, of_float: metered.of_float(), wanted: metered.wanted(), measured: metered.measured() }
    }

    /// That less was reached than was wanted, in words.
    pub(super) fn missed(&self) -> Option<String> {
        let wanted = self.wanted.filter(|wanted| self.value.is_nan() || self.value < *wanted)?;
        Some(format!("metric {}, at least {wanted} wanted", self.value))
    }
}
