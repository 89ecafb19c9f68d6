//! Quantizes tables of embeddings and weights that are decoded as a whole, one scale a row, or a block of one where layers read the
//! table too.
//!
//! Scales are those of least squared error over the row or block; no calibration data are needed: a row of a table that is read is
//! read as it is, and what such weights are multiplied with is seen at no place where it could be measured.

use ndarray::{ArrayView2, Axis};
use onnxquant_ir::{Model, tensor};
use onnxquant_passes::tables::CodedTable;
use onnxquant_passes::write_codes::without_mirrored_grids;
use onnxquant_quant::{Granularity, Grid, LayerProblem, Method, QuantError, QuantSpec, ScaleRule, solve};
use rayon::prelude::*;

use crate::config::{Config, Duty};
use crate::error::Error;
use crate::plan::tables::PlannedTable;
use crate::solve::state::State;
use crate::solve::weights::scale_type;
use crate::write::codes::QuantizedTable;

/// Rows that are quantized together.
const ROWS: usize = 4096;

/// Codes of the planned tables, with what they lose. What `state` has is not made again.
pub(crate) fn quantize_tables(
    model: &Model,
    tables: &[PlannedTable],
    state: Option<&State>,
) -> Result<Vec<QuantizedTable>, Error> {
    let of_table = |planned: &PlannedTable| {
        let stored = model.graph().value(planned.table.value).constant();
        let stored = stored.ok_or_else(|| Error::Internal(format!("table `{}` is gone", planned.name)))?;
        let numbers = tensor::to_f32(stored)?;
        let numbers = planned.table.rows(&numbers);
        let make = || quantize_table(planned, &numbers);
        state.map_or_else(make, |state| state.table(planned, &numbers, make))
    };
    tables.iter().map(of_table).collect()
}

/// Whether a process needs the tables, or makes them for others: the networks that are quantized so far read them, and the
/// file that is written.
pub(crate) fn needs_tables(config: &Config) -> bool {
    match &config.shard {
        None => true,
        Some(shard) => match shard.duty() {
            Duty::Calibrate => !config.one_pass,
            Duty::Solve => shard.is_first(),
            Duty::Finish => true,
        },
    }
}

fn quantize_table(planned: &PlannedTable, numbers: &[f32]) -> Result<QuantizedTable, Error> {
    let name = &planned.name;
    let [_, columns] = planned.table.dims;
    if let Some((index, &value)) = numbers.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        return Err(Error::NonFinite { tensor: name.clone(), index: vec![index / columns, index % columns], value });
    }
    let failed = |source: QuantError| Error::Layer { layer: name.clone(), weight: name.clone(), source };
    let spec = spec(planned).map_err(failed)?;
    let block = planned.block.unwrap_or(columns);
    let of_rows = |rows: &[f32]| {
        let rows = ArrayView2::from_shape((rows.len() / columns, columns), rows).expect("a chunk has whole rows");
        let problem = LayerProblem::new(rows.t().insert_axis(Axis(0)), None, spec)?;
        let solution = solve(Method::Msq, &problem)?;
        let solution = without_mirrored_grids(&solution);
        let codes = solution.codes.index_axis(Axis(0), 0).t().iter().map(|&code| code as i8).collect();
        Ok((codes, solution.scales.index_axis(Axis(0), 0).t().iter().copied().collect()))
    };
    let chunks = numbers.par_chunks(ROWS * columns).map(of_rows).collect::<Result<Vec<(Vec<i8>, Vec<f32>)>, _>>();
    let (codes, scales): (Vec<_>, Vec<_>) = chunks.map_err(failed)?.into_iter().unzip();
    let coded = CodedTable { bits: planned.bits, columns, block, codes: codes.concat(), scales: scales.concat() };
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
