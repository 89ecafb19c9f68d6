//! What a decoder keeps as codes, as it is printed.

use onnxquant::calib::Measurement;
use onnxquant::{Accuracy, KvCacheReport};

use crate::table::decibels;

/// Caches that are codes, and how exact the outputs are without them.
pub(super) fn caches(found: &KvCacheReport) -> String {
    let (before, after) = (found.bytes_per_token_before, found.bytes_per_token_after);
    let cost = match &found.with_float_caches {
        Measurement::Measured(Accuracy { sqnr_db, tokens: Some(tokens), .. }) => {
            format!("with floats SQNR {}, perplexity x {:.4}", decibels(*sqnr_db), tokens.perplexity_ratio)
        }
        Measurement::Measured(found) => format!("with floats SQNR {}", decibels(found.sqnr_db)),
        Measurement::NotMeasured(why) => format!("with floats not measured: {why}"),
    };
    format!("caches  {} of attention in int8: {before} -> {after} bytes a token; {cost}\n", found.attention)
}
