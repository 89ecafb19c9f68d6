//! Quantizes tables of embeddings, one scale a row.
//!
//! Scales are those of least squared error over the row; no calibration data are needed, because a row that is read is
//! read as it is.

use ndarray::Array3;
use onnxquant_ir::{Graph, Model, tensor};
use onnxquant_passes::embeddings::{CodedTable, Table, find_tables, write_table};
use onnxquant_quant::{Granularity, Grid, LayerProblem, Method, QuantError, QuantSpec, ScaleRule, solve};
use serde::Serialize;

use crate::error::Error;
use crate::solve::scale_type;

/// Rows that are quantized together.
const ROWS: usize = 4096;

/// A table that will be quantized.
#[derive(Clone, Debug)]
pub struct PlannedTable {
    /// Name of the table.
    pub name: String,
    /// Where it is and who reads it.
    pub table: Table,
    /// Bits a code.
    pub bits: u32,
}

/// A quantized table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// Name of the table.
    pub name: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Bits a code.
    pub bits: u32,
    /// Relative error of the table.
    pub error: f64,
    /// Bytes of codes and scales.
    pub bytes: usize,
}

/// The tables of `model` at `bits` bits.
pub(crate) fn plan_tables(model: &Model, bits: Option<u32>) -> Vec<PlannedTable> {
    let graph = model.graph();
    let plan = |table: Table, bits| PlannedTable {
        name: graph.value(table.value).name().to_owned(),
        bits: table.bits(bits),
        table,
    };
    bits.map_or(Vec::new(), |bits| find_tables(graph).into_iter().map(|table| plan(table, bits)).collect())
}

/// Codes of the planned tables, with their names and reports.
pub(crate) fn quantize_tables(model: &Model, tables: &[PlannedTable]) -> Result<Vec<(CodedTable, TableReport)>, Error> {
    tables.iter().map(|planned| quantize_table(model, planned)).collect()
}

fn quantize_table(model: &Model, planned: &PlannedTable) -> Result<(CodedTable, TableReport), Error> {
    let name = &planned.name;
    let stored = model.graph().value(planned.table.value).constant();
    let stored = stored.ok_or_else(|| Error::Internal(format!("table `{name}` is gone")))?;
    let numbers = tensor::to_f32(stored)?;
    let [rows, columns] = planned.table.dims;
    if let Some((index, &value)) = numbers.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        return Err(Error::NonFinite { tensor: name.clone(), index: vec![index / columns, index % columns], value });
    }
    let failed = |source: QuantError| Error::Layer { layer: name.clone(), weight: name.clone(), source };
    let grid = Grid::symmetric(planned.bits).map_err(failed)?;
    let spec = QuantSpec::new(grid, Granularity::Channel, ScaleRule::LeastSquares).map_err(failed)?;
    let spec = spec.with_scale_type(scale_type(planned.table.dtype));
    let mut coded = CodedTable { bits: planned.bits, codes: Vec::new(), scales: Vec::new() };
    for chunk in numbers.chunks(ROWS * columns) {
        let count = chunk.len() / columns;
        let weights = Array3::from_shape_fn((1, columns, count), |(_, column, row)| chunk[row * columns + column]);
        let problem = LayerProblem::new(weights.view(), None, spec).map_err(failed)?;
        let solution = solve(Method::Msq, &problem).map_err(failed)?;
        let codes = (0..count).flat_map(|row| (0..columns).map(move |column| [0, column, row]));
        coded.codes.extend(codes.map(|index| solution.codes[index] as i8));
        coded.scales.extend((0..count).map(|row| solution.scales[[0, 0, row]]));
    }
    let decoded = coded.decode();
    let power = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let signal = power(&mut numbers.iter().copied());
    let noise = power(&mut numbers.iter().zip(&decoded).map(|(a, b)| a - b));
    let error = if noise == 0.0 { 0.0 } else { (noise / signal).sqrt() };
    let report = TableReport { name: name.clone(), shape: [rows, columns], bits: planned.bits, error, bytes: 0 };
    Ok((coded, report))
}

/// Writes the tables into the model for the runtime; returns the bytes of each.
pub(crate) fn write_tables(
    graph: &mut Graph,
    tables: &[(CodedTable, TableReport)],
    planned: &[PlannedTable],
) -> Result<Vec<usize>, Error> {
    let mut bytes = Vec::with_capacity(tables.len());
    for ((coded, _), planned) in tables.iter().zip(planned) {
        // Who reads it may have changed since.
        let found = find_tables(graph).into_iter().find(|table| table.value == planned.table.value);
        let table = found.ok_or_else(|| Error::Internal(format!("table `{}` was lost", planned.name)))?;
        bytes.push(write_table(graph, &table, coded));
    }
    Ok(bytes)
}

/// Puts what the codes mean into the model for the engine.
pub(crate) fn decode_tables(graph: &mut Graph, tables: &[(CodedTable, TableReport)], planned: &[PlannedTable]) {
    for ((coded, report), planned) in tables.iter().zip(planned) {
        let decoded = tensor::from_f32_as(planned.table.dtype, &report.shape, &coded.decode());
        graph.set_tensor(planned.table.value, decoded);
    }
}
