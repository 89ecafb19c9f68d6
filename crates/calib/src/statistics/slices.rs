//! Parts of an output that are judged apart.
//!
//! # Problem
//!
//! An output may hold numbers of different scales, such as boxes in pixels beside scores between 0 and 1. An error that
//! is pooled over all of them tells of the large ones alone: the small ones may be lost and nobody sees it.
//!
//! # Method
//!
//! The axis and the parts along it come from the float network:
//!
//! - Where a Concat makes the output, its pieces are the parts ([`Slicing::Pieces`]).
//! - Else, and along the other axes, magnitudes tell ([`Slicing::ByMagnitude`]). Of every index the largest magnitude in a
//!   sample is found. Indices fall into large ones and small ones where the large ones are usually (in the geometric mean
//!   over samples) more than [`GAP`] times what the small ones ever reach. Along the axis with the widest such gap the
//!   output is divided. So a class that is rarely seen is no part of its own: those beside it are small at times, too.
//!   Where an index has fewer than [`MANY_VALUES`] values the gap must be wider by as much: a few values of one
//!   distribution may all be small by chance.
//!
//! # Cost
//!
//! Six numbers for every index of every axis that is looked at, and a pass over the output for each such axis.

use std::fmt;
use std::ops::Range;

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::measurement::sqnr_db;
use super::spread::Powers;

/// Indices are judged apart where their magnitudes differ by more than this: pooled, an error that drowns the small ones
/// would not show within 20 dB.
const GAP: f64 = 10.0;
/// Values of an index from which its magnitude can be told.
const MANY_VALUES: f64 = 8.0;
/// Ranges of indices that are spelled out.
const RANGES_SHOWN: usize = 3;

/// Which parts of an output are judged apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slicing {
    /// None: all of it has one scale by its nature, as probabilities have.
    Whole,
    /// Indices of different magnitudes along one axis, as the float output tells.
    #[default]
    ByMagnitude,
    /// Pieces of these sizes along this axis.
    Pieces {
        /// The axis.
        axis: usize,
        /// How many indices each piece has.
        sizes: Vec<usize>,
        /// Whether magnitudes are looked at along the other axes.
        by_magnitude: bool,
    },
}

/// Indices along an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    axis: usize,
    /// In order, apart from each other.
    ranges: Vec<Range<usize>>,
}

impl fmt::Display for Slice {
    /// As NumPy has it: `[:, 4:14]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> =
            self.ranges.iter().take(RANGES_SHOWN).map(|range| format!("{}:{}", range.start, range.end)).collect();
        let more = self.ranges.len().saturating_sub(RANGES_SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        write!(f, "[{}{}{more}]", ":, ".repeat(self.axis), ranges.join(" and "))
    }
}

/// How a part of an output differs, over all samples.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceError {
    /// Which part.
    pub slice: Slice,
    /// Sum of the squares of the float values.
    pub signal_power: f64,
    /// Sum of the squared differences.
    pub error_power: f64,
    /// Cosine of the angle between both, over all samples together.
    pub cosine: f64,
    /// The standard error of the ratio of both powers, as a part of it. Nothing where it is not known: of indices that
    /// are told apart by magnitudes in the end.
    pub spread: Option<f64>,
}

impl SliceError {
    /// Signal-to-quantization-noise ratio in dB: infinite if nothing differs.
    pub fn sqnr_db(&self) -> f64 {
        sqnr_db(self.signal_power, self.error_power)
    }
}

/// What is gathered of one output to divide it in the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sums {
    slicing: Slicing,
    /// By axis; none for those that are not looked at or whose extent varies.
    axes: Option<Vec<Option<Vec<Index>>>>,
    /// By piece.
    pieces: Vec<Powers>,
}

/// Of one index along an axis.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Index {
    values: usize,
    signal: f64,
    other: f64,
    product: f64,
    error: f64,
    /// The largest magnitude of all samples.
    peak: f64,
    /// Sum of the logarithms of the largest magnitude of each sample.
    log_peaks: f64,
    /// In the sample that is taken in.
    #[serde(skip)]
    sample: Sample,
}

/// Of one index in one sample.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    signal: f64,
    error: f64,
    /// The largest magnitude.
    peak: f64,
}

impl Sums {
    pub(crate) fn new(slicing: Slicing) -> Self {
        Self { slicing, axes: None, pieces: Vec::new() }
    }

    /// Adds a sample: the float output and the other one, of the same shape.
    pub(crate) fn take_in(&mut self, float: &ArrayD<f64>, other: &ArrayD<f64>) {
        if self.slicing == Slicing::Whole || float.is_empty() {
            return;
        }
        let (float, other) = (float.as_standard_layout(), other.as_standard_layout());
        let (Some(values), Some(others)) = (float.as_slice(), other.as_slice()) else { return };
        let shape = float.shape();
        let slicing = &self.slicing;
        let axes = self.axes.get_or_insert_with(|| {
            let start = |(axis, &extent): (usize, &usize)| {
                slicing.looks_at(axis, extent).then(|| vec![Index::default(); extent])
            };
            shape.iter().enumerate().map(start).collect()
        });
        if axes.len() != shape.len() {
            axes.clear();
        }
        for (axis, place) in axes.iter_mut().enumerate() {
            let Some(sums) = place else { continue };
            if sums.len() != shape[axis] {
                *place = None;
                continue;
            }
            add(sums, values, others, shape[axis + 1..].iter().product());
            if let Slicing::Pieces { axis: along, sizes, .. } = slicing
                && *along == axis
            {
                take_in_pieces(&mut self.pieces, sizes, sums);
            }
        }
    }

    /// Adds what was gathered of other samples.
    pub(crate) fn add(&mut self, part: Self) {
        self.pieces.resize_with(self.pieces.len().max(part.pieces.len()), Powers::default);
        self.pieces.iter_mut().zip(part.pieces).for_each(|(piece, part)| piece.add(part));
        let Some(axes) = &mut self.axes else {
            self.axes = part.axes;
            return;
        };
        let Some(others) = part.axes else { return };
        if axes.len() != others.len() {
            axes.clear();
        }
        for (place, other) in axes.iter_mut().zip(others) {
            match (place.as_mut(), other) {
                (Some(sums), Some(others)) if sums.len() == others.len() => {
                    sums.iter_mut().zip(others).for_each(|(sum, other)| sum.add(other));
                }
                _ => *place = None,
            }
        }
    }

    /// The parts, of `samples` that were taken in.
    pub(crate) fn finish(self, samples: usize) -> Vec<SliceError> {
        let axes = self.axes.unwrap_or_default();
        let mut found = Vec::new();
        let mut pieces_along = None;
        if let Slicing::Pieces { axis, sizes, .. } = &self.slicing {
            pieces_along = Some(*axis);
            if let Some(Some(sums)) = axes.get(*axis) {
                let ranges = pieces(sizes, sums.len()).zip(&self.pieces);
                found.extend(ranges.map(|(range, powers)| SliceError {
                    spread: powers.spread(),
                    ..error_of(*axis, vec![range], sums)
                }));
            }
        }
        let others = axes.iter().enumerate().filter(|(axis, _)| Some(*axis) != pieces_along);
        let gaps = others.filter_map(|(axis, sums)| Some((axis, sums.as_deref()?, gap(sums.as_deref()?, samples)?)));
        // The first of equals.
        let widest = gaps.reduce(|a, b| if b.2.width > a.2.width { b } else { a });
        if let Some((axis, sums, gap)) = widest {
            let [small, large] = gap.sides(sums);
            found.extend([small, large].into_iter().map(|ranges| error_of(axis, ranges, sums)));
        }
        // Of what is zero nothing can be told.
        found.retain(|part| part.signal_power > 0.0);
        found
    }
}

impl Index {
    fn add(&mut self, part: Self) {
        self.values += part.values;
        self.signal += part.signal;
        self.other += part.other;
        self.product += part.product;
        self.error += part.error;
        self.peak = self.peak.max(part.peak);
        self.log_peaks += part.log_peaks;
    }
}

impl Slicing {
    fn looks_at(&self, axis: usize, extent: usize) -> bool {
        match self {
            Self::Whole => false,
            Self::ByMagnitude => extent > 1,
            Self::Pieces { axis: along, by_magnitude, .. } => extent > 1 && (axis == *along || *by_magnitude),
        }
    }
}

/// Adds values of which `inner` neighbours have one index.
fn add(sums: &mut [Index], values: &[f64], others: &[f64], inner: usize) {
    let inner = inner.max(1);
    sums.iter_mut().for_each(|index| index.sample = Sample::default());
    let runs = values.chunks_exact(inner).zip(others.chunks_exact(inner));
    let mut at = 0;
    for (values, others) in runs {
        let index = &mut sums[at];
        for (&x, &y) in values.iter().zip(others) {
            index.values += 1;
            index.other += y * y;
            index.product += x * y;
            index.sample.signal += x * x;
            index.sample.error += if x == y { 0.0 } else { (x - y) * (x - y) };
            index.sample.peak = index.sample.peak.max(x.abs());
        }
        at = if at + 1 == sums.len() { 0 } else { at + 1 };
    }
    for index in sums {
        index.signal += index.sample.signal;
        index.error += index.sample.error;
        index.peak = index.peak.max(index.sample.peak);
        index.log_peaks += index.sample.peak.ln();
    }
}

/// Adds what the indices of pieces of these sizes have in the sample that was taken in.
fn take_in_pieces(powers: &mut Vec<Powers>, sizes: &[usize], sums: &[Index]) {
    for (at, range) in pieces(sizes, sums.len()).enumerate() {
        if powers.len() == at {
            powers.push(Powers::default());
        }
        let samples = sums[range].iter().map(|index| index.sample);
        let [signal, error] = samples.fold([0.0, 0.0], |[signal, error], of| [signal + of.signal, error + of.error]);
        powers[at].take_in(signal, error);
    }
}

/// The ranges of pieces of these sizes; none where they are not the whole axis.
fn pieces(sizes: &[usize], extent: usize) -> impl Iterator<Item = Range<usize>> {
    let whole = sizes.iter().sum::<usize>() == extent && sizes.len() > 1;
    let sizes = if whole { sizes } else { &[] };
    let mut end = 0;
    let ranges = sizes.iter().map(move |size| {
        end += size;
        end - size..end
    });
    ranges.filter(|range| !range.is_empty())
}

/// A division of indices into small and large ones.
struct Gap {
    width: f64,
    /// What the small ones reach at most.
    most: f64,
}

/// The widest gap between the magnitudes of indices, if one is wide enough. Indices that are always zero are left out.
fn gap(sums: &[Index], samples: usize) -> Option<Gap> {
    let usual = |index: &Index| (index.log_peaks / samples.max(1) as f64).exp();
    let mut known: Vec<(f64, f64)> =
        sums.iter().filter(|index| index.peak > 0.0).map(|index| (usual(index), index.peak)).collect();
    known.sort_by(|a, b| a.0.total_cmp(&b.0));
    let fewest = sums.iter().map(|index| index.values).min().unwrap_or(0);
    let least = GAP * (MANY_VALUES / fewest.max(1) as f64).max(1.0);
    let (mut most, mut widest): (f64, Option<Gap>) = (0.0, None);
    for (usual, peak) in known {
        let width = if most > 0.0 { usual / most } else { 0.0 };
        if width > widest.as_ref().map_or(least, |gap| gap.width) {
            widest = Some(Gap { width, most });
        }
        most = most.max(peak);
    }
    widest
}

impl Gap {
    /// The small and the large indices.
    fn sides(&self, sums: &[Index]) -> [Vec<Range<usize>>; 2] {
        let mut sides = [Vec::new(), Vec::new()];
        for (at, index) in sums.iter().enumerate().filter(|(_, index)| index.peak > 0.0) {
            let side: &mut Vec<Range<usize>> = &mut sides[usize::from(index.peak > self.most)];
            match side.last_mut().filter(|range| range.end == at) {
                Some(range) => range.end = at + 1,
                None => side.push(at..at + 1),
            }
        }
        sides
    }
}

fn error_of(axis: usize, ranges: Vec<Range<usize>>, sums: &[Index]) -> SliceError {
    let mut total = Index::default();
    for index in ranges.iter().flat_map(|range| &sums[range.clone()]) {
        total.signal += index.signal;
        total.other += index.other;
        total.product += index.product;
        total.error += index.error;
    }
    let cosine = match (total.signal == 0.0, total.other == 0.0) {
        (true, true) => 1.0,
        (false, false) => total.product / (total.signal * total.other).sqrt(),
        _ => 0.0,
    };
    let slice = Slice { axis, ranges };
    SliceError { slice, signal_power: total.signal, error_power: total.error, cosine, spread: None }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, Dimension, IxDyn};

    use super::*;

    /// The parts of samples of this shape; the other network adds 0.1 to everything.
    fn parts(slicing: Slicing, shape: &[usize], samples: usize, value: impl Fn(usize, &[usize]) -> f64) -> Vec<String> {
        let mut sums = Sums::new(slicing);
        for sample in 0..samples {
            let float = ArrayD::from_shape_fn(IxDyn(shape), |at| value(sample, at.slice()));
            sums.take_in(&float, &float.mapv(|x| x + 0.1));
        }
        sums.finish(samples).iter().map(|part| part.slice.to_string()).collect()
    }

    /// Boxes of some hundreds in channels 0 to 3, scores below 1 in the others.
    fn detector(sample: usize, at: &[usize]) -> f64 {
        let noise = ((sample * 131 + at[1] * 17 + at[2] * 7) as f64 * 0.61).sin().abs();
        if at[1] < 4 { 50.0 + 500.0 * noise } else { 0.9 * noise }
    }

    #[test]
    fn channels_of_other_magnitudes_are_parts_along_whatever_axis_they_lie() {
        let along = |axes: [usize; 3]| move |sample, at: &[usize]| detector(sample, &axes.map(|axis| at[axis]));
        assert_eq!(parts(Slicing::ByMagnitude, &[1, 14, 20], 3, along([0, 1, 2])), ["[:, 4:14]", "[:, 0:4]"]);
        assert_eq!(parts(Slicing::ByMagnitude, &[1, 20, 14], 3, along([0, 2, 1])), ["[:, :, 4:14]", "[:, :, 0:4]"]);
        assert_eq!(parts(Slicing::ByMagnitude, &[14, 20, 1], 3, along([2, 0, 1])), ["[4:14]", "[0:4]"]);
        assert!(parts(Slicing::Whole, &[1, 14, 20], 3, along([0, 1, 2])).is_empty());
    }

    #[test]
    fn errors_of_parts_are_their_own() {
        let mut sums = Sums::new(Slicing::ByMagnitude);
        let float = ArrayD::from_shape_fn(IxDyn(&[3, 2]), |at| if at[1] == 0 { 100.0 } else { 1.0 });
        let other = ArrayD::from_shape_fn(IxDyn(&[3, 2]), |at| if at[1] == 0 { 101.0 } else { 0.0 });
        sums.take_in(&float, &other);
        let [small, large] = sums.finish(1).try_into().unwrap();
        assert_eq!((small.signal_power, small.error_power, small.cosine), (3.0, 3.0, 0.0));
        assert_eq!((large.signal_power, large.error_power), (30_000.0, 3.0));
        assert!((large.cosine - 1.0).abs() < 1e-12);
    }

    #[test]
    fn classes_that_are_seen_rarely_and_indices_that_are_zero_are_no_parts() {
        // In every sample another class is likely; the last two never are.
        let rare = |sample: usize, at: &[usize]| if at[1] == sample { 1.0 } else { 1e-3 / (1.0 + at[1] as f64) };
        assert!(parts(Slicing::ByMagnitude, &[1, 6], 4, rare).is_empty());
        let padded = |_: usize, at: &[usize]| if at[1] < 3 { 0.0 } else { 1.0 };
        assert!(parts(Slicing::ByMagnitude, &[1, 6], 4, padded).is_empty());
        let even = |_: usize, at: &[usize]| 1.0 + at[1] as f64;
        assert!(parts(Slicing::ByMagnitude, &[1, 9], 4, even).is_empty());
    }

    #[test]
    fn few_values_must_differ_more() {
        let twelve_times = |_: usize, at: &[usize]| if at[1] == 2 { 1.0 } else { 12.0 };
        assert!(parts(Slicing::ByMagnitude, &[1, 6], 2, twelve_times).is_empty());
        assert_eq!(parts(Slicing::ByMagnitude, &[1, 6], 8, twelve_times).len(), 2);
        assert_eq!(parts(Slicing::ByMagnitude, &[4, 6], 2, twelve_times).len(), 2);
    }

    #[test]
    fn pieces_are_parts_whatever_their_magnitudes_and_other_axes_are_looked_at_beside_them() {
        let pieces = |sizes: &[usize], by_magnitude| Slicing::Pieces { axis: 1, sizes: sizes.to_vec(), by_magnitude };
        let ones = |_: usize, _: &[usize]| 1.0;
        assert_eq!(parts(pieces(&[2, 0, 4], true), &[1, 6, 5], 2, ones), ["[:, 0:2]", "[:, 2:6]"]);
        assert!(parts(pieces(&[2, 3], true), &[1, 6, 5], 2, ones).is_empty());
        let columns = |sample, at: &[usize]| detector(sample, &[0, at[2], at[1]]);
        let found = parts(pieces(&[2, 4], true), &[1, 6, 14], 2, columns);
        assert_eq!(found, ["[:, 0:2]", "[:, 2:6]", "[:, :, 4:14]", "[:, :, 0:4]"]);
        assert_eq!(parts(pieces(&[2, 4], false), &[1, 6, 14], 2, columns).len(), 2);
    }

    #[test]
    fn axes_whose_extent_varies_have_no_parts() {
        let mut sums = Sums::new(Slicing::ByMagnitude);
        for rows in [3, 5] {
            let float = ArrayD::from_shape_fn(IxDyn(&[rows, 14]), |at| detector(rows, &[0, at[1], at[0]]));
            sums.take_in(&float, &float);
        }
        let found = sums.finish(2);
        assert_eq!(found.iter().map(|part| part.slice.to_string()).collect::<Vec<_>>(), ["[:, 4:14]", "[:, 0:4]"]);
    }

    #[test]
    fn many_ranges_are_not_all_spelled_out() {
        let alternating = |_: usize, at: &[usize]| if at[0].is_multiple_of(2) { 1000.0 } else { 1.0 };
        let found = parts(Slicing::ByMagnitude, &[12], 1, alternating);
        assert_eq!(found[0], "[1:2 and 3:4 and 5:6 and 3 more]");
    }
}
