//! Plans which tables of embeddings are quantized.

use onnxquant_ir::Model;
use onnxquant_passes::embeddings::{Table, find_tables};

/// A table that will be quantized.
#[derive(Clone, Debug)]
pub struct PlannedTable {
    /// Name of the table.
    pub name: String,
    /// Where it is and who reads it.
    pub table: Table,
    /// Bits a code.
    pub bits: u32,
}

/// The tables of `model` at `bits` bits.
pub(crate) fn plan_tables(model: &Model, bits: Option<u32>) -> Vec<PlannedTable> {
    let graph = model.graph();
    let plan = |table: Table, bits| PlannedTable {
        name: graph.value(table.value).name().to_owned(),
        bits: table.bits(bits),
        table,
    };
    bits.map_or(Vec::new(), |bits| find_tables(graph).into_iter().map(|table| plan(table, bits)).collect())
}
