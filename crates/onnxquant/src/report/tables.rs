//! What was done with tables of embeddings, and with weights that are decoded as a whole.

use onnxquant_passes::tables::Table;
use schemars::JsonSchema;
use serde::Serialize;

use crate::plan::tables::PlannedTable;
use crate::write::codes::QuantizedTable;

/// A quantized table.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TableReport {
    /// Name of the table.
    pub name: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Bits a code.
    pub bits: u32,
    /// Columns that share a scale, where these are not all of a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// The layers whose weight it is too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<String>,
    /// Relative error of the table.
    pub error: f64,
    /// Bytes of codes and scales.
    pub bytes: usize,
}

impl TableReport {
    /// Of one table that takes so many bytes in the file.
    pub(super) fn new(planned: &PlannedTable, table: &QuantizedTable, bytes: usize) -> Self {
        let PlannedTable { name, table: Table { dims, .. }, bits, block, heads, .. } = planned;
        let (name, heads, error) = (name.clone(), heads.clone(), table.error);
        Self { name, shape: *dims, bits: *bits, block: *block, heads, error, bytes }
    }
}
