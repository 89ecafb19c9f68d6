//! Quantizes tables of embeddings and weights that are decoded as a whole, one scale a row, or a block of one where layers read the
//! table too.
//!
//! Scales are those of least squared error over the row or block; no calibration data are needed: a row of a table that is read is
//! read as it is, and what such weights are multiplied with is seen at no place where it could be measured.

use ndarray::Array3;
use onnxquant_ir::{Model, tensor};
use onnxquant_passes::tables::CodedTable;
use onnxquant_passes::write_codes::without_mirrored_grids;
use onnxquant_quant::{Granularity, Grid, LayerProblem, Method, QuantError, QuantSpec, ScaleRule, solve};

use crate::error::Error;
use crate::plan::tables::PlannedTable;
use crate::solve::weights::scale_type;
use crate::write::codes::QuantizedTable;

/// Rows that are quantized together.
const ROWS: usize = 4096;

/// Codes of the planned tables, with what they lose.
pub(crate) fn quantize_tables(model: &Model, tables: &[PlannedTable]) -> Result<Vec<QuantizedTable>, Error> {
    tables.iter().map(|planned| quantize_table(model, planned)).collect()
}

fn quantize_table(model: &Model, planned: &PlannedTable) -> Result<QuantizedTable, Error> {
    let name = &planned.name;
    let stored = model.graph().value(planned.table.value).constant();
    let stored = stored.ok_or_else(|| Error::Internal(format!("table `{name}` is gone")))?;
    let numbers = tensor::to_f32(stored)?;
    let numbers = planned.table.rows(&numbers);
    let [_, columns] = planned.table.dims;
    if let Some((index, &value)) = numbers.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        return Err(Error::NonFinite { tensor: name.clone(), index: vec![index / columns, index % columns], value });
    }
    let failed = |source: QuantError| Error::Layer { layer: name.clone(), weight: name.clone(), source };
    let spec = spec(planned).map_err(failed)?;
    let block = planned.block.unwrap_or(columns);
    let mut coded = CodedTable { bits: planned.bits, columns, block, codes: Vec::new(), scales: Vec::new() };
    for chunk in numbers.chunks(ROWS * columns) {
        let count = chunk.len() / columns;
        let weights = Array3::from_shape_fn((1, columns, count), |(_, column, row)| chunk[row * columns + column]);
        let problem = LayerProblem::new(weights.view(), None, spec).map_err(failed)?;
        let solution = solve(Method::Msq, &problem).map_err(failed)?;
        let solution = without_mirrored_grids(&solution);
        let blocks = solution.scales.dim().1;
        let codes = (0..count).flat_map(|row| (0..columns).map(move |column| [0, column, row]));
        coded.codes.extend(codes.map(|index| solution.codes[index] as i8));
        let scales = (0..count).flat_map(|row| (0..blocks).map(move |block| [0, block, row]));
        coded.scales.extend(scales.map(|index| solution.scales[index]));
    }
    let decoded = coded.decode();
    let power = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let signal = power(&mut numbers.iter().copied());
    let noise = power(&mut numbers.iter().zip(&decoded).map(|(a, b)| a - b));
    let error = if noise == 0.0 { 0.0 } else { (noise / signal).sqrt() };
    Ok(QuantizedTable { coded, error })
}

/// The codes of a table. `MatMulNBits` takes scales of either sign, so that 4 bits can have all their levels.
fn spec(planned: &PlannedTable) -> Result<QuantSpec, QuantError> {
    let (grid, granularity) = match (planned.block, planned.bits) {
        (Some(block), 4) => (Grid::mirrored(4)?, Granularity::Block(block)),
        (Some(block), bits) => (Grid::symmetric(bits)?, Granularity::Block(block)),
        (None, bits) => (Grid::symmetric(bits)?, Granularity::Channel),
    };
    let spec = QuantSpec::new(grid, granularity, ScaleRule::LeastSquares)?;
    Ok(spec.with_scale_type(scale_type(planned.table.dtype)))
}
