//! Moments of a part of the pairs of rows: how they are added to those of the parts before, and how they are kept.

use ndarray::{Array1, Array2, ArrayView2, Axis, ShapeBuilder, Slice};
use serde::{Deserialize, Serialize};

use super::{PairedAccumulator, Pairs, Sums, later_rows};
use crate::error::{QuantError, shape_error};
use crate::stats::gram::part::{GramPart, from_upper, upper};

/// What a [`PairedAccumulator`] has seen of a part of the rows, as it is kept.
///
/// [`PairedAccumulator::absorb`] adds it up with other parts. The numbers are those that were gathered, bit by bit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MomentPart {
    seen: GramPart,
    pairs: PairsPart,
    n_unpaired: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum PairsPart {
    /// The pairs that differ, row by row: what was seen, and `D`.
    Rows { seen: Vec<f32>, change: Vec<f32> },
    /// `n B`, the upper triangle of `n S`, and the sum of `D`.
    Sums { cross: Vec<f64>, own: Vec<f64>, mean: Vec<f64> },
}

impl PairedAccumulator {
    /// Adds what another accumulator has seen, behind what this one has.
    ///
    /// Parts that are added in one order give the same bits, whether they were kept ([`PairedAccumulator::into_part`]) in
    /// between or not.
    pub fn absorb(&mut self, part: PairedAccumulator) -> Result<(), QuantError> {
        self.seen.absorb(part.seen)?;
        self.pairs.absorb(part.pairs);
        self.n_unpaired += part.n_unpaired;
        Ok(())
    }

    /// What it has seen, to be kept.
    pub fn into_part(self) -> MomentPart {
        MomentPart { seen: self.seen.into_part(), pairs: self.pairs.into_part(), n_unpaired: self.n_unpaired }
    }
}

impl TryFrom<MomentPart> for PairedAccumulator {
    type Error = QuantError;

    fn try_from(part: MomentPart) -> Result<Self, QuantError> {
        let seen = crate::stats::gram::GramAccumulator::try_from(part.seen)?;
        let pairs = Pairs::from_part(part.pairs, seen.k())?;
        Ok(Self { seen, pairs, n_unpaired: part.n_unpaired })
    }
}

impl Pairs {
    fn absorb(&mut self, mut part: Pairs) {
        if part.sums.is_none() {
            let rows = Slice::from(..part.filled);
            return self.append(part.seen.slice_axis(Axis(0), rows), part.change.slice_axis(Axis(0), rows));
        }
        part.flush();
        self.flush();
        match (&mut self.sums, part.sums) {
            (Some(sums), Some(others)) => {
                sums.cross += &others.cross;
                sums.own += &others.own;
                sums.mean += &others.mean;
            }
            (sums, others) => *sums = others,
        }
    }

    /// Takes in pairs by what was seen and by their difference.
    fn append(&mut self, seen: ArrayView2<'_, f32>, change: ArrayView2<'_, f32>) {
        let mut done = 0;
        while done < seen.nrows() {
            if self.change.nrows() == 0 {
                let shape = (later_rows(seen.ncols()), seen.ncols()).set_f(!seen.is_standard_layout());
                (self.seen, self.change) = (Array2::zeros(shape), Array2::zeros(shape));
            }
            let taken = (seen.nrows() - done).min(self.change.nrows() - self.filled);
            let (from, to) = (Slice::from(done..done + taken), Slice::from(self.filled..self.filled + taken));
            self.seen.slice_axis_mut(Axis(0), to).assign(&seen.slice_axis(Axis(0), from));
            self.change.slice_axis_mut(Axis(0), to).assign(&change.slice_axis(Axis(0), from));
            self.filled += taken;
            done += taken;
            if self.filled == self.change.nrows() {
                self.flush();
            }
        }
    }

    fn into_part(mut self) -> PairsPart {
        if self.sums.is_some() {
            self.flush();
        }
        let rows = |all: &Array2<f32>| all.slice_axis(Axis(0), Slice::from(..self.filled)).iter().copied().collect();
        match &self.sums {
            None => PairsPart::Rows { seen: rows(&self.seen), change: rows(&self.change) },
            Some(Sums { cross, own, mean }) => {
                PairsPart::Sums { cross: cross.iter().copied().collect(), own: upper(own), mean: mean.to_vec() }
            }
        }
    }

    fn from_part(part: PairsPart, k: usize) -> Result<Self, QuantError> {
        let empty = Array2::zeros((0, k));
        let mut pairs = Pairs { seen: empty.clone(), change: empty, filled: 0, sums: None };
        let wrong = |what, found: usize| shape_error(what, &[found], format!("a multiple of {k} that fits the others"));
        match part {
            PairsPart::Rows { seen, change } => {
                let (found, n) = (seen.len(), seen.len() / k);
                let rows =
                    |all: Vec<f32>| Array2::from_shape_vec((n, k), all).map_err(|_| wrong("pairs of a part", found));
                pairs.append(rows(seen)?.view(), rows(change)?.view());
            }
            PairsPart::Sums { cross, own, mean } => {
                let found = cross.len();
                let cross = Array2::from_shape_vec((k, k), cross).map_err(|_| wrong("products of a part", found))?;
                if mean.len() != k {
                    return Err(wrong("sums of a part", mean.len()));
                }
                pairs.sums = Some(Sums { cross, own: from_upper(&own, k)?, mean: Array1::from(mean) });
            }
        }
        Ok(pairs)
    }
}
