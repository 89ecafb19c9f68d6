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

    /// The least and the greatest code beside the code `partner`, both counted from the code that means 0.
    pub fn room(partner: i16) -> (i16, i16) {
        (-LARGEST_SUM - partner.min(0), LARGEST_SUM - partner.max(0))
    }

    /// Whether two codes, counted from the code that means 0, may stand side by side.
    pub fn allows(first: i16, second: i16) -> bool {
        let (least, greatest) = PairRule::room(first);
        (least..=greatest).contains(&second)
    }
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
    }
}
