//! Puts the codes of tables into a model.

use onnxquant_ir::Graph;
use onnxquant_passes::tables::{TableKind, find_table, write_table};

use crate::error::Error;
use crate::plan::tables::PlannedTable;
use crate::write::codes::QuantizedTable;

/// Writes the tables into the model for the runtime; returns the bytes of each.
pub(crate) fn write_tables(
    graph: &mut Graph,
    tables: &[QuantizedTable],
    planned: &[PlannedTable],
) -> Result<Vec<usize>, Error> {
    let mut bytes = Vec::with_capacity(tables.len());
    for (table, planned) in tables.iter().zip(planned) {
        // Who reads it may have changed since.
        let found = find_table(graph, planned.table.value);
        let found = found.map(|found| if planned.heads.is_empty() { found } else { found.with_copies(graph) });
        let found = match planned.table.kind {
            TableKind::Experts => found.and_then(|found| found.of_experts(graph)),
            _ => found,
        };
        let same = found.filter(|found| found.heads.len() == planned.heads.len());
        let place = same.ok_or_else(|| Error::Internal(format!("table `{}` was lost", planned.name)))?;
        bytes.push(write_table(graph, &place, &table.coded, planned.form)?);
    }
    Ok(bytes)
}

/// Puts what the codes mean into the model for the engine.
pub(crate) fn decode_tables(
    graph: &mut Graph,
    tables: &[QuantizedTable],
    planned: &[PlannedTable],
) -> Result<(), Error> {
    for (table, planned) in tables.iter().zip(planned) {
        for (value, decoded) in planned.table.decoded(graph, &table.coded)? {
            if graph.value(value).constant().is_none() {
                return Err(Error::Internal(format!("table `{}` is gone", planned.name)));
            }
            graph.set_tensor(value, decoded);
        }
    }
    Ok(())
}
