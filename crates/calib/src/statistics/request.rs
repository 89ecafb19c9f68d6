//! What is asked of the inputs of layers.

use onnxquant_quant::{GramAccumulator, MatrixView};

/// Rows taken for every input of a layer, where there are more.
const ROWS_PER_INPUT: usize = 32;
/// At least so many rows are taken, where there are more.
const LEAST_ROWS: usize = 1 << 14;
/// The same for [`StatKind::RoughGram`].
const ROUGH_ROWS_PER_INPUT: usize = 4;
const LEAST_ROUGH_ROWS: usize = 1 << 11;
/// Rows that are taken or left together.
const SAMPLED_CHUNK_ROWS: usize = 128;
/// The same for [`StatKind::RoughGram`]: of the fewer rows each sample has some.
const ROUGH_CHUNK_ROWS: usize = 64;

/// What is gathered of a layer's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatKind {
    /// The whole Gram matrix.
    Gram,
    /// The same from fewer rows: enough to weigh errors with, where nothing is fitted to the matrix.
    RoughGram,
}

impl StatKind {
    /// Rows of so many inputs beyond which only some are taken.
    pub(super) fn enough_rows(self, inputs: usize) -> usize {
        let (per_input, least) = match self {
            Self::Gram => (ROWS_PER_INPUT, LEAST_ROWS),
            Self::RoughGram => (ROUGH_ROWS_PER_INPUT, LEAST_ROUGH_ROWS),
        };
        (per_input * inputs).max(least)
    }

    /// Rows that are taken or left together.
    pub(super) fn sampled_chunk_rows(self) -> usize {
        match self {
            Self::Gram => SAMPLED_CHUNK_ROWS,
            Self::RoughGram => ROUGH_CHUNK_ROWS,
        }
    }
}

/// Statistics wanted of one value, read as one layer reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct StatRequest {
    /// ONNX name of the value.
    pub value: String,
    /// How the layer reads it.
    pub view: MatrixView,
    /// What is gathered.
    pub kind: StatKind,
}

/// Bytes that gathering these statistics takes (sums, buffers and results; not activations).
pub fn gram_bytes(requests: &[StatRequest]) -> u64 {
    requests.iter().map(request_bytes).fold(0, u64::saturating_add)
}

fn request_bytes(request: &StatRequest) -> u64 {
    GramAccumulator::bytes(request.view.inputs()).saturating_mul(request.view.groups() as u64)
}

/// Statistics of one value as the quantized network has it, beside what it is in the float network.
#[derive(Debug, Clone, PartialEq)]
pub struct PairRequest {
    /// ONNX name of the value in the quantized network, how the layer reads it, and what is gathered of it.
    pub seen: StatRequest,
    /// ONNX name of the value in the float network.
    pub reference: String,
    /// Data select its rows, so that the networks may have others in the same place.
    pub is_selected: bool,
}
