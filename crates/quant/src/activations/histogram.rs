//! The distribution of one tensor's values over all calibration samples, in bounded memory.
//!
//! # Problem
//!
//! The range that an activation's codes should cover depends on how its values are
//! distributed. They are seen once, sample by sample, and are too many to keep.
//!
//! # Shapes and units
//!
//! Values are pushed as slices of any length. Bin `i` of the positive half holds the
//! values of `[i w, (i + 1) w)`, bin `i` of the negative half those of
//! `(-(i + 1) w, -i w]` without zero, `w` being the bin width. Zeros stand in no bin: a
//! ReLU makes half of a tensor zero, and zero is a level of every grid, hence free of
//! error.
//!
//! # Method
//!
//! `w` is the least power of two, not below `2^-126`, with which both halves together
//! have at most 2048 bins up to the least and the greatest value. When a value outside
//! arrives, `w` doubles until it fits, and neighbouring bins are added: bin `i` becomes a
//! part of bin `i / 2`. Zero is always an edge, so the halves never mix.
//!
//! One pass over a slice finds its least and greatest value, its zeros and whether all is
//! finite; then the bins grow once; a second pass counts. It computes bin numbers in
//! vectors and keeps four counts for every bin, so that equal neighbours do not wait for
//! each other.
//!
//! [`Histogram::moving_average`] is the average of the samples' ranges in which each new
//! sample has the weight 0.1, a momentum of 0.9. Observers that run while a network is
//! trained use 0.99 and more; over the few dozen samples of a calibration set that would
//! leave most of the weight with the first one.
//!
//! # Guarantee
//!
//! Bin numbers are exact: a multiplication by a power of two and a truncation. Since
//! `w` depends on the least and the greatest value only, so do the counts: they are the
//! same for every order of the values and every split into pushes. The moving average
//! depends on the order of the samples. A histogram read back from JSON equals the
//! one written, bit by bit.
//!
//! # Cost
//!
//! About a nanosecond for a value in a large slice. At most 2048 counts of eight bytes.
//!
//! # Failure
//!
//! NaN or infinity is an error that names the first index in the slice; the histogram is
//! then as before the push.
//!
//! # References
//!
//! Jacob et al., arXiv 1712.05877, section 3.1 (moving averages of ranges).

use crate::error::{Array, QuantError};
use faer::traits::pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

/// Most bins of both halves together; a power of two.
const BINS: usize = 2048;
/// Of the least bin width: the least normal number, whose reciprocal is finite.
const LEAST_EXPONENT: i32 = -126;
/// Weight of a new sample in the moving average.
const NEW_SAMPLE: f64 = 0.1;
/// Values that are looked at together.
const LANES: usize = 16;
/// Counts for every bin while a large slice is counted.
const COPIES: usize = 4;
/// From so many values on the additional counts pay off.
const MANY_VALUES: usize = 4096;
/// Values after which the 32-bit counts are added up.
const MOST_VALUES: usize = 1 << 31;

/// Counts of all values of a tensor, its exact range, and a moving average of the samples' ranges.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct Histogram {
    /// The bin width is two to the power of this plus [`LEAST_EXPONENT`].
    doublings: u8,
    negative: Vec<u64>,
    positive: Vec<u64>,
    zeros: u64,
    count: u64,
    samples: u64,
    range: Option<Range>,
    /// Of the sample that has not ended.
    sample_range: Option<Range>,
    average: Option<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    least: f32,
    greatest: f32,
}

impl Range {
    fn with(self, other: Option<Range>) -> Range {
        match other {
            None => self,
            Some(other) => Range { least: self.least.min(other.least), greatest: self.greatest.max(other.greatest) },
        }
    }

    /// Where the moving average goes from here. In `f64`, where no difference overflows.
    fn towards(self, sample: Range) -> Range {
        let step = |from: f32, to: f32| {
            let (from, to) = (f64::from(from), f64::from(to));
            (from + NEW_SAMPLE * (to - from)) as f32
        };
        Range { least: step(self.least, sample.least), greatest: step(self.greatest, sample.greatest) }
    }
}

impl Histogram {
    /// Without values.
    pub fn new() -> Histogram {
        Histogram::default()
    }

    /// Counts values of the current sample. After an error the histogram is as before the call.
    pub fn push(&mut self, values: &[f32]) -> Result<(), QuantError> {
        if values.is_empty() {
            return Ok(());
        }
        let summary = Arch::new().dispatch(Summarise(values));
        if !summary.finite {
            return Err(non_finite(values));
        }
        self.sample_range = Some(summary.range.with(self.sample_range));
        self.range = Some(summary.range.with(self.range));
        self.grow();
        self.count += values.len() as u64;
        self.zeros += summary.zeros;
        if values.len() < MANY_VALUES {
            self.count_few(values);
        } else {
            values.chunks(MOST_VALUES).for_each(|part| self.count_many(part));
        }
        if let Some(bin) = self.positive.first_mut() {
            *bin -= summary.zeros; // They were counted as the least positive numbers.
        }
        Ok(())
    }

    /// Ends a sample: its range enters the moving average.
    ///
    /// A sample without values is counted and leaves the average as it is.
    pub fn end_sample(&mut self) {
        self.samples += 1;
        if let Some(sample) = self.sample_range.take() {
            self.average = Some(self.average.map_or(sample, |average| average.towards(sample)));
        }
    }

    /// The least value; 0 if there is none.
    pub fn min(&self) -> f32 {
        self.range.map_or(0.0, |range| range.least)
    }

    /// The greatest value; 0 if there is none.
    pub fn max(&self) -> f32 {
        self.range.map_or(0.0, |range| range.greatest)
    }

    /// How many values were pushed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of them were exactly zero, of either sign.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// How many samples have ended.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Moving averages of the least and the greatest values of the samples that have ended;
    /// before the first has, the range of all values.
    pub fn moving_average(&self) -> (f32, f32) {
        self.average.or(self.range).map_or((0.0, 0.0), |range| (range.least, range.greatest))
    }

    /// How wide a bin is.
    pub(crate) fn bin_width(&self) -> f32 {
        power_of_two(self.exponent())
    }

    /// Counts of the negative values, from zero downwards.
    pub(crate) fn negative(&self) -> &[u64] {
        &self.negative
    }

    /// Counts of the positive values, from zero upwards.
    pub(crate) fn positive(&self) -> &[u64] {
        &self.positive
    }

    fn exponent(&self) -> i32 {
        i32::from(self.doublings) + LEAST_EXPONENT
    }

    fn grow(&mut self) {
        let (below, above) = (-self.min(), self.max());
        let before = self.doublings;
        while bins(below, self.exponent()) + bins(above, self.exponent()) > BINS {
            self.doublings += 1;
        }
        let (doublings, exponent) = (u32::from(self.doublings - before), self.exponent());
        merge(&mut self.negative, doublings, bins(below, exponent));
        merge(&mut self.positive, doublings, bins(above, exponent));
    }

    fn count_few(&mut self, values: &[f32]) {
        let reciprocal = power_of_two(-self.exponent());
        for x in values {
            let place = place(*x, reciprocal) as usize;
            let half = if place < BINS { &mut self.positive } else { &mut self.negative };
            // Without positive values there is no bin in which a zero could be counted.
            if let Some(bin) = half.get_mut(place % BINS) {
                *bin += 1;
            }
        }
    }

    fn count_many(&mut self, values: &[f32]) {
        let mut counts = vec![[0; COPIES]; 2 * BINS];
        let reciprocal = power_of_two(-self.exponent());
        let places = counts.as_mut_slice().try_into().expect("as many counts as there are places");
        Arch::new().dispatch(Count { values, reciprocal, counts: places });
        let (positive, negative) = counts.split_at(BINS);
        for (half, counts) in [(&mut self.positive, positive), (&mut self.negative, negative)] {
            for (bin, copies) in half.iter_mut().zip(counts) {
                *bin += copies.iter().map(|count| u64::from(*count)).sum::<u64>();
            }
        }
    }
}

/// Exact; `exponent` is one of a normal number.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent + 127).unsigned_abs() << 23)
}

/// Bins of a half that reaches to `end`.
fn bins(end: f32, exponent: i32) -> usize {
    let widths = f64::from(end) / f64::from(power_of_two(exponent));
    // More than fit are counted as one too many.
    if end > 0.0 { widths.min(BINS as f64) as usize + 1 } else { 0 }
}

/// Adds neighbouring bins as the bin width is doubled, and makes the half `length` bins long.
fn merge(half: &mut Vec<u64>, doublings: u32, length: usize) {
    if doublings > 0 {
        for i in 1..half.len() {
            let count = std::mem::take(&mut half[i]);
            half[i.checked_shr(doublings).unwrap_or(0)] += count;
        }
    }
    half.resize(length, 0);
}

/// Half and bin of a value: the bin's number, plus [`BINS`] for negative ones. Zero goes to
/// the first positive bin.
#[inline(always)]
fn place(x: f32, reciprocal: f32) -> u32 {
    /// Has no bits for fractions: a sum with it is rounded to an integer, which is in its low bits.
    const INTEGERS: f32 = 8_388_608.0;
    let without_negative_zero = x + 0.0;
    let widths = without_negative_zero.abs() * reciprocal;
    let rounded = widths + INTEGERS;
    let too_far = rounded - INTEGERS > widths;
    let bin = rounded.to_bits() - u32::from(too_far);
    let half = (without_negative_zero.to_bits() >> 31) * BINS as u32;
    half | (bin % BINS as u32)
}

struct Count<'a> {
    values: &'a [f32],
    reciprocal: f32,
    counts: &'a mut [[u32; COPIES]; 2 * BINS],
}

impl WithSimd for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (whole, rest) = self.values.as_chunks::<LANES>();
        let mut places = [0; LANES];
        for piece in whole {
            for (place_of_x, x) in places.iter_mut().zip(piece) {
                *place_of_x = place(*x, self.reciprocal);
            }
            for (lane, place) in places.iter().enumerate() {
                self.counts[*place as usize % (2 * BINS)][lane % COPIES] += 1;
            }
        }
        for x in rest {
            self.counts[place(*x, self.reciprocal) as usize % (2 * BINS)][0] += 1;
        }
    }
}

struct Summary {
    range: Range,
    zeros: u64,
    finite: bool,
}

struct Summarise<'a>(&'a [f32]);

impl WithSimd for Summarise<'_> {
    type Output = Summary;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Summary {
        // Integers, because their least and greatest may be found in any order, hence in vectors.
        let (mut least, mut greatest, mut zeros) = (i32::MAX, i32::MIN, 0);
        for piece in self.0.chunks(1 << 16) {
            let mut zeros_of_piece = 0u32;
            for x in piece {
                let key = order(*x);
                least = least.min(key);
                greatest = greatest.max(key);
                zeros_of_piece += u32::from(*x == 0.0);
            }
            zeros += u64::from(zeros_of_piece);
        }
        // Infinity and NaN have the outermost keys.
        let finite = least > order(f32::NEG_INFINITY) && greatest < order(f32::INFINITY);
        // Whether a zero has a sign must not matter.
        let range = Range { least: number(least) + 0.0, greatest: number(greatest) + 0.0 };
        Summary { range, zeros, finite }
    }
}

/// An integer that is greater for a greater number, in the order of [`f32::total_cmp`].
#[inline(always)]
fn order(x: f32) -> i32 {
    let bits = x.to_bits().cast_signed();
    bits ^ ((bits >> 31) & i32::MAX)
}

/// The number of an [`order`].
fn number(order: i32) -> f32 {
    f32::from_bits((order ^ ((order >> 31) & i32::MAX)).cast_unsigned())
}

fn non_finite(values: &[f32]) -> QuantError {
    let bad = values.iter().enumerate().find(|(_, x)| !x.is_finite());
    let (index, value) = bad.map_or((0, f32::NAN), |(index, x)| (index, *x));
    QuantError::NonFinite { array: Array::Activations, index: vec![index], value: f64::from(value) }
}

/// A histogram in a file. Real numbers are written in `f64`: even a decoder that misses the
/// last digit of it finds the `f32` again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Stored {
    bin_width_exponent: i32,
    negative: Vec<u64>,
    positive: Vec<u64>,
    zeros: u64,
    count: u64,
    samples: u64,
    range: Option<[f64; 2]>,
    sample_range: Option<[f64; 2]>,
    moving_average: Option<[f64; 2]>,
}

impl From<Histogram> for Stored {
    fn from(histogram: Histogram) -> Stored {
        let wide = |range: Range| [f64::from(range.least), f64::from(range.greatest)];
        Stored {
            bin_width_exponent: histogram.exponent(),
            range: histogram.range.map(wide),
            sample_range: histogram.sample_range.map(wide),
            moving_average: histogram.average.map(wide),
            negative: histogram.negative,
            positive: histogram.positive,
            zeros: histogram.zeros,
            count: histogram.count,
            samples: histogram.samples,
        }
    }
}

impl TryFrom<Stored> for Histogram {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Histogram, String> {
        let mut histogram = Histogram {
            range: stored.range.map(|range| narrow("range", range)).transpose()?,
            sample_range: stored.sample_range.map(|range| narrow("sample-range", range)).transpose()?,
            average: stored.moving_average.map(|range| narrow("moving-average", range)).transpose()?,
            zeros: stored.zeros,
            count: stored.count,
            samples: stored.samples,
            ..Histogram::new()
        };
        histogram.grow(); // The range decides how many bins there are, and how wide.
        let wanted = (histogram.exponent(), histogram.negative.len(), histogram.positive.len());
        let found = (stored.bin_width_exponent, stored.negative.len(), stored.positive.len());
        if found != wanted {
            return Err(format!("bin width exponent and bins of a histogram are {found:?}, expected {wanted:?}"));
        }
        let bins = || stored.negative.iter().chain(&stored.positive);
        let counted = bins().try_fold(stored.zeros, |sum, bin| sum.checked_add(*bin));
        if counted != Some(stored.count) || histogram.range.is_some() != (stored.count > 0) {
            return Err(format!("the bins of a histogram do not add up to its count, {}", stored.count));
        }
        Ok(Histogram { negative: stored.negative, positive: stored.positive, ..histogram })
    }
}

fn narrow(what: &str, range: [f64; 2]) -> Result<Range, String> {
    let [least, greatest] = range.map(|x| x as f32);
    if least.is_finite() && greatest.is_finite() && least <= greatest {
        return Ok(Range { least, greatest });
    }
    Err(format!("{what} of a histogram is {range:?}, expected two finite numbers in order"))
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
