//! The range that loses the least information, as in TensorRT's calibration.
//!
//! # Problem
//!
//! Choose the range for which the Kullback-Leibler divergence of the distribution `P` of the values
//! from the distribution `Q` that the codes can express is least.
//!
//! # Method
//!
//! Zeros are left out: zero is a level of every grid. A range is a run of bins around zero.
//! `P` is the histogram inside it; what is outside is added to the first and the last bin
//! that hold anything. `Q` is the histogram inside, *without* what was clipped: the bins are
//! dealt to 256 cells of equal width, and the count of a cell is spread evenly over those of its
//! bins that hold anything. With `c` the counts of `P`, `C` and `n` the count of a cell
//! of `Q` and the number of its bins that are not empty,
//!
//! ```text
//! D(P | Q) = sum_i c_i/N log(c_i/N) - sum_i c_i/N log(C/n / N_inside).
//! ```
//!
//! The first sum is known from cumulated sums of `c log c`, the second takes one logarithm
//! for each cell. A range is at least 256 bins wide (signed: 128 to either side), else each
//! bin has its own level, and nothing is lost by definition.
//!
//! For tensors with values of both signs and codes with a zero point, first the whole range is
//! shrunk towards zero at both ends together, then the lower end is moved alone, then
//! the upper one. The end of a one-sided tensor, and the symmetric range of signed
//! codes, are one search. A search tries 48 equidistant widths, then all near the best
//! one. Of equals the widest is taken.
//!
//! TensorRT and ONNX Runtime treat symmetric ranges only, count zeros, and give empty
//! bins a small probability; else this is the same rule.
//!
//! # Guarantee
//!
//! Ends inside the range of the values. Nothing about the squared error: the rule cares for
//! how often a value is altered and not for by how much; single far values are clipped.
//!
//! # Cost
//!
//! At most about 400 widths of 256 cells: about a millisecond.
//!
//! # Failure
//!
//! None. With at most 256 bins in use the whole range is kept.
//!
//! # References
//!
//! Migacz, *8-bit inference with TensorRT*, GTC 2017.

use crate::activations::grid::ActivationGrid;
use crate::activations::histogram::Histogram;

/// Cells of a range, and the least number of bins in one.
const CELLS: usize = 256;
const COARSE_WIDTHS: usize = 48;

pub(crate) fn choose(histogram: &Histogram, grid: ActivationGrid) -> (f32, f32) {
    let bins = Bins::new(histogram);
    let run = if grid.is_symmetric() { bins.best_symmetric_run() } else { bins.best_run() };
    let edge = |bins: usize| (bins as f64 * f64::from(histogram.bin_width())) as f32;
    // The outermost bins end where the values do.
    let lower = (-edge(bins.zero - run.first)).max(histogram.min().min(0.0));
    let upper = edge(run.end - bins.zero).min(histogram.max().max(0.0));
    (lower, upper)
}

/// The bins `first..end`.
#[derive(Clone, Copy)]
struct Run {
    first: usize,
    end: usize,
}

/// All bins in one row, with cumulated sums of what is before each.
struct Bins {
    counts: Vec<u64>,
    /// The first bin that is not negative.
    zero: usize,
    sums: Vec<Sums>,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    count: u64,
    /// Bins that hold anything.
    filled: u32,
    /// Of `c log c`.
    information: f64,
}

impl Bins {
    fn new(histogram: &Histogram) -> Bins {
        let negative = histogram.negative().iter().rev();
        let counts: Vec<u64> = negative.chain(histogram.positive()).copied().collect();
        let mut sum = Sums::default();
        let mut sums = vec![sum];
        for count in &counts {
            sum.count += count;
            sum.filled += u32::from(*count > 0);
            sum.information += information(*count);
            sums.push(sum);
        }
        Bins { counts, zero: histogram.negative().len(), sums }
    }

    fn best_run(&self) -> Run {
        let (zero, all) = (self.zero, self.counts.len());
        let mut run = Run { first: 0, end: all };
        if all <= CELLS {
            return run;
        }
        let loss = |run: Run| self.loss(run, run.first as i64, run.end as i64);
        let shrunk = |width: usize| Run { first: zero - zero * width / all, end: zero + (all - zero) * width / all };
        run = shrunk(best_width(CELLS + 1, all, |width| loss(shrunk(width))));
        if zero == 0 || zero == all {
            return run;
        }
        let least = CELLS.saturating_sub(run.end - zero).min(zero);
        run.first = zero - best_width(least, zero, |below| loss(Run { first: zero - below, ..run }));
        let least = CELLS.saturating_sub(zero - run.first).min(all - zero);
        run.end = zero + best_width(least, all - zero, |above| loss(Run { end: zero + above, ..run }));
        run
    }

    fn best_symmetric_run(&self) -> Run {
        let (zero, all) = (self.zero, self.counts.len());
        let run = |width: usize| Run { first: zero.saturating_sub(width), end: all.min(zero + width) };
        let most = zero.max(all - zero);
        if most <= CELLS / 2 {
            return run(most);
        }
        let center = zero as i64;
        run(best_width(CELLS / 2, most, |width| self.loss(run(width), center - width as i64, center + width as i64)))
    }

    /// The divergence if the cells divide `from..to`, which contains the run.
    fn loss(&self, run: Run, from: i64, to: i64) -> f64 {
        let (before, upto) = (self.sums[run.first], self.sums[run.end]);
        if before.filled == upto.filled {
            return f64::INFINITY;
        }
        let all = self.sums[self.counts.len()].count;
        let clipped = [before.count, all - upto.count];
        let information_of_p = upto.information - before.information + self.information_of_clipped(run, clipped);
        let expected_by_q = self.expected_by_q(run, from, to, clipped);
        (information_of_p - expected_by_q) / all as f64 + ((upto.count - before.count) as f64 / all as f64).ln()
    }

    /// What the first and the last bin that hold anything gain in `c log c` by what was clipped.
    fn information_of_clipped(&self, run: Run, [below, above]: [u64; 2]) -> f64 {
        let before = self.sums[run.first].filled;
        let upto = self.sums[run.end].filled;
        let first = self.sums.partition_point(|sums| sums.filled <= before) - 1;
        let last = self.sums.partition_point(|sums| sums.filled < upto) - 1;
        let gain = |count: u64, clipped: u64| information(count + clipped) - information(count);
        let last_count = self.counts[last] + if first == last { below } else { 0 };
        gain(self.counts[first], below) + gain(last_count, above)
    }

    /// Sum over `c log(C / n)`.
    fn expected_by_q(&self, run: Run, from: i64, to: i64, [below, above]: [u64; 2]) -> f64 {
        let cells = CELLS as i64;
        let edge = |cell: i64| (from + (to - from) * cell / cells).clamp(run.first as i64, run.end as i64) as usize;
        let (mut sum, mut first, mut last) = (0.0, None, 0.0);
        let mut start = self.sums[run.first];
        for cell in 1..=cells {
            let end = self.sums[edge(cell)];
            let (count, filled) = (end.count - start.count, end.filled - start.filled);
            start = end;
            if count > 0 {
                last = (count as f64 / f64::from(filled)).ln();
                first.get_or_insert(last);
                sum += count as f64 * last;
            }
        }
        // What was clipped stands in the outermost cells that hold anything.
        sum + below as f64 * first.unwrap_or(0.0) + above as f64 * last
    }
}

/// `c log c`.
fn information(count: u64) -> f64 {
    if count == 0 { 0.0 } else { count as f64 * (count as f64).ln() }
}

/// The width of least loss, of equals the greatest.
fn best_width(least: usize, most: usize, loss: impl Fn(usize) -> f64) -> usize {
    let spacing = (most - least).div_ceil(COARSE_WIDTHS).max(1);
    let best = |widths: &mut dyn Iterator<Item = usize>| {
        let losses = widths.map(|width| (loss(width), width));
        losses.reduce(|best, other| if other.0 < best.0 { other } else { best }).map_or(most, |(_, width)| width)
    };
    let coarse = best(&mut (least..=most).rev().step_by(spacing));
    let (from, to) = (coarse.saturating_sub(spacing - 1).max(least), most.min(coarse + spacing - 1));
    best(&mut (from..=to).rev())
}

#[cfg(test)]
#[path = "entropy_range_tests.rs"]
mod tests;
