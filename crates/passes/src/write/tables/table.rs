//! What a table is, and its codes.

use std::borrow::Cow;

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId, TensorError, ValueId, tensor};
use serde::{Deserialize, Serialize};

use crate::find::sites::Site;

/// Bits of weights that are decoded as a whole, and of tables of matrices.
const WHOLE_BITS: u32 = 8;

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
    /// The layers that multiply with it, in the order in which they run; each row is the weight of one of their outputs.
    pub heads: Vec<Site>,
    /// The nodes that read its rows, in the order in which they run.
    pub(super) readers: Vec<NodeId>,
    /// What is picked are matrices, or arrays of more axes.
    pub(super) holds_matrices: bool,
    /// The initializer holds columns as rows.
    pub(super) is_turned: bool,
    /// Other initializers of the same numbers, which layers alone read, and whether these hold columns as rows.
    pub(super) copies: Vec<(ValueId, bool)>,
}

/// Who reads a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// A `Gather`, the rows that its indices name.
    Embedding,
    /// A `Gather`, and MatMul or Gemm layers whose weight it is too.
    Tied,
    /// An operator that needs all of it: `LSTM`, `GRU`, `RNN`, products of several matrices, `Einsum`, `Attention`, `MoE`.
    Whole,
    /// `MoE`, which becomes an operator of codes.
    Experts,
}

/// A table of codes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CodedTable {
    /// Bits a code, 8 or 4.
    pub bits: u32,
    /// Codes a row.
    pub columns: usize,
    /// Columns of a row that share a scale; the last block of a row may be short.
    pub block: usize,
    /// Row by row.
    pub codes: Vec<i8>,
    /// One a block of a row.
    pub scales: Vec<f32>,
}

impl Table {
    /// What codes of `bits` bits need of the default opset.
    pub fn needed_opset(&self, bits: u32) -> i64 {
        // `BitShift`, and `Slice` with inputs.
        if bits == 4 || self.kind == TableKind::Tied { 11 } else { 7 }
    }

    /// The bits that are possible where `wanted` are asked for.
    pub fn bits(&self, wanted: u32) -> u32 {
        match self.kind {
            TableKind::Whole => WHOLE_BITS,
            TableKind::Experts => wanted.next_power_of_two().clamp(4, 8),
            // Blocks are even.
            TableKind::Tied => wanted,
            TableKind::Embedding if self.dims[1].is_multiple_of(2) && !self.holds_matrices => wanted,
            TableKind::Embedding => WHOLE_BITS,
        }
    }

    /// Whether what is picked are matrices, or arrays of more axes.
    pub fn holds_matrices(&self) -> bool {
        self.holds_matrices
    }

    /// Whether an operator needs all of it.
    pub fn is_whole(&self) -> bool {
        matches!(self.kind, TableKind::Whole | TableKind::Experts)
    }

    /// Whether `node` multiplies with all of it.
    pub fn is_weight_of(&self, node: NodeId) -> bool {
        self.is_whole() && self.readers.contains(&node)
    }

    /// The first node that reads its rows.
    pub fn reader(&self) -> Option<NodeId> {
        self.readers.first().copied()
    }

    /// The initializers that hold its numbers.
    pub fn sources(&self) -> impl Iterator<Item = ValueId> {
        std::iter::once(self.value).chain(self.copies.iter().map(|&(copy, _)| copy))
    }

    /// Numbers as its initializer holds them, row by row.
    pub fn rows<'a>(&self, stored: &'a [f32]) -> Cow<'a, [f32]> {
        let [rows, columns] = self.dims;
        if self.is_turned { Cow::Owned(turned(stored, [columns, rows])) } else { Cow::Borrowed(stored) }
    }

    /// Each of its initializers with the numbers that the codes mean.
    pub fn decoded(&self, graph: &Graph, coded: &CodedTable) -> Result<Vec<(ValueId, TensorProto)>, TensorError> {
        let numbers = coded.decode();
        let own = std::iter::once((self.value, self.is_turned));
        let decoded = |(value, is_turned): (ValueId, bool)| {
            let dims = graph.value(value).constant().map_or(Ok(self.dims.to_vec()), tensor::shape)?;
            let stored = if is_turned { Cow::Owned(turned(&numbers, self.dims)) } else { Cow::Borrowed(&numbers) };
            Ok((value, tensor::from_f32_as(self.dtype, &dims, &stored)))
        };
        own.chain(self.copies.iter().copied()).map(decoded).collect()
    }
}

impl CodedTable {
    /// The numbers that the codes mean.
    pub fn decode(&self) -> Vec<f32> {
        let of_block = |(codes, &scale): (&[i8], &f32)| -> Vec<f32> {
            codes.iter().map(move |&code| scale * f32::from(code)).collect()
        };
        self.blocks().flat_map(of_block).collect()
    }

    /// The codes of every block with its scale.
    fn blocks(&self) -> impl Iterator<Item = (&[i8], &f32)> {
        let rows = self.codes.chunks(self.columns.max(1));
        rows.flat_map(|row| row.chunks(self.block.max(1))).zip(&self.scales)
    }
}

/// A matrix of `rows` and `columns` the other way round.
fn turned(numbers: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| numbers[row * columns + column])).collect()
}
