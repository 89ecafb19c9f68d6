//! What stands in the file instead of float weights.

use onnxquant_passes::tables::CodedTable;
use onnxquant_passes::write_codes::PackedWeight;

use crate::plan::layers::PlannedLayer;
use crate::plan::tables::PlannedTable;

/// A quantized table of embeddings.
#[derive(Clone, Debug)]
pub(crate) struct QuantizedTable {
    pub(crate) coded: CodedTable,
    /// Relative error of the table.
    pub(crate) error: f64,
}

/// What stands in the file instead of float weights.
#[derive(Clone, Copy, Default)]
pub(crate) struct Codes<'a> {
    pub(crate) layers: &'a [(PlannedLayer, PackedWeight)],
    pub(crate) tables: &'a [QuantizedTable],
    pub(crate) planned_tables: &'a [PlannedTable],
}
