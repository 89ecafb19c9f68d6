//! Moments of a part of the pairs of rows: how they are added to those of the parts before, and how they are kept.

use ndarray::{Array1, Array2, ArrayView2, Axis, Slice};
use serde::{Deserialize, Serialize};

use super::{PairedAccumulator, Pairs, Sums, later_rows};
use crate::error::{QuantError, shape_error};
use crate::stats::gram::part::{GramPart, RowsPart, from_upper, upper};

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
    /// The pairs that differ: what was seen, and `D`.
    Rows { seen: RowsPart, change: RowsPart },
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
            let taken = self.make_room(seen.nrows() - done, !seen.is_standard_layout());
            let (from, to) = (Slice::from(done..done + taken), Slice::from(self.filled..self.filled + taken));
            self.seen.slice_axis_mut(Axis(0), to).assign(&seen.slice_axis(Axis(0), from));
            self.change.slice_axis_mut(Axis(0), to).assign(&change.slice_axis(Axis(0), from));
            self.filled += taken;
            done += taken;
            if self.is_full() {
                self.flush();
            }
        }
    }

    fn into_part(mut self) -> PairsPart {
        if self.sums.is_some() {
            self.flush();
        }
        let rows = |buffer: &Array2<f32>| RowsPart::of(buffer, self.filled);
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
                let (seen, filled) = seen.into_buffer(later_rows(k), k)?;
                let (change, others) = change.into_buffer(later_rows(k), k)?;
                if filled != others {
                    return Err(wrong("pairs of a part", others * k));
                }
                pairs = Pairs { seen, change, filled, sums: None };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::gram::GramStats;
    use crate::testing::gaussian_rows;

    fn pair(n: usize, k: usize) -> (Array2<f32>, Array2<f32>) {
        let seen = gaussian_rows(n, k, 1) + 0.3;
        let mut reference = &seen + &(gaussian_rows(n, k, 2) * 0.01);
        // Some rows are the same in both networks.
        (0..n).filter(|i| i % 5 == 0).for_each(|i| reference.row_mut(i).assign(&seen.row(i)));
        (seen, reference)
    }

    fn gathered(seen: ArrayView2<'_, f32>, reference: ArrayView2<'_, f32>) -> PairedAccumulator {
        let mut part = PairedAccumulator::new(seen.ncols()).unwrap();
        part.push(seen, reference).unwrap();
        part
    }

    /// The sum of parts of so many rows; `keep` stands between a part and the sum.
    fn summed(
        (seen, reference): &(Array2<f32>, Array2<f32>),
        rows: usize,
        keep: impl Fn(PairedAccumulator) -> PairedAccumulator,
    ) -> GramStats {
        let mut sum = PairedAccumulator::new(seen.ncols()).unwrap();
        for (seen, reference) in seen.axis_chunks_iter(Axis(0), rows).zip(reference.axis_chunks_iter(Axis(0), rows)) {
            sum.absorb(keep(gathered(seen, reference))).unwrap();
        }
        sum.finish().unwrap()
    }

    fn bits(stats: &GramStats) -> Vec<u64> {
        let drift = stats.drift().unwrap();
        let moved = drift.cross().iter().chain(drift.own()).map(|x| f64::from(*x)).collect::<Vec<_>>();
        let gram = stats.gram().unwrap();
        let all = gram.iter().chain(stats.mean()).chain(&moved).chain(drift.mean()).map(|x| x.to_bits());
        all.collect()
    }

    #[test]
    fn parts_that_were_kept_add_up_to_the_same_bits() {
        for (n, k) in [(40, 3), (700, 9), (2600, 70)] {
            let rows = pair(n, k);
            for part in [1, 100, 130, 600, n] {
                let kept = summed(&rows, part, |part| part.into_part().try_into().unwrap());
                let direct = summed(&rows, part, |part| part);
                assert_eq!(bits(&kept), bits(&direct), "{n} {k} {part}");
                assert_eq!((kept.n_rows(), kept.rows().is_some()), (n, direct.rows().is_some()));
            }
        }
    }

    #[test]
    fn rows_that_lie_by_columns_are_kept_as_they_lie() {
        for (n, k) in [(320, 5), (40, 3), (700, 9)] {
            let columns = |rows: Array2<f32>| {
                let mut columns = Array2::zeros((k, n)).reversed_axes();
                columns.assign(&rows);
                columns
            };
            let (seen, reference) = pair(n, k);
            let rows = (columns(seen), columns(reference));
            for part in [1, 64, 130] {
                let kept = summed(&rows, part, |part| part.into_part().try_into().unwrap());
                let direct = summed(&rows, part, |part| part);
                assert_eq!(bits(&kept), bits(&direct), "{n} {k} {part}");
            }
        }
    }

    #[test]
    fn parts_of_few_rows_give_what_one_accumulator_gives() {
        for (n, k) in [(40, 3), (900, 9), (3000, 70)] {
            let rows = pair(n, k);
            let whole = gathered(rows.0.view(), rows.1.view()).finish().unwrap();
            assert_eq!(bits(&summed(&rows, 100, |part| part)), bits(&whole), "{n} {k}");
        }
    }

    #[test]
    fn parts_of_many_rows_give_nearly_that() {
        let rows = pair(6000, 70);
        let whole = gathered(rows.0.view(), rows.1.view()).finish().unwrap();
        let sum = summed(&rows, 1900, |part| part);
        let difference = &whole.gram().unwrap() - &sum.gram().unwrap();
        assert!(difference.iter().all(|d| d.abs() < 1e-5));
        let difference = &whole.drift().unwrap().cross() - &sum.drift().unwrap().cross();
        assert!(difference.iter().all(|d| d.abs() < 1e-6));
    }

    #[test]
    fn parts_that_do_not_fit_together_are_refused() {
        let (seen, reference) = pair(10, 4);
        let mut part = gathered(seen.view(), reference.view()).into_part();
        part.n_unpaired = 3;
        assert!(PairedAccumulator::try_from(part).is_ok());
        let rows = |n: usize| RowsPart::of(&Array2::zeros((n, 1)), n);
        for wrong in [
            PairsPart::Rows { seen: rows(7), change: rows(7) },
            PairsPart::Sums { cross: vec![0.0; 16], own: vec![0.0; 9], mean: vec![0.0; 4] },
        ] {
            let part = MomentPart { pairs: wrong, ..gathered(seen.view(), reference.view()).into_part() };
            assert!(PairedAccumulator::try_from(part).is_err());
        }
        let other = PairedAccumulator::new(5).unwrap();
        assert!(gathered(seen.view(), reference.view()).absorb(other).is_err());
    }
}
