//! Samples in parts.
//!
//! What is summed over samples is summed part by part, and the sums of parts are added in the order of the parts. Which
//! samples make a part follows from their number alone. So whoever runs a part gets the same numbers, and the total is the
//! same, bit by bit, wherever parts were run.

use std::ops::Range;

use crate::engine::Shapes;

/// Samples are divided into at most so many parts: each costs a sum of moments, and no more can be run side by side.
pub const MOST_PARTS: usize = 16;

/// How many parts so many samples are divided into.
pub fn count_parts(samples: usize) -> usize {
    samples.clamp(1, MOST_PARTS)
}

/// Which of `len` samples belong to a part.
pub(crate) fn part_range(len: usize, parts: usize, part: usize) -> Range<usize> {
    part * len / parts..(part + 1) * len / parts
}

/// One part of the samples of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Those at the cut.
    pub(crate) samples: Vec<usize>,
    /// Those still at the network's inputs.
    pub(crate) waiting: Vec<usize>,
    /// Of a part that is run elsewhere: by sample at the cut, the shapes of the values there.
    pub(crate) shapes: Vec<Shapes>,
    /// It is run here.
    pub(crate) is_own: bool,
}

impl Part {
    /// Goes on with some of the samples only.
    pub(crate) fn narrow(&mut self, samples: &[usize]) {
        let keeps: Vec<bool> = self.samples.iter().map(|sample| samples.contains(sample)).collect();
        let mut kept = keeps.into_iter();
        if !self.is_own && !self.shapes.is_empty() {
            self.shapes.retain(|_| kept.next().unwrap_or(false));
        }
        self.samples.retain(|sample| samples.contains(sample));
        self.waiting.retain(|sample| samples.contains(sample));
    }
}

/// Divides samples that advance at once and those that wait.
pub(crate) fn divide(first: &[usize], waiting: &[usize], own: &Range<usize>) -> Vec<Part> {
    let parts = count_parts(first.len());
    let divide = |part: usize| Part {
        samples: first[part_range(first.len(), parts, part)].to_vec(),
        waiting: waiting[part_range(waiting.len(), parts, part)].to_vec(),
        shapes: Vec::new(),
        is_own: own.contains(&part),
    };
    (0..parts).map(divide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_one_part_and_the_parts_follow_from_numbers_alone() {
        for (first, waiting) in [(0, 0), (1, 0), (3, 40), (16, 1), (17, 5), (128, 300)] {
            let (firsts, waitings): (Vec<usize>, Vec<usize>) = ((0..first).collect(), (500..500 + waiting).collect());
            let parts = divide(&firsts, &waitings, &(0..2));
            assert_eq!(parts.len(), first.clamp(1, MOST_PARTS));
            assert_eq!(parts.iter().flat_map(|part| part.samples.clone()).collect::<Vec<_>>(), firsts);
            assert_eq!(parts.iter().flat_map(|part| part.waiting.clone()).collect::<Vec<_>>(), waitings);
            assert_eq!(parts.iter().filter(|part| part.is_own).count(), parts.len().min(2));
        }
    }
}
