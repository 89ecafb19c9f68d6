//! A report as it is stored: what the page and the comparison with another report read of it.
//!
//! Fields that they do not need are not looked at, and those that an earlier version of this program did not write may be
//! missing. `null` stands for a number that is not finite.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::report::run::{Report, SCHEMA_VERSION};

/// A report that was written as JSON.
#[derive(Clone, Debug)]
pub struct StoredReport {
    /// All of it.
    pub(super) whole: Value,
    pub(super) parts: Parts,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Parts {
    #[serde(default)]
    schema_version: u32,
    pub(super) bytes_before: u64,
    pub(super) bytes_after: u64,
    pub(super) layers: Vec<StoredLayer>,
    #[serde(default)]
    pub(super) outcome: StoredOutcome,
    #[serde(default)]
    pub(super) expected_speed: BTreeMap<String, f64>,
    pub(super) held_out: Option<StoredAccuracy>,
    pub(super) measured: Option<StoredAccuracy>,
    pub(super) integers: Option<StoredIntegers>,
    pub(super) budget: Option<StoredBudget>,
    #[serde(default)]
    pub(super) embeddings: Vec<StoredTable>,
    #[serde(default)]
    pub(super) whole_weights: Vec<StoredTable>,
    #[serde(default)]
    pub(super) float_weights: Vec<StoredFloats>,
    #[serde(default)]
    pub(super) skipped: Vec<StoredSkipped>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct StoredOutcome {
    pub(super) missed: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredLayer {
    pub(super) label: String,
    pub(super) op_type: String,
    pub(super) bits: u32,
    pub(super) bytes: u64,
    pub(super) method: String,
    pub(super) activations: String,
    #[serde(default)]
    pub(super) alphabet: Option<String>,
    pub(super) error: Option<f64>,
    pub(super) validation_error: Option<f64>,
    pub(super) certificate: StoredCertificate,
    pub(super) verdict: Option<StoredVerdict>,
    pub(super) weights: Option<StoredWeights>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredCertificate {
    pub(super) bound: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredVerdict {
    candidates: Vec<StoredCandidate>,
}

#[derive(Clone, Debug, Deserialize)]
struct StoredCandidate {
    method: String,
    outcome: Value,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredWeights {
    pub(super) least: f64,
    pub(super) greatest: f64,
    pub(super) counts: Vec<u64>,
    pub(super) codes: StoredCodes,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredCodes {
    pub(super) ends: [f64; 2],
    pub(super) levels: usize,
    pub(super) used: usize,
    pub(super) counts: Vec<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredAccuracy {
    pub(super) sqnr_db: Option<f64>,
    pub(super) not_measured: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredIntegers {
    #[serde(default)]
    pub(super) tensors: Vec<StoredTensor>,
    #[serde(default)]
    pub(super) sensitivity: Vec<StoredAlone>,
    #[serde(default)]
    pub(super) trade: Vec<StoredRound>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredTensor {
    pub(super) name: String,
    pub(super) range: String,
    pub(super) why: String,
    pub(super) relative_error: Option<f64>,
    pub(super) code_range: Option<[f64; 2]>,
    pub(super) seen: Option<[f64; 2]>,
    #[serde(default)]
    pub(super) counts: Vec<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredAlone {
    pub(super) label: String,
    pub(super) sqnr_db: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredRound {
    pub(super) sqnr_db: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredBudget {
    pub(super) alone: Vec<StoredAlone>,
    pub(super) curve: Vec<StoredPoint>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredPoint {
    pub(super) bytes: u64,
    pub(super) sqnr_db: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredTable {
    pub(super) name: String,
    pub(super) bits: u32,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredFloats {
    pub(super) operators: Vec<String>,
    pub(super) bytes: u64,
    pub(super) reason: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredSkipped {
    pub(super) label: String,
    #[serde(default)]
    pub(super) why: String,
}

impl StoredReport {
    /// Reads what `--report` wrote.
    ///
    /// # Errors
    /// The file cannot be read, is no report, or is one of a later version.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |problem: String| Error::Report { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let whole = serde_json::from_str(&text).map_err(|error| failed(format!("it is no JSON: {error}")))?;
        Self::new(whole).map_err(failed)
    }

    /// What a run reports.
    ///
    /// # Errors
    /// None but defects of this program.
    pub fn of(report: &Report) -> Result<Self, Error> {
        let whole = serde_json::to_value(report).map_err(|error| Error::Internal(error.to_string()))?;
        Self::new(whole).map_err(Error::Internal)
    }

    fn new(whole: Value) -> Result<Self, String> {
        let parts = Parts::deserialize(&whole).map_err(|error| {
            format!(
                "it is no report of onnxquant, or one of another version: {error}; write one with --report FILE.json"
            )
        })?;
        match parts.schema_version {
            0..=SCHEMA_VERSION => Ok(Self { whole, parts }),
            later => Err(format!(
                "it has version {later}, and this program knows versions up to {SCHEMA_VERSION}: use a later program"
            )),
        }
    }
}

impl StoredLayer {
    /// The error by which layers are compared: on validation samples, else on the calibration samples.
    pub(super) fn worst_error(&self) -> Option<f64> {
        self.validation_error.or(self.error)
    }

    /// The error of plain rounding on validation samples, where it was tried.
    pub(super) fn rounding_error(&self) -> Option<f64> {
        let verdict = self.verdict.as_ref()?;
        let rounded = verdict.candidates.iter().find(|candidate| candidate.method == "msq")?;
        rounded.outcome.get("held-out-error")?.as_f64()
    }
}
