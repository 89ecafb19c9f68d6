//! Stores tables of embeddings, and weights of recurrent layers, as codes with one scale a row.
//!
//! # Problem
//!
//! A `Gather` picks rows of a constant table. A `DequantizeLinear` in front of it would decode the whole table at every
//! run. An `LSTM`, `GRU` or `RNN` reads all of its weights at every step, and the runtime packs them when it loads the
//! model, as long as they are constants then.
//!
//! # Method
//!
//! One scale a row, symmetric codes:
//!
//! ```text
//! 8 bits   Gather(codes) -> Cast -> Mul(Gather(scales))
//! 4 bits   Gather(pairs) -> BitShift (low and high half) -> Concat -> Cast -> Sub(8) -> Mul(Gather(scales))
//! ```
//!
//! A byte of 4-bit codes holds one of the first half of a row and, in its high bits, one of the second half. Standard
//! ONNX, of opset 11 for 4 bits; where the indices are constants, the runtime computes it when it loads the model.
//!
//! Weights of recurrent layers are decoded as a whole, by operators that the runtime computes once, when it loads the model:
//!
//! ```text
//! Cast(codes) -> Mul(scales)      codes [directions, gates * hidden, inputs], scales [directions, gates * hidden, 1]
//! ```
//!
//! Compilers for accelerators want a `DequantizeLinear`, along axis 0 of a table of 8 bits that a Gather reads; they decode it
//! once themselves ([`TableForm::Dequantize`]).
//!
//! They take 8 bits: errors of the weights that read a state come back with every step.
//!
//! Not quantized: tables that other operators read too, of other ranks than 2 and types than f32 and f16, that are
//! graph outputs, read by subgraphs or can be overridden, and small ones. Rows of an odd number of columns take 8 bits.
//!
//! # Cost
//!
//! For each row that is read one multiplication a column.

use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId, Origin, TensorError, Use, ValueId, int_attribute, tensor, text_attribute};

use crate::graph::insert::insert;
use crate::layers::is_recurrent;

/// Smaller tables save less than the operators take.
const MIN_ELEMENTS: usize = 4096;

/// Bits of the weights of a recurrent layer.
const RECURRENT_BITS: u32 = 8;

/// A constant that is read row by row.
#[derive(Clone, Debug)]
pub struct Table {
    /// The table.
    pub value: ValueId,
    /// Who reads it.
    pub kind: TableKind,
    /// Rows and columns.
    pub dims: [usize; 2],
    /// Its type.
    pub dtype: DataType,
    /// The nodes that read it, in the order in which they run.
    readers: Vec<NodeId>,
}

/// Who reads a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// A `Gather`, the rows that its indices name.
    Embedding,
    /// `LSTM`, `GRU` or `RNN`: the weights of input or state.
    Recurrent,
}

/// What decodes a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableForm {
    /// `Cast` and `Mul` behind each Gather, or before a recurrent layer: made for ONNX Runtime on a CPU.
    Rows,
    /// A `DequantizeLinear` of the whole table: for tables of 8 bits that Gathers read.
    Dequantize,
}

impl TableForm {
    /// What codes of `bits` bits need of the default opset.
    pub fn needed_opset(self, bits: u32) -> i64 {
        match self {
            Self::Rows if bits == 4 => 11,
            Self::Rows => 7,
            Self::Dequantize => 13,
        }
    }
}

/// A table of codes.
#[derive(Clone, Debug)]
pub struct CodedTable {
    /// Bits a code, 8 or 4.
    pub bits: u32,
    /// Row by row.
    pub codes: Vec<i8>,
    /// One a row.
    pub scales: Vec<f32>,
}

/// Every table of the main graph, in the order of initializers.
pub fn find_tables(graph: &Graph) -> Vec<Table> {
    graph.initializers().iter().filter_map(|&value| table(graph, value)).collect()
}

fn table(graph: &Graph, value: ValueId) -> Option<Table> {
    let found = graph.value(value);
    let constant = found.constant().filter(|_| found.origin() == Origin::Constant)?;
    let dtype = tensor::data_type(constant).ok()?;
    let kinds = found.uses().iter().map(|user| reads(graph, user)).collect::<Option<Vec<_>>>()?;
    let kind = *kinds.first().filter(|first| kinds.iter().all(|kind| kind == *first))?;
    let dims = match (kind, &tensor::shape(constant).ok()?[..]) {
        (TableKind::Embedding, &[rows, columns]) => [rows, columns],
        (TableKind::Recurrent, &[directions, rows, columns]) => [directions.checked_mul(rows)?, columns],
        _ => return None,
    };
    let is_large = dims[0].checked_mul(dims[1]).is_some_and(|count| count >= MIN_ELEMENTS);
    // The runtime has no recurrent layers of f16 on a CPU.
    let is_known = dtype == DataType::Float || (dtype == DataType::Float16 && kind == TableKind::Embedding);
    let is_reader =
        |node: &NodeId| found.uses().iter().any(|user| matches!(user, Use::Input(reader, _) if reader == node));
    let readers = graph.order().iter().copied().filter(is_reader).collect();
    (is_known && is_large).then_some(Table { value, kind, dims, dtype, readers })
}

/// How a table is read there, if it is one.
fn reads(graph: &Graph, user: &Use) -> Option<TableKind> {
    let &Use::Input(node, slot) = user else { return None };
    let reader = graph.node(node);
    match slot {
        0 if reader.is("Gather") && [0, -2].contains(&reader.int("axis", 0)) => Some(TableKind::Embedding),
        1 | 2 if is_recurrent(reader) => Some(TableKind::Recurrent),
        _ => None,
    }
}

impl Table {
    /// The bits that are possible where `wanted` are asked for.
    pub fn bits(&self, wanted: u32) -> u32 {
        match self.kind {
            TableKind::Recurrent => RECURRENT_BITS,
            TableKind::Embedding if self.dims[1].is_multiple_of(2) => wanted,
            TableKind::Embedding => 8,
        }
    }

    /// The first node that reads it.
    pub fn reader(&self) -> Option<NodeId> {
        self.readers.first().copied()
    }
}

impl CodedTable {
    /// The numbers that the codes mean.
    pub fn decode(&self) -> Vec<f32> {
        let columns = self.codes.len() / self.scales.len().max(1);
        let of_row = |(codes, &scale): (&[i8], &f32)| codes.iter().map(move |&code| scale * f32::from(code)).collect();
        self.codes.chunks(columns.max(1)).zip(&self.scales).flat_map(|row| -> Vec<f32> { of_row(row) }).collect()
    }

    /// Codes of 4 bits in pairs, 8 added to each.
    fn pairs(&self, columns: usize) -> Vec<u8> {
        let shifted = |code: i8| (code + 8) as u8;
        let pair = |(&low, &high): (&i8, &i8)| shifted(low) | shifted(high) << 4;
        let halves = self.codes.chunks(columns).map(|row| row.split_at(columns / 2));
        halves.flat_map(|(low, high)| low.iter().zip(high).map(pair).collect::<Vec<u8>>()).collect()
    }
}

/// Writes `coded` in place of `table`; returns the bytes that it takes in the file.
///
/// # Errors
/// Where the table is not one that can have this form.
pub fn write_table(
    graph: &mut Graph,
    table: &Table,
    coded: &CodedTable,
    form: TableForm,
) -> Result<usize, TensorError> {
    let name = graph.value(table.value).name().to_owned();
    let [rows, columns] = table.dims;
    let shape = graph.value(table.value).constant().map_or(Ok(table.dims.to_vec()), tensor::shape)?;
    let codes = match coded.bits {
        4 => tensor::from_raw(DataType::Uint8, &[rows, columns / 2], coded.pairs(columns)),
        _ => tensor::from_codes(DataType::Int8, &shape, coded.codes.iter().map(|&code| i16::from(code))),
    };
    let is_plain = coded.bits == 8 && table.kind == TableKind::Embedding;
    if form == TableForm::Dequantize && !is_plain {
        let problem = "is no table of 8 bits that a Gather reads, as a DequantizeLinear takes it".to_owned();
        return Err(TensorError { tensor: name, problem });
    }
    let of_rows = match form {
        TableForm::Rows => [&shape[..shape.len().saturating_sub(1)], &[1]].concat(),
        TableForm::Dequantize => vec![rows],
    };
    let scales = tensor::from_f32_as(table.dtype, &of_rows, &coded.scales);
    let bytes =
        [&codes, &scales].into_iter().filter_map(|tensor| tensor.raw_data.as_ref()).map(bytes::Bytes::len).sum();
    let codes = graph.add_constant(&format!("{name}_quantized"), codes);
    let scales = graph.add_constant(&format!("{name}_scale"), scales);
    match table.kind {
        TableKind::Embedding if form == TableForm::Dequantize => dequantize(graph, table, [codes, scales], &name),
        TableKind::Embedding => decode_rows(graph, table, coded.bits, [codes, scales], &name),
        TableKind::Recurrent => decode_whole(graph, table, [codes, scales], &name),
    }
    graph.remove_if_unused(table.value);
    Ok(bytes)
}

/// Every Gather decodes the rows that it reads.
fn decode_rows(graph: &mut Graph, table: &Table, bits: u32, [codes, scales]: [ValueId; 2], name: &str) {
    for &reader in &table.readers {
        let mut writer = Writer { graph, before: reader, name };
        let steps = writer.steps(codes, table.dtype, bits);
        let scale = writer.gather(scales, "row_scale");
        graph.set_op_type(reader, "Mul");
        graph.remove_attribute(reader, "axis");
        graph.set_input(reader, 0, Some(steps));
        graph.set_input(reader, 1, Some(scale));
    }
}

/// All readers read the decoded table.
fn decode_whole(graph: &mut Graph, table: &Table, [codes, scales]: [ValueId; 2], name: &str) {
    let Some(before) = table.reader() else { return };
    let mut writer = Writer { graph, before, name };
    let to = vec![int_attribute("to", i64::from(table.dtype as i32))];
    let steps = writer.insert("Cast", &[codes], "codes", to);
    let decoded = writer.insert("Mul", &[steps, scales], "dequantized", vec![]);
    read_instead(graph, table, decoded);
}

/// The same by one operator.
fn dequantize(graph: &mut Graph, table: &Table, codes_and_scales: [ValueId; 2], name: &str) {
    let Some(before) = table.reader() else { return };
    let mut writer = Writer { graph, before, name };
    let by_row = vec![int_attribute("axis", 0)];
    let decoded = writer.insert("DequantizeLinear", &codes_and_scales, "dequantized", by_row);
    read_instead(graph, table, decoded);
}

/// Lets all readers of the table read `decoded`.
fn read_instead(graph: &mut Graph, table: &Table, decoded: ValueId) {
    for user in graph.value(table.value).uses().to_vec() {
        if let Use::Input(reader, slot) = user {
            graph.set_input(reader, slot, Some(decoded));
        }
    }
}

/// Puts operators before a node that reads the table.
struct Writer<'a> {
    graph: &'a mut Graph,
    before: NodeId,
    name: &'a str,
}

impl Writer<'_> {
    fn insert(&mut self, op: &'static str, inputs: &[ValueId], what: &str, attributes: Vec<AttributeProto>) -> ValueId {
        insert(self.graph, self.before, op, inputs, format!("{}_{what}", self.name), attributes)
    }

    /// The rows of `data` that the Gather reads.
    fn gather(&mut self, data: ValueId, what: &str) -> ValueId {
        let indices = self.graph.node(self.before).input(1).expect("a Gather has indices");
        self.insert("Gather", &[data, indices], what, vec![int_attribute("axis", 0)])
    }

    /// The codes of those rows as real numbers.
    fn steps(&mut self, codes: ValueId, dtype: DataType, bits: u32) -> ValueId {
        let to = vec![int_attribute("to", i64::from(dtype as i32))];
        let rows = self.gather(codes, "rows");
        if bits != 4 {
            return self.insert("Cast", &[rows], "row_codes", to);
        }
        let four = tensor::from_raw(DataType::Uint8, &[], vec![4]);
        let four = self.graph.add_constant(&format!("{}_half", self.name), four);
        let left = vec![text_attribute("direction", "LEFT")];
        let right = || vec![text_attribute("direction", "RIGHT")];
        let raised = self.insert("BitShift", &[rows, four], "raised", left);
        let low = self.insert("BitShift", &[raised, four], "low", right());
        let high = self.insert("BitShift", &[rows, four], "high", right());
        let pairs = self.insert("Concat", &[low, high], "pairs", vec![int_attribute("axis", -1)]);
        let real = self.insert("Cast", &[pairs], "row_codes", to);
        let middle = tensor::from_f32_as(dtype, &[], &[8.0]);
        let middle = self.graph.add_constant(&format!("{}_zero_point", self.name), middle);
        self.insert("Sub", &[real, middle], "row_steps", vec![])
    }
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
