//! What stands in the file instead of float weights.

use onnxquant_passes::tables::CodedTable;
use onnxquant_passes::write_codes::PackedWeight;
use serde::{Deserialize, Serialize};

use crate::plan::layers::{PlannedBody, PlannedLayer};
use crate::plan::tables::PlannedTable;

/// A quantized table of embeddings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct QuantizedTable {
    pub(crate) coded: CodedTable,
    /// Relative error of the table.
    pub(crate) error: f64,
}

/// What stands in a body instead of float weights.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuantizedBody {
    pub(crate) layers: Vec<(PlannedLayer, PackedWeight)>,
    pub(crate) tables: Vec<QuantizedTable>,
    /// The same of the bodies inside it.
    pub(crate) bodies: Vec<QuantizedBody>,
}

impl QuantizedBody {
    /// As `planned` has it.
    pub(crate) fn codes<'a>(&'a self, planned: &'a PlannedBody) -> Codes<'a> {
        Codes {
            layers: &self.layers,
            tables: &self.tables,
            planned_tables: &planned.plan.tables,
            bodies: &self.bodies,
            planned_bodies: &planned.plan.bodies,
        }
    }

    /// Its tables, and those of the bodies inside it.
    pub(crate) fn all_tables(&self) -> Vec<&QuantizedTable> {
        self.tables.iter().chain(self.bodies.iter().flat_map(Self::all_tables)).collect()
    }
}

/// What stands in the file instead of float weights.
#[derive(Clone, Copy, Default)]
pub(crate) struct Codes<'a> {
    pub(crate) layers: &'a [(PlannedLayer, PackedWeight)],
    pub(crate) tables: &'a [QuantizedTable],
    pub(crate) planned_tables: &'a [PlannedTable],
    pub(crate) bodies: &'a [QuantizedBody],
    pub(crate) planned_bodies: &'a [PlannedBody],
}

impl Codes<'_> {
    /// Whether nothing has codes.
    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
            && self.tables.is_empty()
            && self.planned_bodies.iter().zip(self.bodies).all(|(planned, body)| body.codes(planned).is_empty())
    }
}
