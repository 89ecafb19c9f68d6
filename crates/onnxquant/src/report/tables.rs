//! What was done with tables of embeddings and weights of recurrent layers.

use serde::Serialize;

use crate::plan::tables::PlannedTable;
use crate::write::codes::QuantizedTable;

/// A quantized table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// Name of the table.
    pub name: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Bits a code.
    pub bits: u32,
    /// Relative error of the table.
    pub error: f64,
    /// Bytes of codes and scales.
    pub bytes: usize,
}

impl TableReport {
    /// Of one table that takes so many bytes in the file.
    pub(super) fn new(planned: &PlannedTable, table: &QuantizedTable, bytes: usize) -> Self {
        Self { name: planned.name.clone(), shape: planned.table.dims, bits: planned.bits, error: table.error, bytes }
    }
}
