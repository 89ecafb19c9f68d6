//! What a decoder keeps of the tokens behind it, where that is codes.

use onnxquant_calib::Measurement;
use onnxquant_ir::Graph;
use onnxquant_passes::write_caches::{InputTypes, ScaledCaches};
use schemars::JsonSchema;
use serde::Serialize;

use crate::accuracy::Accuracy;

/// Caches that are codes of 8 bits.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct KvCacheReport {
    /// Operators whose keys and values they are.
    pub attention: usize,
    /// Bytes of a token in the float model.
    pub bytes_per_token_before: usize,
    /// Bytes of a token now.
    pub bytes_per_token_after: usize,
    /// How exact the outputs are on the same held-out samples with caches of floats: what the codes cost is the difference.
    pub with_float_caches: Measurement<Accuracy>,
}

impl KvCacheReport {
    /// Of a model whose float graph is `graph`; nothing where its caches are floats.
    pub(crate) fn new(
        graph: &Graph,
        caches: &[ScaledCaches],
        with_float_caches: Option<Measurement<Accuracy>>,
    ) -> Option<Self> {
        let with_float_caches = with_float_caches.filter(|_| !caches.is_empty())?;
        let types = InputTypes::of(graph);
        let before = |scaled: &ScaledCaches| {
            let bytes = scaled.caches.past.map(|past| types.bytes(graph.value(past).name()));
            scaled.numbers_per_token() / 2 * bytes.iter().sum::<usize>()
        };
        Some(Self {
            attention: caches.len(),
            bytes_per_token_before: caches.iter().map(before).sum(),
            bytes_per_token_after: caches.iter().map(ScaledCaches::numbers_per_token).sum(),
            with_float_caches,
        })
    }
}
