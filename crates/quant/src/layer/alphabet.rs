//! What codes stand for, in units of their scale.
//!
//! Codes are whole numbers in rising order of what they mean. Those of a float type are the bit patterns of its positive
//! numbers, less than 0 for negative ones: the patterns of positive numbers count in order, the even one of two
//! neighbours is that to which a cast takes a tie, and 0 has one code though the type has two zeros.
//!
//! | alphabet | codes | code c stands for |
//! |---|---|---|
//! | [`Integers`](Alphabet::Integers) | any | c |
//! | [`E4m3`](Alphabet::E4m3) | -126 to 126 | the FP8 number of pattern \|c\| with the sign of c, up to 448 |
//!
//! An alphabet is a table of magnitudes: nothing else in this crate knows which one it works with.
//!
//! # References
//!
//! P. Micikevicius et al., *FP8 formats for deep learning*, arXiv 2209.05433; ONNX, *Float stored in 8 bits*
//! (`FLOAT8E4M3FN`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Patterns of positive E4M3 numbers and 0; the next one is NaN, infinity there is none.
const E4M3_PATTERNS: usize = 127;
const E4M3: [f32; E4M3_PATTERNS] = e4m3();
const E4M3_THRESHOLDS: [f32; E4M3_PATTERNS - 1] = thresholds(&E4M3);

/// What codes stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Alphabet {
    /// A code stands for itself: levels are equidistant.
    #[default]
    Integers,
    /// 8-bit floats of 4 bits exponent and 3 bits mantissa without infinities.
    E4m3,
}

/// What codes from 0 on stand for, and from which number on each is the nearest.
struct Table {
    magnitudes: &'static [f32],
    /// Of every code but 0.
    thresholds: &'static [f32],
}

impl Alphabet {
    /// Nothing where codes stand for themselves.
    #[inline]
    fn table(self) -> Option<Table> {
        match self {
            Alphabet::Integers => None,
            Alphabet::E4m3 => Some(Table { magnitudes: &E4M3, thresholds: &E4M3_THRESHOLDS }),
        }
    }

    /// Whether codes stand for themselves.
    #[inline]
    pub fn is_integers(&self) -> bool {
        *self == Alphabet::Integers
    }

    /// The factor after which levels come again, but for the smallest; 1 where they do not.
    pub(crate) fn period(self) -> f64 {
        match self {
            Alphabet::Integers => 1.0,
            Alphabet::E4m3 => 2.0,
        }
    }

    /// What a code stands for; NaN where it stands for nothing.
    #[inline]
    pub fn value(self, code: i16) -> f32 {
        let Some(table) = self.table() else { return f32::from(code) };
        let magnitude = table.magnitudes.get(usize::from(code.unsigned_abs())).copied().unwrap_or(f32::NAN);
        if code < 0 { -magnitude } else { magnitude }
    }

    /// The code of the nearest number, of two the even one; what lies beyond gets the last. Nothing where codes stand for
    /// themselves, so that there is no last one.
    #[inline]
    pub(crate) fn nearest(self, x: f32) -> Option<i16> {
        let code = self.table()?.thresholds.partition_point(|threshold| *threshold <= x.abs()) as i16;
        Some(if x < 0.0 { -code } else { code })
    }
}

const fn e4m3() -> [f32; E4M3_PATTERNS] {
    const MANTISSA_BITS: u32 = 3;
    const BIAS: u32 = 7;
    let mut numbers = [0.0; E4M3_PATTERNS];
    let mut pattern = 0;
    while pattern < E4M3_PATTERNS {
        let (exponent, mantissa) = (pattern as u32 >> MANTISSA_BITS, pattern as u32 & ((1 << MANTISSA_BITS) - 1));
        // The exponent 0 stands for that of 1, without the leading bit.
        let (exponent, leading) = if exponent == 0 { (1, 0) } else { (exponent, 1 << MANTISSA_BITS) };
        let power = f32::from_bits((127 + exponent - BIAS - MANTISSA_BITS) << 23);
        numbers[pattern] = (leading + mantissa) as f32 * power;
        pattern += 1;
    }
    numbers
}

/// From which number on code i + 1 is nearer than code i: the middle, or behind it where the tie goes to an even i.
const fn thresholds<const N: usize, const M: usize>(magnitudes: &[f32; N]) -> [f32; M] {
    let mut thresholds = [0.0; M];
    let mut i = 0;
    while i < M {
        let middle = (magnitudes[i] + magnitudes[i + 1]) / 2.0;
        thresholds[i] = if i % 2 == 0 { f32::from_bits(middle.to_bits() + 1) } else { middle };
        i += 1;
    }
    thresholds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_has_the_numbers_of_its_definition() {
        let cases =
            [(0, 0.0), (1, 1.0 / 512.0), (7, 7.0 / 512.0), (8, 1.0 / 64.0), (0x38, 1.0), (0x39, 1.125), (126, 448.0)];
        for (code, value) in cases {
            assert_eq!((Alphabet::E4m3.value(code), Alphabet::E4m3.value(-code)), (value, -value), "{code}");
        }
        assert!(Alphabet::E4m3.value(127).is_nan() && Alphabet::E4m3.value(i16::MIN).is_nan());
        assert!(E4M3.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn ties_go_to_even_patterns_and_what_lies_beyond_to_the_last() {
        let nearest = |x: f32| Alphabet::E4m3.nearest(x).unwrap();
        for (code, pair) in E4M3.windows(2).enumerate() {
            let (code, middle) = (code as i16, (pair[0] + pair[1]) / 2.0);
            let even = code + code % 2;
            assert_eq!((nearest(middle), nearest(-middle)), (even, -even), "{middle}");
            assert_eq!((nearest(middle.next_down()), nearest(middle.next_up())), (code, code + 1), "{middle}");
        }
        assert_eq!([464.0, 1e30, f32::INFINITY, -1e30].map(nearest), [126, 126, 126, -126]);
        assert_eq!(nearest(-1e-9), 0);
    }

    #[test]
    fn integers_stand_for_themselves() {
        assert_eq!([-255, 0, 7].map(|code| Alphabet::Integers.value(code)), [-255.0, 0.0, 7.0]);
        assert_eq!(Alphabet::Integers.nearest(0.4), None);
    }
}
