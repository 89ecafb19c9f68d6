//! Stores tables of embeddings, and weights that no layer reads by columns, as codes.
//!
//! # Problem
//!
//! A `Gather` picks rows of a constant table. A `DequantizeLinear` in front of it would decode the whole table at every
//! run. An `LSTM`, `GRU` or `RNN` reads all of its weights at every step, and the runtime packs them when it loads the
//! model, as long as they are constants then; so it is with products of several matrices (`MatMul` of three axes and more, a
//! constant on the left, `Einsum`), the packed weight of `Attention` and the experts of `MoE`. The head of a language model multiplies with the table of its words.
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
//! A table of matrices, such as those of experts, has scales by row of these.
//!
//! Weights of such operators are decoded as a whole, by operators that the runtime computes once, when it loads the model:
//!
//! ```text
//! Cast(codes) -> Mul(scales)      codes [directions, gates * hidden, inputs], scales [directions, gates * hidden, 1]
//! ```
//!
//! Compilers for accelerators want a `DequantizeLinear`, along axis 0 of a table of 8 bits that a Gather reads; they decode it
//! once themselves ([`TableForm::Dequantize`]).
//!
//! Experts of which every weight can be codes become `QMoE`: see `experts`.
//!
//! They take 8 bits: errors of the weights that read a state come back with every step.
//!
//! A table that MatMul or Gemm layers read too has scales in blocks along its rows, and lies in the file once, as the
//! weight of `MatMulNBits`: see `tied`.
//!
//! Not quantized: tables that other operators read, of other types than f32 and f16 (f32 where layers read
//! them), that are graph outputs, read by subgraphs or can be overridden, and small ones. Rows of an odd number of columns
//! take 8 bits.
//!
//! # Cost
//!
//! For each row that is read one multiplication a column.

mod experts;
mod rows;
mod table;
mod tied;

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId, Origin, TensorError, Use, ValueId, int_attribute, tensor};

use crate::layers::is_read_whole;
pub use experts::EXPERT_BLOCK;
pub use table::{CodedTable, Table, TableKind};

use rows::Writer;
use tied::find_tied;

/// Smaller tables save less than the operators take.
const MIN_ELEMENTS: usize = 4096;

/// What decodes a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableForm {
    /// `Cast` and `Mul` behind each Gather, or before a recurrent layer: made for ONNX Runtime on a CPU.
    Rows,
    /// A `DequantizeLinear` of the whole table: for tables of 8 bits that Gathers read.
    Dequantize,
}

/// Every table of the main graph, in the order of initializers.
pub fn find_tables(graph: &Graph) -> Vec<Table> {
    graph.initializers().iter().filter_map(|&value| find_table(graph, value)).collect()
}

/// The table in this initializer, if it is one.
pub fn find_table(graph: &Graph, value: ValueId) -> Option<Table> {
    let found = graph.value(value);
    let constant = found.constant().filter(|_| found.origin() == Origin::Constant)?;
    let is_large = tensor::element_count(constant).is_ok_and(|count| count >= MIN_ELEMENTS);
    if !is_large {
        return None;
    }
    let dtype = tensor::data_type(constant).ok()?;
    let Some(kinds) =
        found.uses().iter().map(|user| reads(graph, user, constant.dims.len())).collect::<Option<Vec<_>>>()
    else {
        return find_tied(graph, value);
    };
    let &kind = kinds.first().filter(|first| kinds.iter().all(|kind| kind == *first))?;
    let dims = match (kind, &tensor::shape(constant).ok()?[..]) {
        (TableKind::Embedding, &[rows, columns]) => [rows, columns],
        (TableKind::Whole, &[_, .., columns]) => [tensor::element_count(constant).ok()?.checked_div(columns)?, columns],
        (TableKind::Embedding, &[_, .., columns]) if picks_first(graph, found.uses()) => {
            [tensor::element_count(constant).ok()?.checked_div(columns)?, columns]
        }
        _ => return None,
    };
    // Of f16 the runtime has no such operators on a CPU.
    let is_known = dtype == DataType::Float || (dtype == DataType::Float16 && kind == TableKind::Embedding);
    let is_reader =
        |node: &NodeId| found.uses().iter().any(|user| matches!(user, Use::Input(reader, _) if reader == node));
    let readers = graph.order().iter().copied().filter(is_reader).collect();
    let (heads, copies) = (Vec::new(), Vec::new());
    let holds_matrices = kind == TableKind::Embedding && constant.dims.len() > 2;
    let is_turned = false;
    is_known.then_some(Table { value, kind, dims, dtype, heads, readers, holds_matrices, is_turned, copies })
}

/// How a table of so many axes is read there, if it is one.
fn reads(graph: &Graph, user: &Use, axes: usize) -> Option<TableKind> {
    let &Use::Input(node, slot) = user else { return None };
    let reader = graph.node(node);
    match slot {
        0 if rows::reads_rows(reader) => Some(TableKind::Embedding),
        _ => is_read_whole(reader, slot, axes).then_some(TableKind::Whole),
    }
}

/// Whether all readers are Gathers that pick along the first axis.
fn picks_first(graph: &Graph, users: &[Use]) -> bool {
    let picks = |user: &Use| matches!(user, Use::Input(node, _) if graph.node(*node).int("axis", 0) == 0);
    users.iter().all(picks)
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
    let is_plain = coded.bits == 8 && table.kind == TableKind::Embedding;
    if form == TableForm::Dequantize && !is_plain {
        let problem = "is no table of 8 bits that a Gather reads, as a DequantizeLinear takes it".to_owned();
        return Err(TensorError { tensor: name, problem });
    }
    let [codes, scales] = match table.kind {
        TableKind::Tied => tied::constants(table, coded),
        TableKind::Experts => experts::constants(graph, table, coded)?,
        _ => constants(graph, table, coded, form)?,
    };
    // Several of int8 are explicit, as those of layers are.
    let zeros = || tensor::from_codes(DataType::Int8, &table.dims[..1], std::iter::repeat_n(0, table.dims[0]));
    let zero_points = (form == TableForm::Dequantize).then(zeros);
    let held = [Some(&codes), Some(&scales), zero_points.as_ref()].into_iter().flatten();
    let bytes = held.filter_map(|tensor| tensor.raw_data.as_ref()).map(bytes::Bytes::len).sum();
    let zero_points = zero_points.map(|tensor| graph.add_constant(&format!("{name}_zero_point"), tensor));
    let codes = graph.add_constant(&format!("{name}_quantized"), codes);
    let scales = graph.add_constant(&format!("{name}_scale"), scales);
    match table.kind {
        TableKind::Embedding => match zero_points {
            Some(zero_points) => dequantize(graph, table, [codes, scales, zero_points], &name),
            None => rows::decode_rows(graph, table, coded.bits, [codes, scales], &name),
        },
        TableKind::Tied => tied::decode(graph, table, coded, [codes, scales], &name),
        TableKind::Experts => experts::decode(graph, table, coded.bits, [codes, scales]),
        TableKind::Whole => decode_whole(graph, table, [codes, scales], &name),
    }
    table.sources().for_each(|source| graph.remove_if_unused(source));
    Ok(bytes)
}

/// Codes, and scales of one a row.
fn constants(
    graph: &Graph,
    table: &Table,
    coded: &CodedTable,
    form: TableForm,
) -> Result<[TensorProto; 2], TensorError> {
    let [rows, columns] = table.dims;
    let shape = graph.value(table.value).constant().map_or(Ok(table.dims.to_vec()), tensor::shape)?;
    let codes = match coded.bits {
        4 => tensor::from_raw(DataType::Uint8, &[rows, columns / 2], rows::pairs(coded)),
        _ => tensor::from_codes(DataType::Int8, &shape, coded.codes.iter().map(|&code| i16::from(code))),
    };
    let of_rows = match form {
        TableForm::Rows => [&shape[..shape.len().saturating_sub(1)], &[1]].concat(),
        TableForm::Dequantize => vec![rows],
    };
    Ok([codes, tensor::from_f32_as(table.dtype, &of_rows, &coded.scales)])
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
fn dequantize(graph: &mut Graph, table: &Table, coded: [ValueId; 3], name: &str) {
    let Some(before) = table.reader() else { return };
    let mut writer = Writer { graph, before, name };
    let by_row = vec![int_attribute("axis", 0)];
    let decoded = writer.insert("DequantizeLinear", &coded, "dequantized", by_row);
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

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
