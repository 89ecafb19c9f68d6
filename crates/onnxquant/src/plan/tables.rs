//! Plans which tables of embeddings and which weights of recurrent layers are quantized.

use onnxquant_ir::Model;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_passes::tables::{Table, TableForm, TableKind, find_tables};

use crate::config::{Config, Selection};

/// A table that will be quantized.
#[derive(Clone, Debug)]
pub struct PlannedTable {
    /// Name of the table.
    pub name: String,
    /// Where it is and who reads it.
    pub table: Table,
    /// Bits a code.
    pub bits: u32,
    /// What decodes it.
    pub form: TableForm,
}

impl PlannedTable {
    /// Whether a Gather reads it, not a recurrent layer.
    pub fn is_embedding(&self) -> bool {
        self.table.kind == TableKind::Embedding
    }
}

/// The tables of `model` that the settings ask for.
pub(super) fn plan_tables(model: &Model, config: &Config, selection: &Selection<'_>) -> Vec<PlannedTable> {
    let graph = model.graph();
    let bits = |table: &Table| match table.kind {
        TableKind::Embedding => config.embeddings.map(|bits| table.bits(bits)),
        TableKind::Recurrent => {
            let is_selected = table.reader().is_some_and(|reader| selection.contains(graph.label(reader)));
            is_selected.then(|| table.bits(config.bits))
        }
    };
    let takes = config.target.takes();
    let form = if takes.is_strict { TableForm::Dequantize } else { TableForm::Rows };
    // Weights of recurrent layers have scales along two axes, and opsets below 19 have no scales of f16.
    let is_taken = |table: &Table| {
        let of_one_axis = table.kind == TableKind::Embedding && table.dtype == DataType::Float;
        !takes.is_strict || takes.tables && of_one_axis
    };
    let plan = |table: Table| {
        let name = graph.value(table.value).name().to_owned();
        Some(PlannedTable { name, bits: bits(&table)?, table, form })
    };
    find_tables(graph).into_iter().filter(is_taken).filter_map(plan).collect()
}
