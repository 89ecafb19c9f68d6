//! Plans which tables of embeddings, and which weights that are decoded as a whole, are quantized.
//!
//! A table that layers read too, the head of a language model, becomes one tensor of codes with their weight, in blocks as
//! `MatMulNBits` takes them. The layers have no codes of their own then. So it is where their weight is another tensor of
//! the same numbers, unless a scheme names integers for all layers or somebody asks for bits of these.

use std::collections::HashMap;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId};
use onnxquant_passes::layers::SkipReason;
use onnxquant_passes::ort_version::OrtVersion;
use onnxquant_passes::sites::{LayerId, Site};
use onnxquant_passes::tables::{EXPERT_BLOCK, Table, TableForm, TableKind, find_tables};
use onnxquant_passes::write_nbits::block_of;
use onnxquant_quant::Granularity;

use crate::config::{Activations, Config, Format, OwnCodes, Selection, Target};

/// The first opset whose `DequantizeLinear` has an axis.
const DEQUANTIZE_OPSET: i64 = 13;

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
    /// Columns that share a scale, where these are not all of a row.
    pub block: Option<usize>,
    /// The layers that multiply with it, by what people call them.
    pub heads: Vec<String>,
}

impl PlannedTable {
    /// Whether a Gather reads it, not an operator that needs all of it.
    pub fn is_embedding(&self) -> bool {
        !self.table.is_whole()
    }

    /// The layers that multiply with it, each with what people call it.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (&str, LayerId)> {
        self.heads.iter().map(String::as_str).zip(self.table.heads.iter().map(|site| site.id()))
    }

    /// What its codes need of the default opset.
    pub(crate) fn needed_opset(&self) -> i64 {
        match self.form {
            TableForm::Rows => self.table.needed_opset(self.bits),
            TableForm::Dequantize => DEQUANTIZE_OPSET,
        }
    }

    /// Whether this node multiplies with it.
    pub(crate) fn is_weight_of(&self, node: NodeId) -> bool {
        self.table.heads.iter().any(|site| site.node == node) || self.table.is_weight_of(node)
    }
}

/// What tables depend on.
pub(crate) struct TablePlanner<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) config: &'a Config,
    pub(crate) selection: &'a Selection<'a>,
    /// What people call the layers of the main graph.
    pub(crate) labels: &'a HashMap<NodeId, String>,
}

impl TablePlanner<'_> {
    /// The tables that the settings ask for, and why layers stay in float whose weight is one that is not quantized.
    pub(crate) fn plan(&self) -> (Vec<PlannedTable>, HashMap<NodeId, SkipReason>) {
        let (mut planned, mut reasons) = (Vec::new(), HashMap::new());
        for table in find_tables(self.graph).into_iter().filter(|table| self.is_taken(table)) {
            match (table.kind, self.config.embeddings) {
                (TableKind::Whole, _) => planned.extend(self.whole(table)),
                (_, None) => {}
                (_, Some(bits)) => match self.embedding(table, bits) {
                    Ok(table) => planned.push(table),
                    Err(more) => reasons.extend(more),
                },
            }
        }
        (planned, reasons)
    }

    fn whole(&self, table: Table) -> Option<PlannedTable> {
        let is_selected = table.reader().is_some_and(|reader| self.selection.contains(self.graph.label(reader)));
        if !is_selected {
            return None;
        }
        let experts = table.clone().of_experts(self.graph).filter(|_| self.config.has_codes_of_experts());
        Some(match experts {
            Some(table) => PlannedTable { block: Some(EXPERT_BLOCK), ..self.by_rows(table, self.config.bits) },
            None => self.by_rows(table, self.config.bits),
        })
    }

    /// Why its layers stay in float where it does.
    fn embedding(&self, table: Table, bits: u32) -> Result<PlannedTable, HashMap<NodeId, SkipReason>> {
        let own_heads = table.clone();
        let joined = if self.joins_copies() { table.with_copies(self.graph) } else { table };
        let table = if self.has_own_codes(&joined) { own_heads.clone() } else { joined };
        if table.kind == TableKind::Tied
            && let Ok(tied) = self.tied(table, bits)
        {
            return Ok(tied);
        }
        if own_heads.kind == TableKind::Tied { self.tied(own_heads, bits) } else { Ok(self.by_rows(own_heads, bits)) }
    }

    fn by_rows(&self, table: Table, bits: u32) -> PlannedTable {
        let name = self.graph.value(table.value).name().to_owned();
        let form = if self.config.target.takes().is_strict { TableForm::Dequantize } else { TableForm::Rows };
        PlannedTable { name, bits: table.bits(bits), table, form, block: None, heads: Vec::new() }
    }

    /// Whether the target takes it. Weights that are decoded as a whole have scales along several axes, as tables of matrices have, and opsets below 19 have no
    /// scales of f16.
    fn is_taken(&self, table: &Table) -> bool {
        let takes = self.config.target.takes();
        let of_one_axis = !table.is_whole() && !table.holds_matrices() && table.dtype == DataType::Float;
        !takes.is_strict || takes.tables && of_one_axis
    }

    /// Whether layers give up codes of their own for those of a table of the same numbers.
    fn joins_copies(&self) -> bool {
        let config = self.config;
        let is_open = matches!(config.activations, Activations::Float | Activations::Auto);
        is_open && config.budget.is_none() && config.plan.is_none()
    }

    /// Whether a rule says something about the codes of one of its layers.
    fn has_own_codes(&self, table: &Table) -> bool {
        let labels = table.heads.iter().filter_map(|site| self.labels.get(&site.node));
        labels.into_iter().any(|label| self.selection.own_codes(label) != OwnCodes::default())
    }

    fn tied(&self, table: Table, bits: u32) -> Result<PlannedTable, HashMap<NodeId, SkipReason>> {
        let label = |site: &Site| self.labels.get(&site.node).filter(|label| self.selection.contains(label)).cloned();
        let heads: Option<Vec<String>> = table.heads.iter().map(label).collect();
        let (needs, block) = (self.config.tied_needs(bits), self.block(table.dims[1], bits));
        if let (Some(heads), None, Some(block)) = (heads, needs, block) {
            return Ok(PlannedTable { block: Some(block), heads, ..self.by_rows(table, bits) });
        }
        let reader = table.reader().map_or(String::new(), |reader| self.graph.describe(reader));
        let reason = |site: &Site| match (label(site), needs) {
            (None, _) => SkipReason::Excluded,
            (_, Some(needs)) => SkipReason::Tied { reader: reader.clone(), needs },
            (_, None) => SkipReason::SharedWithOther { user: reader.clone() },
        };
        Err(table.heads.iter().map(|site| (site.node, reason(site))).collect())
    }

    /// Columns that share a scale.
    fn block(&self, columns: usize, bits: u32) -> Option<usize> {
        let granularity = match self.config.granularity {
            Granularity::Block(size) if size >= columns => Granularity::Channel,
            granularity => granularity,
        };
        block_of(granularity, columns, bits)
    }
}

impl Config {
    /// Whether experts may become an operator of codes.
    fn has_codes_of_experts(&self) -> bool {
        self.target == Target::OrtCpu && self.format != Format::Dq && self.ort_min >= OrtVersion::CODES_OF_EXPERTS
    }

    /// What a table of these bits that layers read too needs and does not have, as options.
    fn tied_needs(&self, bits: u32) -> Option<&'static str> {
        match () {
            () if self.target != Target::OrtCpu => Some("--target ort-cpu"),
            () if self.format == Format::Dq => Some("another --format"),
            () if bits == 8 && self.ort_min < OrtVersion::EIGHT_BIT_NBITS => Some("--ort-min 1.22 or --embeddings 4"),
            () => None,
        }
    }
}
