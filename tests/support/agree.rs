//! When a measured SQNR is the one that was told.

/// Near ties alone leave an error of this size, however exact the model is.
const TIES_DB: f64 = 39.0;

/// Whether two SQNRs in dB are the same but for near ties.
pub fn agree(found: f64, told: f64, margin_db: f64) -> bool {
    let power = |db: f64| 10f64.powf(-db / 10.0);
    (found - told).abs() <= margin_db || (power(found) - power(told)).abs() <= power(TIES_DB)
}
