//! Stores tables of embeddings as codes and decodes the rows that are read, not the table.
//!
//! # Problem
//!
//! A `Gather` picks rows of a constant table. A `DequantizeLinear` in front of it would decode the whole table at every
//! run.
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
//! Not quantized: tables that other operators read too, of other ranks than 2 and types than f32 and f16, that are
//! graph outputs, read by subgraphs or can be overridden, and small ones. Rows of an odd number of columns take 8 bits.
//!
//! # Cost
//!
//! For each row that is read one multiplication a column.

use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId, Origin, Use, ValueId, int_attribute, tensor, text_attribute};

use crate::graph::insert::insert;

/// Smaller tables save less than the operators take.
const MIN_ELEMENTS: usize = 4096;

/// A constant that only Gathers read, row by row.
#[derive(Clone, Debug)]
pub struct Table {
    /// The table.
    pub value: ValueId,
    /// Rows and columns.
    pub dims: [usize; 2],
    /// Its type.
    pub dtype: DataType,
    /// The Gathers.
    readers: Vec<NodeId>,
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
    let [rows, columns] = tensor::shape(constant).ok()?[..] else { return None };
    let is_large = rows.checked_mul(columns).is_some_and(|count| count >= MIN_ELEMENTS);
    let reads_rows = |user: &Use| match *user {
        Use::Input(node, 0) => {
            let reader = graph.node(node);
            (reader.is("Gather") && [0, -2].contains(&reader.int("axis", 0))).then_some(node)
        }
        _ => None,
    };
    let readers = found.uses().iter().map(reads_rows).collect::<Option<Vec<_>>>()?;
    let is_known = matches!(dtype, DataType::Float | DataType::Float16) && is_large && !readers.is_empty();
    is_known.then_some(Table { value, dims: [rows, columns], dtype, readers })
}

impl Table {
    /// What codes of `bits` bits need of the default opset.
    pub fn needed_opset(bits: u32) -> i64 {
        if bits == 4 { 11 } else { 7 }
    }

    /// The bits that are possible where `wanted` are asked for.
    pub fn bits(&self, wanted: u32) -> u32 {
        if self.dims[1].is_multiple_of(2) { wanted } else { 8 }
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
pub fn write_table(graph: &mut Graph, table: &Table, coded: &CodedTable) -> usize {
    let name = graph.value(table.value).name().to_owned();
    let [rows, columns] = table.dims;
    let codes = match coded.bits {
        4 => tensor::from_raw(DataType::Uint8, &[rows, columns / 2], coded.pairs(columns)),
        _ => tensor::from_codes(DataType::Int8, &[rows, columns], coded.codes.iter().map(|&code| i16::from(code))),
    };
    let scales = tensor::from_f32_as(table.dtype, &[rows, 1], &coded.scales);
    let bytes =
        [&codes, &scales].into_iter().filter_map(|tensor| tensor.raw_data.as_ref()).map(bytes::Bytes::len).sum();
    let codes = graph.add_constant(&format!("{name}_quantized"), codes);
    let scales = graph.add_constant(&format!("{name}_scale"), scales);
    for &reader in &table.readers {
        let mut writer = Writer { graph, before: reader, name: &name };
        let steps = writer.steps(codes, table.dtype, coded.bits);
        let scale = writer.gather(scales, "row_scale");
        graph.set_op_type(reader, "Mul");
        graph.remove_attribute(reader, "axis");
        graph.set_input(reader, 0, Some(steps));
        graph.set_input(reader, 1, Some(scale));
    }
    graph.remove_if_unused(table.value);
    bytes
}

/// Puts operators before a Gather.
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
#[path = "embeddings_tests.rs"]
mod tests;
