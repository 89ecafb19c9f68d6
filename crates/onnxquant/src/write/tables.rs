//! Puts the codes of tables into a model.

use onnxquant_ir::{Graph, tensor};
use onnxquant_passes::tables::{find_tables, write_table};

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
        let found = find_tables(graph).into_iter().find(|found| found.value == planned.table.value);
        let place = found.ok_or_else(|| Error::Internal(format!("table `{}` was lost", planned.name)))?;
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
        let float = graph.value(planned.table.value).constant();
        let float = float.ok_or_else(|| Error::Internal(format!("table `{}` is gone", planned.name)))?;
        let decoded = tensor::from_f32_as(planned.table.dtype, &tensor::shape(float)?, &table.coded.decode());
        graph.set_tensor(planned.table.value, decoded);
    }
    Ok(())
}
