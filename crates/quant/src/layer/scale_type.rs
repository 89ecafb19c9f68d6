//! The floating-point type in which a model stores its scales.
//!
//! # Problem
//!
//! A scale is rounded to the type it is stored in before any code is computed, so
//! that what is exported is what was optimised.
//!
//! # Guarantee
//!
//! The scale is positive, a number of its type, and the real number of every code
//! of the grid is at most the type's largest number. Rounded [`Rounding::Up`] it is not below the number asked for, unless
//! that would break the last promise; then it is the next lower one that keeps it.
//!
//! # Numerics
//!
//! Least scales: the smallest normal `f32` and `bf16`; for `f16`, whose normal
//! numbers end at `6e-5`, the smallest denormal one.

use half::{bf16, f16};
use serde::Serialize;

/// The type of a model's scales, which is the type of its float weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleType {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 11 of them precision.
    F16,
    /// 16 bits, 8 of them precision.
    Bf16,
}

/// Which number of the type a scale becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    Nearest,
    /// The least that is not below.
    Up,
}

impl ScaleType {
    /// Whether `scale` can be stored exactly.
    pub fn holds(self, scale: f32) -> bool {
        self.nearest(f64::from(scale)) == scale
    }

    /// The scale for codes that stand for numbers up to `largest`.
    pub(crate) fn round(self, scale: f64, rounding: Rounding, largest: f32) -> f32 {
        let (least, greatest) = self.range();
        let mut rounded = self.nearest(scale).clamp(least, greatest);
        if rounding == Rounding::Up && f64::from(rounded) < scale && rounded < greatest {
            rounded = self.neighbour(rounded, 1);
        }
        let largest = f64::from(largest.max(1.0));
        let inside = |scale: f32| f64::from(scale) * largest <= f64::from(greatest);
        if !inside(rounded) {
            rounded = self.nearest(f64::from(greatest) / largest);
        }
        if inside(rounded) { rounded } else { self.neighbour(rounded, -1) }
    }

    fn nearest(self, scale: f64) -> f32 {
        match self {
            ScaleType::F32 => scale as f32,
            ScaleType::F16 => f16::from_f64(scale).to_f32(),
            ScaleType::Bf16 => bf16::from_f64(scale).to_f32(),
        }
    }

    fn range(self) -> (f32, f32) {
        match self {
            ScaleType::F32 => (f32::MIN_POSITIVE, f32::MAX),
            ScaleType::F16 => (f16::MIN_POSITIVE_SUBNORMAL.to_f32(), f16::MAX.to_f32()),
            ScaleType::Bf16 => (bf16::MIN_POSITIVE.to_f32(), bf16::MAX.to_f32()),
        }
    }

    /// The number `steps` further of a positive one; the bits of positive numbers count in order.
    fn neighbour(self, scale: f32, steps: i16) -> f32 {
        let wide = i32::from(steps);
        match self {
            ScaleType::F32 => f32::from_bits(scale.to_bits().wrapping_add_signed(wide)),
            ScaleType::F16 => f16::from_bits(f16::from_f32(scale).to_bits().wrapping_add_signed(steps)).to_f32(),
            ScaleType::Bf16 => bf16::from_bits(bf16::from_f32(scale).to_bits().wrapping_add_signed(steps)).to_f32(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPES: [ScaleType; 3] = [ScaleType::F32, ScaleType::F16, ScaleType::Bf16];

    #[test]
    fn rounding_up_takes_the_next_number_of_the_type() {
        let third = 1.0 / 3.0;
        let cases = [(ScaleType::F32, third as f32), (ScaleType::F16, 0.333_496_1), (ScaleType::Bf16, 0.333_984_38)];
        for (scale_type, wanted) in cases {
            let up = scale_type.round(third, Rounding::Up, 1.0);
            assert_eq!(up, wanted, "{scale_type:?}");
            assert_eq!(scale_type.round(0.25, Rounding::Up, 1.0), 0.25);
        }
    }

    #[test]
    fn out_of_range_scales_become_the_ends_of_what_codes_allow() {
        for scale_type in TYPES {
            let (least, greatest) = scale_type.range();
            for (scale, most) in [(f64::INFINITY, 127.0), (1e60, 1.0), (f64::from(greatest) / 127.0, 127.0), (0.0, 7.0)]
            {
                for rounding in [Rounding::Nearest, Rounding::Up] {
                    let rounded = scale_type.round(scale, rounding, most);
                    assert!(rounded >= least && rounded * most <= greatest, "{scale_type:?} {scale}");
                }
            }
            assert_eq!(scale_type.round(0.0, Rounding::Nearest, 7.0), least);
            assert_eq!(scale_type.round(f64::INFINITY, Rounding::Up, 1.0), greatest);
        }
    }

    proptest! {
        #[test]
        fn scales_are_numbers_of_their_type_next_to_the_one_asked_for(scale in 1e-3f64..10.0, most in 1f32..448.0) {
            for (scale_type, error) in [(ScaleType::F32, 2e-7), (ScaleType::F16, 1e-3), (ScaleType::Bf16, 8e-3)] {
                let up = scale_type.round(scale, Rounding::Up, most);
                let nearest = scale_type.round(scale, Rounding::Nearest, most);
                prop_assert!(scale_type.holds(up) && scale_type.holds(nearest));
                prop_assert!(f64::from(up) >= scale && nearest <= up);
                prop_assert!((f64::from(up) - scale).max((f64::from(nearest) - scale).abs()) <= error * scale);
            }
        }
    }
}
