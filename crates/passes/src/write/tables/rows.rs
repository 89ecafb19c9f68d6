//! Decodes the rows of a table that a `Gather` reads.

use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, NodeId, ValueId, int_attribute, tensor, text_attribute};

use super::table::{CodedTable, Table};
use crate::graph::insert::insert;

/// Whether a node picks rows of a matrix that it reads at input 0.
pub(super) fn reads_rows(reader: &Node) -> bool {
    reader.is("Gather") && [0, -2].contains(&reader.int("axis", 0))
}

/// Codes of 4 bits in pairs, 8 added to each.
pub(super) fn pairs(coded: &CodedTable) -> Vec<u8> {
    let shifted = |code: i8| (code + 8) as u8;
    let pair = |(&low, &high): (&i8, &i8)| shifted(low) | shifted(high) << 4;
    let halves = coded.codes.chunks(coded.columns).map(|row| row.split_at(coded.columns / 2));
    halves.flat_map(|(low, high)| low.iter().zip(high).map(pair).collect::<Vec<u8>>()).collect()
}

/// Every Gather decodes the rows that it reads.
pub(super) fn decode_rows(graph: &mut Graph, table: &Table, bits: u32, [codes, scales]: [ValueId; 2], name: &str) {
    for &reader in &table.readers {
        let mut writer = Writer { graph, before: reader, name };
        let steps = writer.steps(codes, table.dtype, bits);
        let scale = writer.gather(scales, "row_scale");
        writer.become_last("Mul", &[steps, scale]);
    }
}

/// Puts operators before a node that reads the table.
pub(super) struct Writer<'a> {
    pub(super) graph: &'a mut Graph,
    pub(super) before: NodeId,
    pub(super) name: &'a str,
}

impl Writer<'_> {
    pub(super) fn insert(
        &mut self,
        op: &'static str,
        inputs: &[ValueId],
        what: &str,
        attributes: Vec<AttributeProto>,
    ) -> ValueId {
        insert(self.graph, self.before, op, inputs, format!("{}_{what}", self.name), attributes)
    }

    /// Which rows the Gather reads.
    pub(super) fn indices(&self) -> ValueId {
        self.graph.node(self.before).input(1).expect("a Gather has indices")
    }

    /// A constant vector.
    pub(super) fn numbers(&mut self, what: &str, numbers: &[i64]) -> ValueId {
        self.graph.add_constant(&format!("{}_{what}", self.name), tensor::from_i64(&[numbers.len()], numbers))
    }

    /// Makes the Gather another operator, which keeps its name and its readers.
    pub(super) fn become_last(&mut self, op_type: &str, inputs: &[ValueId]) {
        let reader = self.before;
        self.graph.set_op_type(reader, op_type);
        self.graph.remove_attribute(reader, "axis");
        inputs.iter().enumerate().for_each(|(slot, &input)| self.graph.set_input(reader, slot, Some(input)));
    }

    /// The rows of `data` that the Gather reads.
    pub(super) fn gather(&mut self, data: ValueId, what: &str) -> ValueId {
        let indices = self.indices();
        self.insert("Gather", &[data, indices], what, vec![int_attribute("axis", 0)])
    }

    /// The codes of those rows as real numbers.
    fn steps(&mut self, codes: ValueId, dtype: DataType, bits: u32) -> ValueId {
        let rows = self.gather(codes, "rows");
        if bits != 4 {
            return self.cast(rows, dtype);
        }
        let codes = self.halves(rows);
        let real = self.cast(codes, dtype);
        self.minus(real, dtype, 8.0)
    }

    /// Codes as real numbers.
    pub(super) fn cast(&mut self, codes: ValueId, dtype: DataType) -> ValueId {
        self.insert("Cast", &[codes], "row_codes", vec![int_attribute("to", i64::from(dtype as i32))])
    }

    /// What codes are above the one that means 0.
    pub(super) fn minus(&mut self, codes: ValueId, dtype: DataType, zero_point: f32) -> ValueId {
        let zero_point = tensor::from_f32_as(dtype, &[], &[zero_point]);
        let zero_point = self.graph.add_constant(&format!("{}_zero_point", self.name), zero_point);
        self.insert("Sub", &[codes, zero_point], "row_steps", vec![])
    }

    /// The low halves of bytes and, behind them on the last axis, the high ones.
    pub(super) fn halves(&mut self, bytes: ValueId) -> ValueId {
        let four = tensor::from_raw(DataType::Uint8, &[], vec![4]);
        let four = self.graph.add_constant(&format!("{}_half", self.name), four);
        let left = vec![text_attribute("direction", "LEFT")];
        let right = || vec![text_attribute("direction", "RIGHT")];
        let raised = self.insert("BitShift", &[bytes, four], "raised", left);
        let low = self.insert("BitShift", &[raised, four], "low", right());
        let high = self.insert("BitShift", &[bytes, four], "high", right());
        self.insert("Concat", &[low, high], "pairs", vec![int_attribute("axis", -1)])
    }
}
