//! When a measured SQNR is the one that was told.

use super::{Failures, Job, measure};

/// Near ties alone leave an error of this size, however exact the model is.
const TIES_DB: f64 = 39.0;

/// Whether two SQNRs in dB are the same but for near ties.
pub fn agree(found: f64, told: f64, margin_db: f64) -> bool {
    let power = |db: f64| 10f64.powf(-db / 10.0);
    (found - told).abs() <= margin_db || (power(found) - power(told)).abs() <= power(TIES_DB)
}

/// What was told of a file.
pub struct Told {
    /// For messages.
    pub name: String,
    /// Its SQNR in dB.
    pub sqnr_db: Option<f64>,
    /// What it keeps at least.
    pub least: f64,
}

/// Checks what was told of each job's file against what ONNX Runtime computes, with and without optimization.
pub fn check_told(told: &[Told], jobs: &[Job], margin_db: f64, failures: &mut Failures) {
    assert_eq!(told.len(), jobs.len());
    for (Told { name, sqnr_db, least }, found) in told.iter().zip(measure(jobs)) {
        let fine = |found: Option<f64>| {
            let both = found.zip(*sqnr_db);
            both.is_some_and(|(found, told)| found >= *least && agree(found, told, margin_db))
        };
        let all_fine = found.faults().is_empty() && fine(found.sqnr_db) && fine(found.default_sqnr_db);
        let figures = [found.sqnr_db, found.default_sqnr_db];
        failures.check(all_fine, || format!("{name}: told {sqnr_db:?}, found {figures:?} {}", found.faults()));
    }
}
