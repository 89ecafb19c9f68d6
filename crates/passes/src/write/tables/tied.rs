//! A table whose rows are also the weights of layers: the words of a language model, and its head.
//!
//! # Problem
//!
//! A `Gather` and a MatMul or Gemm read one matrix, in one of these forms:
//!
//! ```text
//! Gather(table)                MatMul(x, Transpose(table)), Gemm(x, table, transB = 1)
//! Gather(Transpose(weight))    MatMul(x, weight)
//! Gather(table)                MatMul(x, weight), weight another initializer: the table transposed by an exporter
//! ```
//!
//! Two sets of codes would take the file twice, and more accuracy: one of 8 bits for both is smaller than two of 8 and 4.
//!
//! # Shapes and units
//!
//! Of a table `[V, H]`, in `n = ceil(H / block)` blocks, the initializers are those of `MatMulNBits`: codes uint8
//! `[V, n, block * bits / 8]`, low nibble first, with `2^(bits - 1)` for 0, and scales `[V, n]`.
//!
//! # Method
//!
//! Every layer becomes a `MatMulNBits` of them. Every `Gather` picks rows of the same two:
//!
//! ```text
//! 8 bits   Gather(codes) -> Cast -> Sub(128) -> Mul(Reshape(Gather(scales))) -> Reshape [-> Slice]
//! 4 bits   Gather(codes) -> Reshape -> BitShift -> Concat -> Reshape -> Cast -> Sub(8) -> Mul(...) -> Reshape [-> Slice]
//! ```
//!
//! The shapes are those of the indices with two more dimensions, so that indices may have any rank. `Slice` drops what fills
//! the last block. That is standard ONNX: any version of the runtime computes it that has `MatMulNBits` of these bits.
//!
//! # Cost
//!
//! For each row that is read a subtraction and a multiplication a column. In memory the codes lie twice, as they are and as
//! the kernel packs them.
//!
//! # Failure
//!
//! Not tied: layers whose outputs are the columns of the table, transposed parts or casts of it, weights of which one
//! reader is something else.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId, Origin, Use, ValueId, int_attribute, tensor};
use onnxquant_quant::MatrixView;

use super::rows::{Writer, reads_rows};
use super::table::{CodedTable, Table, TableKind};
use crate::find::sites::{Site, is_layer, site};
use crate::graph::constant_chain::{is_turned, readers};
use crate::write::write_nbits::{become_nbits, packed};

/// Who reads a matrix.
#[derive(Default)]
struct Found {
    /// With each, whether it reads the matrix of the initializer the other way round.
    gathers: Vec<(NodeId, bool)>,
    heads: Vec<(Site, bool)>,
}

impl Found {
    /// The readers of an initializer of f32; `None` where there are others than these.
    fn readers(graph: &Graph, value: ValueId) -> Option<Self> {
        let constant = graph.value(value).constant().filter(|_| graph.value(value).origin() == Origin::Constant)?;
        if tensor::data_type(constant).ok()? != DataType::Float {
            return None;
        }
        let mut found = Self::default();
        for (read, user) in readers(graph, value) {
            let Use::Input(node, slot) = user else { return None };
            let (reader, turned) = (graph.node(node), is_turned(graph, read)?);
            match slot {
                0 if reads_rows(reader) => found.gathers.push((node, turned)),
                1 if is_layer(reader) => found.heads.push((site(graph, node, reader).ok()?, turned)),
                _ => return None,
            }
        }
        Some(found)
    }

    /// The layers in the order in which they run, where the outputs of each are the rows of a table that lies in the
    /// initializer like this.
    fn heads(self, graph: &Graph, rows_turned: bool) -> Option<Vec<Site>> {
        let is_head = |(site, turned): &(Site, bool)| match site.view {
            MatrixView::Dense { transposed, .. } => transposed == (*turned == rows_turned),
            _ => false,
        };
        if !self.heads.iter().all(is_head) {
            return None;
        }
        let mut heads: Vec<Site> = self.heads.into_iter().map(|(site, _)| site).collect();
        heads.sort_by_key(|site| place(graph, site.node));
        Some(heads)
    }
}

/// The table in this initializer, which Gathers and layers read.
pub(super) fn find_tied(graph: &Graph, value: ValueId) -> Option<Table> {
    let found = Found::readers(graph, value)?;
    let &(_, rows_turned) = found.gathers.first()?;
    if found.heads.is_empty() || found.gathers.iter().any(|&(_, turned)| turned != rows_turned) {
        return None;
    }
    let &[first, second] = &tensor::shape(graph.value(value).constant()?).ok()?[..] else { return None };
    let dims = if rows_turned { [second, first] } else { [first, second] };
    let mut readers: Vec<NodeId> = found.gathers.iter().map(|&(node, _)| node).collect();
    readers.sort_by_key(|&node| place(graph, node));
    let heads = found.heads(graph, rows_turned)?;
    let (kind, dtype, copies) = (TableKind::Tied, DataType::Float, Vec::new());
    Some(Table { value, kind, dims, dtype, heads, readers, holds_matrices: false, is_turned: rows_turned, copies })
}

/// Where a node stands.
fn place(graph: &Graph, node: NodeId) -> Option<usize> {
    graph.order().iter().position(|&id| id == node)
}

impl Table {
    /// The same with the layers whose weights are copies of it, in initializers of their own.
    pub fn with_copies(mut self, graph: &Graph) -> Self {
        if self.is_whole() || self.dtype != DataType::Float {
            return self;
        }
        for &other in graph.initializers().iter().filter(|&&other| other != self.value) {
            let Some(is_turned) = self.copied(graph, other) else { continue };
            let heads = Found::readers(graph, other).filter(|found| found.gathers.is_empty());
            let Some(heads) = heads.and_then(|found| found.heads(graph, is_turned)) else { continue };
            if !heads.is_empty() {
                self.heads.extend(heads);
                self.copies.push((other, is_turned));
                self.kind = TableKind::Tied;
            }
        }
        self.heads.sort_by_key(|site| place(graph, site.node));
        self
    }

    /// Whether `other` holds the same numbers, and whether columns as rows.
    fn copied(&self, graph: &Graph, other: ValueId) -> Option<bool> {
        let own = graph.value(self.value).constant()?;
        let other = graph.value(other).constant().filter(|other| other.data_type() == own.data_type())?;
        let [own_dims, other_dims] = [tensor::shape(own).ok()?, tensor::shape(other).ok()?];
        let is_other_way = other_dims.iter().rev().eq(&own_dims);
        if other_dims != own_dims && !is_other_way {
            return None;
        }
        let (own, other) = (tensor::to_raw(own).ok()?, tensor::to_raw(other).ok()?);
        if own == other && other_dims == own_dims {
            return Some(self.is_turned);
        }
        let &[rows, columns] = &own_dims[..] else { return None };
        let (own, other) = (own.as_chunks::<4>().0, other.as_chunks::<4>().0);
        let is_same = |row: usize, column: usize| {
            let (a, b) = (own.get(row * columns + column), other.get(column * rows + row));
            a.is_some() && a == b
        };
        let is_turned = is_other_way && (0..rows).all(|row| (0..columns).all(|column| is_same(row, column)));
        is_turned.then_some(!self.is_turned)
    }
}

/// Codes and scales as `MatMulNBits` has them.
pub(super) fn constants(table: &Table, coded: &CodedTable) -> [TensorProto; 2] {
    let ([rows, columns], block) = (table.dims, coded.block);
    let count = columns.div_ceil(block);
    let zero = 1 << (coded.bits - 1);
    let code = |row: &[i8], column: usize| (zero + row.get(column).map_or(0, |&code| i16::from(code))) as u8;
    let of_row = |row| (0..count * block).map(move |column| code(row, column));
    let codes = packed(coded.bits, coded.codes.chunks(columns).flat_map(of_row));
    let codes = tensor::from_raw(DataType::Uint8, &[rows, count, block * coded.bits as usize / 8], codes);
    [codes, tensor::from_f32(&[rows, count], &coded.scales)]
}

/// Makes every reader of the table one of its codes and scales.
pub(super) fn decode(graph: &mut Graph, table: &Table, coded: &CodedTable, [codes, scales]: [ValueId; 2], name: &str) {
    for head in &table.heads {
        become_nbits(graph, head, (coded.bits, coded.block), [Some(codes), Some(scales), None]);
    }
    for &reader in &table.readers {
        let read = graph.node(reader).input(0);
        Rows { writer: Writer { graph, before: reader, name }, bits: coded.bits, block: coded.block }
            .decode(table.dims[1], [codes, scales]);
        read.into_iter().for_each(|value| graph.remove_if_unused(value));
    }
}

/// Writes what decodes the rows that a `Gather` reads.
struct Rows<'a> {
    writer: Writer<'a>,
    bits: u32,
    block: usize,
}

impl Rows<'_> {
    /// Makes the `Gather` the last of these operators.
    fn decode(&mut self, columns: usize, [codes, scales]: [ValueId; 2]) {
        let count = columns.div_ceil(self.block);
        let gathered = self.writer.gather(codes, "rows");
        let indices = self.writer.indices();
        let outer = self.writer.insert("Shape", &[indices], "row_places", vec![]);
        let codes = self.unpacked(gathered, outer, count);
        let real = self.writer.cast(codes, DataType::Float);
        let steps = self.writer.minus(real, DataType::Float, (1u32 << (self.bits - 1)) as f32);
        let scale = self.writer.gather(scales, "row_scales");
        let scale = self.reshape(scale, outer, &[count, 1], "row_scale");
        let blocks = self.writer.insert("Mul", &[steps, scale], "row_blocks", vec![]);
        let filled = count * self.block;
        if filled == columns {
            let shape = self.shape(outer, &[columns]);
            self.writer.become_last("Reshape", &[blocks, shape]);
        } else {
            let rows = self.reshape(blocks, outer, &[filled], "filled_rows");
            let numbers = [("start", 0), ("end", size(columns)), ("axis", -1)];
            let [start, end, axis] = numbers.map(|(what, number)| self.writer.numbers(what, &[number]));
            self.writer.become_last("Slice", &[rows, start, end, axis]);
        }
    }

    /// One code an element, `[..., blocks, block]`.
    fn unpacked(&mut self, gathered: ValueId, outer: ValueId, count: usize) -> ValueId {
        if self.bits != 4 {
            return gathered;
        }
        let bytes = self.reshape(gathered, outer, &[count * self.block / 2, 1], "row_bytes");
        let pairs = self.writer.halves(bytes);
        self.reshape(pairs, outer, &[count, self.block], "row_fields")
    }

    /// The shape of the indices, and these dimensions.
    fn shape(&mut self, outer: ValueId, inner: &[usize]) -> ValueId {
        let inner: Vec<i64> = inner.iter().map(|&dim| size(dim)).collect();
        let inner = self.writer.numbers("row_dims", &inner);
        self.writer.insert("Concat", &[outer, inner], "row_shape", vec![int_attribute("axis", 0)])
    }

    fn reshape(&mut self, value: ValueId, outer: ValueId, inner: &[usize], what: &str) -> ValueId {
        let shape = self.shape(outer, inner);
        self.writer.insert("Reshape", &[value, shape], what, vec![])
    }
}

fn size(dim: usize) -> i64 {
    i64::try_from(dim).expect("a dimension of data in memory fits 63 bits")
}
