//! Which inputs of a layer integer kernels multiply side by side, and what their codes may be together.
//!
//! # Problem
//!
//! On x86 without VNNI, kernels for unsigned activations and signed weights add the products of two neighbours along the
//! reduction in 16 bits, saturating (`vpmaddubsw`): `a q + a' q'` with `0 <= a, a' <= 255` must stay in
//! `-32768..=32767` for every pair of activations.
//!
//! # Method
//!
//! The sum is largest where the activations of positive codes are 255 and those of negative codes 0. So the rule is
//!
//! ```text
//! max(q, 0) + max(q', 0) <= 128,      min(q, 0) + min(q', 0) >= -128         (32767 / 255 = 128.5)
//! ```
//!
//! Codes of different signs never break it, and what one code may be follows from the other
//! ([`PairRule::room`]).
//!
//! Neighbours are inputs 2i and 2i + 1 in the order in which the kernel packs them: that of the inputs for a MatMul or
//! Gemm; kernel positions, of each its channels of the group, for a Conv. Codes of channels that are added
//! when the layer is written are 0.
//!
//! # Guarantee
//!
//! Where all pairs keep the rule the kernel's result is exact, whatever the activations are.
//!
//! # References
//!
//! Intel, Intrinsics Guide, `_mm256_maddubs_epi16`; ONNX Runtime, `core/mlas/lib` (`QgemmU8X8KernelAvx2`,
//! `QgemmU8S8KernelAvx512Core`, `ConvSymKernelAvx2`).

use serde::Serialize;

/// 32767 / 255: the largest sum of two codes of one sign.
const LARGEST_SUM: i16 = 128;
/// Of 8 bits with a sign and no zero point.
const LARGEST_CODE: f32 = 127.0;

/// The pairs of a layer's inputs whose codes are bound to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PairRule {
    positions: usize,
    channels: usize,
    written_channels: usize,
}

impl PairRule {
    /// For a MatMul or Gemm of `inputs` inputs.
    pub fn dense(inputs: usize) -> PairRule {
        PairRule { positions: 1, channels: inputs, written_channels: inputs }
    }

    /// For a convolution of `channels` channels a group and `positions` kernel positions, which is written with
    /// `written_channels` channels, the last of them zeros.
    pub fn convolution(channels: usize, positions: usize, written_channels: usize) -> PairRule {
        PairRule { positions, channels, written_channels: written_channels.max(channels) }
    }

    /// The input that is multiplied beside input `k` (`channel * positions + position`), if there is one.
    pub fn partner(&self, k: usize) -> Option<usize> {
        let (channel, position) = (k / self.positions, k % self.positions);
        let other = (position * self.written_channels + channel) ^ 1;
        let (position, channel) = (other / self.written_channels, other % self.written_channels);
        (channel < self.channels && position < self.positions).then_some(channel * self.positions + position)
    }

    /// All pairs of `inputs` inputs.
    pub fn pairs(&self, inputs: usize) -> Vec<(usize, usize)> {
        (0..inputs).filter_map(|k| self.partner(k).filter(|other| k < *other).map(|other| (k, other))).collect()
    }

    /// The least and the greatest code beside the code `partner`.
    pub fn room(partner: i16) -> (i16, i16) {
        (-LARGEST_SUM - partner.min(0), LARGEST_SUM - partner.max(0))
    }

    /// Whether two codes may stand side by side.
    pub fn allows(first: i16, second: i16) -> bool {
        let (least, greatest) = PairRule::room(first);
        (least..=greatest).contains(&second)
    }
}

/// How far two weights, in steps of their scale, are beyond what codes side by side may be; at most 0 where they are not.
pub(crate) fn excess(weights: [f32; 2]) -> f32 {
    let [first, second] = weights;
    if (first < 0.0) == (second < 0.0) { first.abs() + second.abs() - f32::from(LARGEST_SUM) } else { 0.0 }
}

/// What the first of two weights, in steps, gives up of their excess, where an error of either costs `cost` times its
/// square.
pub(crate) fn given_up(weights: [f32; 2], cost: [f64; 2]) -> f32 {
    let excess = excess(weights);
    if excess <= 0.0 {
        return 0.0;
    }
    let whole = cost[0] + cost[1];
    let share = if whole > 0.0 { cost[1] / whole } else { 0.5 };
    (share as f32 * excess).min(weights[0].abs()).copysign(weights[0])
}

/// The codes from -127 to 127 nearest to two weights, in steps of their scale, that may stand side by side.
pub(crate) fn nearest(weights: [f32; 2], cost: [f64; 2]) -> [i16; 2] {
    let code = |w: f32| w.round_ties_even().clamp(-LARGEST_CODE, LARGEST_CODE) as i16;
    let plain = weights.map(code);
    if PairRule::allows(plain[0], plain[1]) {
        return plain;
    }
    // Beside the largest code there is room for 1.
    let wanted = (weights[0] - given_up(weights, cost)).abs().max(1.0).copysign(weights[0]);
    let beside = |first: i16| {
        let (least, greatest) = PairRule::room(first);
        [first, plain[1].clamp(least, greatest)]
    };
    let paid = |codes: &[i16; 2]| -> f64 {
        (0..2).map(|i| cost[i].max(f64::MIN_POSITIVE) * f64::from(weights[i] - f32::from(codes[i])).powi(2)).sum()
    };
    let (below, above) = (beside(code(wanted.floor())), beside(code(wanted.ceil())));
    if paid(&above) < paid(&below) { above } else { below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_pairs_never_leave_sixteen_bits_and_others_can() {
        for first in -127i16..=127 {
            for second in -127i16..=127 {
                let sums = [(0, 0), (255, 0), (0, 255), (255, 255)]
                    .map(|(a, b): (i32, i32)| a * i32::from(first) + b * i32::from(second));
                let fits = sums.iter().all(|sum| i16::try_from(*sum).is_ok());
                assert_eq!(PairRule::allows(first, second), fits, "{first} {second}");
            }
        }
    }

    #[test]
    fn partners_are_neighbours_in_the_order_of_the_kernel() {
        let dense = PairRule::dense(5);
        assert_eq!([0, 1, 2, 3, 4].map(|k| dense.partner(k)), [Some(1), Some(0), Some(3), Some(2), None]);
        // Two channels, 3 positions: inputs 0..3 are the first channel.
        let even = PairRule::convolution(2, 3, 2);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|k| even.partner(k)), [3, 4, 5, 0, 1, 2].map(Some));
        // One channel: positions are neighbours.
        let depth = PairRule::convolution(1, 3, 1);
        assert_eq!([0, 1, 2].map(|k| depth.partner(k)), [Some(1), Some(0), None]);
        // Three channels: pairs cross positions. Order: p0c0 p0c1 | p0c2 p1c0 | p1c1 p1c2.
        let odd = PairRule::convolution(3, 2, 3);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|k| odd.partner(k)), [2, 4, 0, 5, 1, 3].map(Some));
        // Filled up to four channels: the third stands beside zeros.
        let padded = PairRule::convolution(3, 2, 4);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|k| padded.partner(k)), [Some(2), Some(3), Some(0), Some(1), None, None]);
        assert_eq!(padded.pairs(6), [(0, 2), (1, 3)]);
    }

    #[test]
    fn the_nearest_pair_is_that_of_all_pairs() {
        let mut gaussian = crate::testing::Gaussian::new(5);
        for _ in 0..200 {
            let weights = [0, 1].map(|_| (70.0 * gaussian.sample()) as f32);
            let cost = [0, 1].map(|_| gaussian.uniform() + 0.01);
            let paid = |codes: [i16; 2]| -> f64 {
                (0..2).map(|i| cost[i] * f64::from(weights[i] - f32::from(codes[i])).powi(2)).sum()
            };
            let codes = || -127i16..=127;
            let all = codes().flat_map(|a| codes().map(move |b| [a, b])).filter(|[a, b]| PairRule::allows(*a, *b));
            let least = all.map(paid).fold(f64::INFINITY, f64::min);
            let found = nearest(weights, cost);
            assert!(PairRule::allows(found[0], found[1]));
            assert!(paid(found) <= least * (1.0 + 1e-9), "{weights:?} {cost:?} {found:?}");
        }
    }
}
