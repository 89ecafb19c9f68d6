//! Moments of a part of the rows: how they are added to those of the parts before, and how they are kept.
//!
//! Rows that still lie in the buffer of their part are pushed, so that parts of few rows give what one accumulator gives
//! that has seen all rows. Of larger parts the sums are added. What is added in one order gives the same bits, whether a
//! part was kept in between or not.

use ndarray::{Array1, Array2, ArrayView2, Axis, Slice};
use serde::{Deserialize, Serialize};

use super::{GramAccumulator, check_rows, make_room};
use crate::error::{QuantError, shape_error};

/// The moments of a part, as they are kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GramPart {
    k: usize,
    n_rows: usize,
    /// The rows themselves, where they fitted the buffer; the sums are empty then.
    rows: Option<RowsPart>,
    /// The upper triangle of `X^T X`, row by row.
    sums: Vec<f64>,
    column_sums: Vec<f64>,
}

/// Rows as they lie in a buffer: for few inputs the last bits of a product depend on that.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowsPart {
    by_columns: bool,
    /// Row by row, whatever the buffer is like.
    elements: Vec<f32>,
}

impl RowsPart {
    /// The first `filled` rows of a buffer.
    pub(crate) fn of(buffer: &Array2<f32>, filled: usize) -> Self {
        let rows = buffer.slice_axis(Axis(0), Slice::from(..filled));
        Self { by_columns: !buffer.is_standard_layout(), elements: rows.iter().copied().collect() }
    }

    /// A buffer, of at most `capacity` rows, that begins with these, and how many they are; empty where there are none.
    pub(crate) fn into_buffer(self, capacity: usize, k: usize) -> Result<(Array2<f32>, usize), QuantError> {
        let (found, n) = (self.elements.len(), self.elements.len() / k);
        let wrong = || shape_error("rows of a part", &[found], format!("at most [{capacity} * {k}]"));
        let rows = Array2::from_shape_vec((n, k), self.elements).map_err(|_| wrong())?;
        if n > capacity {
            return Err(wrong());
        }
        if n == 0 {
            return Ok((Array2::zeros((0, k)), 0));
        }
        check_rows(&rows.view(), k, 0)?;
        let mut buffer = Array2::zeros((0, k));
        make_room(&mut buffer, n, capacity, self.by_columns);
        buffer.slice_axis_mut(Axis(0), Slice::from(..n)).assign(&rows);
        Ok((buffer, n))
    }
}

impl GramAccumulator {
    /// Adds the rows that another accumulator has seen, behind its own.
    pub(crate) fn absorb(&mut self, mut part: GramAccumulator) -> Result<(), QuantError> {
        if part.k != self.k {
            return Err(shape_error("moments of a part", &[part.k], format!("[{}]", self.k)));
        }
        if let Some(rows) = part.buffered() {
            return self.push(rows);
        }
        part.flush();
        self.flush();
        self.n_rows += part.n_rows;
        self.column_sums += &part.column_sums;
        if self.sums.is_empty() {
            // Chunks after the first may be shorter.
            (self.sums, self.buffer) = (part.sums, Array2::zeros((0, self.k)));
        } else {
            self.sums += &part.sums;
        }
        Ok(())
    }

    /// All rows, where they lie in the buffer.
    fn buffered(&self) -> Option<ArrayView2<'_, f32>> {
        (self.n_rows == self.filled).then(|| self.buffer.slice_axis(Axis(0), Slice::from(..self.filled)))
    }

    pub(crate) fn into_part(mut self) -> GramPart {
        let (k, n_rows) = (self.k, self.n_rows);
        let rows = self.buffered().is_some().then(|| RowsPart::of(&self.buffer, self.filled));
        if rows.is_none() {
            self.flush();
        }
        GramPart { k, n_rows, rows, sums: upper(&self.sums), column_sums: self.column_sums.to_vec() }
    }
}

impl TryFrom<GramPart> for GramAccumulator {
    type Error = QuantError;

    fn try_from(part: GramPart) -> Result<Self, QuantError> {
        let GramPart { k, n_rows, rows, sums, column_sums } = part;
        if column_sums.len() != k {
            return Err(shape_error("column sums of a part", &[column_sums.len()], format!("[{k}]")));
        }
        let mut accumulator = Self::new(k)?;
        if let Some(rows) = rows {
            (accumulator.buffer, accumulator.filled) = rows.into_buffer(accumulator.capacity(), k)?;
            accumulator.n_rows = accumulator.filled;
            return Ok(accumulator);
        }
        accumulator.n_rows = n_rows;
        accumulator.sums = from_upper(&sums, k)?;
        accumulator.column_sums = Array1::from(column_sums);
        Ok(accumulator)
    }
}

/// The upper triangle, row by row.
pub(crate) fn upper(square: &Array2<f64>) -> Vec<f64> {
    square.outer_iter().enumerate().flat_map(|(i, row)| row.into_iter().skip(i).copied()).collect()
}

/// A matrix with this upper triangle; the rest is zero.
pub(crate) fn from_upper(triangle: &[f64], k: usize) -> Result<Array2<f64>, QuantError> {
    let elements = k.checked_add(1).and_then(|next| k.checked_mul(next)).map(|twice| twice / 2);
    if elements != Some(triangle.len()) {
        return Err(shape_error("triangle of a part", &[triangle.len()], format!("[{k} * {k} / 2 + {k} / 2]")));
    }
    let mut square = Array2::zeros((k, k));
    let mut rest = triangle;
    for (i, mut row) in square.outer_iter_mut().enumerate() {
        let (own, after) = rest.split_at(k - i);
        row.slice_axis_mut(Axis(0), Slice::from(i..)).assign(&ndarray::aview1(own));
        rest = after;
    }
    Ok(square)
}
