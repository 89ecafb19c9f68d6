//! Codes, scales and the crate's only rounding function.
//!
//! # Problem
//!
//! A real weight `x` is stored as a small integer `code` and read back as
//! `real = scale * value(code - zero_point)`, where [`Alphabet`] says what `value`
//! is: the number itself, or one from a table. A [`Grid`] says which codes exist,
//! an [`Affine`] says what they mean. Solvers know levels by what these two
//! answer, and nothing else.
//!
//! # Method
//!
//! [`Affine::quantize`] is ONNX `QuantizeLinear`: divide by the scale (never
//! multiply by a reciprocal), round to the nearest integer, ties to even, add
//! the zero point, saturate. For grids with step 2 (no zero level) the division
//! result is rounded to the nearest *odd* number; ties go to the even level
//! counted from code 1, so that it is the same function with another unit.
//! For numbers from a table it is `Cast`: divide by the scale, take the nearest
//! number, of two the one with the even code, saturate.
//!
//! # Numerics
//!
//! Everything is `f32`, as in the runtime that will read the codes, so what is
//! optimised is what is exported. NaN is refused before this function is called
//! (see [`LayerProblem::new`](crate::LayerProblem::new)).
//!
//! # References
//!
//! ONNX operator specification, `QuantizeLinear`, `DequantizeLinear` and `Cast`.

use crate::error::QuantError;
use crate::layer::alphabet::Alphabet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a grid may shift its zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Symmetry {
    /// The zero point is 0.
    Symmetric,
    /// The zero point is chosen per scale.
    Asymmetric,
}

/// The codes that exist: `min_code`, `min_code + step`, ..., `max_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Grid {
    min_code: i16,
    max_code: i16,
    step: i16,
    symmetry: Symmetry,
    /// The zero point may be 0 or -1.
    mirrored: bool,
    alphabet: Alphabet,
}

impl Grid {
    /// Codes `-(2^(bits-1) - 1) ..= 2^(bits-1) - 1`; for one bit the codes -1 and 1.
    pub fn symmetric(bits: u32) -> Result<Grid, QuantError> {
        let half = half_range(bits)?;
        if bits == 1 {
            return Grid::mid_rise(1);
        }
        Ok(Grid::new(1 - half, half - 1, 1, Symmetry::Symmetric))
    }

    /// Codes `-2^(bits-1) ..= 2^(bits-1) - 1`: every code of a signed storage type.
    pub fn full_range(bits: u32) -> Result<Grid, QuantError> {
        let half = half_range(bits)?;
        Ok(Grid::new(-half, half - 1, 1, Symmetry::Symmetric))
    }

    /// Every code of a signed storage type with zero point 0 or, their mirror image, -1: the side that needs it has the
    /// additional level. In a file `scale * (code + 1)` is `-scale * (-1 - code)`, so that no zero point is stored.
    pub fn mirrored(bits: u32) -> Result<Grid, QuantError> {
        Ok(Grid { mirrored: true, ..Grid::full_range(bits)? })
    }

    /// Codes `0 ..= 2^bits - 1` with a free zero point.
    pub fn asymmetric(bits: u32) -> Result<Grid, QuantError> {
        let half = half_range(bits)?;
        Ok(Grid::new(0, 2 * half - 1, 1, Symmetry::Asymmetric))
    }

    /// The odd codes `-(2^bits - 1) ..= 2^bits - 1`: `2^bits` equidistant levels
    /// that contain both ends and not zero, the alphabet of the kernel walk's paper.
    pub fn mid_rise(bits: u32) -> Result<Grid, QuantError> {
        let end = 2 * half_range(bits)? - 1;
        Ok(Grid::new(-end, end, 2, Symmetry::Symmetric))
    }

    /// The finite numbers of FP8 E4M3: codes -126 to 126, see [`Alphabet::E4m3`].
    pub fn e4m3() -> Grid {
        Grid { alphabet: Alphabet::E4m3, ..Grid::new(-126, 126, 1, Symmetry::Symmetric) }
    }

    pub(crate) const fn new(min_code: i16, max_code: i16, step: i16, symmetry: Symmetry) -> Grid {
        Grid { min_code, max_code, step, symmetry, mirrored: false, alphabet: Alphabet::Integers }
    }

    /// The least code.
    pub fn min_code(&self) -> i16 {
        self.min_code
    }

    /// The greatest code.
    pub fn max_code(&self) -> i16 {
        self.max_code
    }

    /// Whether the zero point is chosen per scale.
    pub fn symmetry(&self) -> Symmetry {
        self.symmetry
    }

    /// Whether the zero point may also be -1.
    pub fn is_mirrored(&self) -> bool {
        self.mirrored
    }

    /// What the codes stand for.
    pub fn alphabet(&self) -> Alphabet {
        self.alphabet
    }

    /// How many codes there are.
    pub fn levels(&self) -> usize {
        usize::from((self.max_code - self.min_code).unsigned_abs() / self.step.unsigned_abs()) + 1
    }

    /// Whether `code` is one of the grid's codes.
    pub fn contains(&self, code: i16) -> bool {
        (self.min_code..=self.max_code).contains(&code) && (code - self.min_code) % self.step == 0
    }

    /// Whether the real number 0 can be a level.
    pub fn has_zero(&self) -> bool {
        self.symmetry == Symmetry::Asymmetric || self.contains(0)
    }

    /// All codes in rising order.
    pub fn codes(&self) -> impl Iterator<Item = i16> + use<> {
        (self.min_code..=self.max_code).step_by(usize::from(self.step.unsigned_abs()))
    }

    /// What a code stands for, in units of the scale, where the zero point is 0.
    #[inline]
    pub fn value(&self, code: i16) -> f32 {
        self.alphabet.value(code)
    }

    /// The code nearest to a number in units of the scale; see the module's documentation.
    #[inline]
    pub fn nearest(&self, x: f32, zero_point: i16) -> i16 {
        match self.alphabet.nearest(x) {
            Some(code) => code.clamp(self.min_code, self.max_code),
            None => zero_point + self.nearest_steps(x, zero_point) as i16,
        }
    }

    /// Of codes that stand for themselves the nearest one, less the zero point.
    #[inline]
    fn nearest_steps(&self, x: f32, zero_point: i16) -> f32 {
        let step = f32::from(self.step);
        let anchor = f32::from((self.min_code - zero_point).rem_euclid(self.step));
        let steps = anchor + step * round_ties_even((x - anchor) / step);
        let least = f32::from(self.min_code - zero_point);
        let greatest = f32::from(self.max_code - zero_point);
        steps.clamp(least, greatest)
    }

    /// The codes of the levels below and above that of a code, where there are such.
    #[inline]
    pub fn neighbours(&self, code: i16) -> [Option<i16>; 2] {
        let if_on_grid = |code: i16| Some(code).filter(|code| self.contains(*code));
        [if_on_grid(code - self.step), if_on_grid(code + self.step)]
    }

    /// How far numbers between a code's level and the levels beside it can be from it and have it as the nearest one, in
    /// units of the scale: half of the wider gap.
    #[inline]
    pub fn half_cell(&self, code: i16) -> f32 {
        if self.alphabet.is_integers() {
            return f32::from(self.step) / 2.0;
        }
        let gap = |other: i16| (self.value(other) - self.value(code)).abs();
        self.neighbours(code).into_iter().flatten().map(gap).fold(0.0, f32::max) / 2.0
    }
}

fn half_range(bits: u32) -> Result<i16, QuantError> {
    if (1..=8).contains(&bits) {
        return Ok(1 << (bits - 1));
    }
    Err(QuantError::Setting { what: "bits", found: bits.to_string(), expected: "1 to 8" })
}

/// The meaning of codes: `real = scale * value(code - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Affine {
    scale: f32,
    zero_point: i16,
    alphabet: Alphabet,
}

impl Affine {
    /// Checks that the scale is a positive normal number.
    pub fn new(scale: f32, zero_point: i16) -> Result<Affine, QuantError> {
        if scale.is_normal() && scale > 0.0 {
            return Ok(Affine { scale, zero_point, alphabet: Alphabet::Integers });
        }
        Err(QuantError::Setting {
            what: "scale",
            found: scale.to_string(),
            expected: "a finite, positive, normal number",
        })
    }

    /// With a scale that is known to be a positive normal number.
    pub(crate) fn exact(scale: f32, zero_point: i16, alphabet: Alphabet) -> Affine {
        Affine { scale, zero_point, alphabet }
    }

    /// The same for codes of `alphabet`; [`Affine::new`] takes them for integers.
    pub fn with_alphabet(self, alphabet: Alphabet) -> Affine {
        Affine { alphabet, ..self }
    }

    /// What is multiplied with the numbers that codes stand for.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The code that means 0.
    pub fn zero_point(&self) -> i16 {
        self.zero_point
    }

    /// The real number a code stands for.
    #[inline]
    pub fn dequantize(&self, code: i16) -> f32 {
        self.scale * self.value(code)
    }

    /// The same in units of the scale.
    #[inline]
    pub(crate) fn value(&self, code: i16) -> f32 {
        self.alphabet.value(code - self.zero_point)
    }

    /// The grid's code nearest to `x`; see the module's documentation.
    #[inline]
    pub fn quantize(&self, x: f32, grid: &Grid) -> i16 {
        grid.nearest(x / self.scale, self.zero_point)
    }

    /// The levels of the grid's codes nearest to `numbers`; several at a time, which the processor then rounds together.
    #[inline]
    pub(crate) fn nearest_levels<const N: usize>(&self, numbers: [f32; N], grid: &Grid) -> [f32; N] {
        let mut levels = [0.0; N];
        if grid.alphabet.is_integers() {
            for (level, x) in levels.iter_mut().zip(numbers) {
                *level = self.scale * grid.nearest_steps(x / self.scale, self.zero_point);
            }
        } else {
            for (level, x) in levels.iter_mut().zip(numbers) {
                *level = self.dequantize(self.quantize(x, grid));
            }
        }
        levels
    }

    /// The real numbers of the grid's first and last code.
    pub fn ends(&self, grid: &Grid) -> (f32, f32) {
        (self.dequantize(grid.min_code), self.dequantize(grid.max_code))
    }
}

/// The nearest integer, of two the even one, where codes can tell; what lies far beyond every grid stays there.
///
/// Adding 1.5 * 2^23 leaves no bits for fractions, and the hardware rounds as wanted: several times faster than the
/// library's function where the compiler may not assume an instruction for it.
#[inline]
fn round_ties_even(x: f32) -> f32 {
    const LARGE: f32 = 12_582_912.0;
    const FAR: f32 = 1_048_576.0;
    (x.clamp(-FAR, FAR) + LARGE) - LARGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grids(bits: u32) -> [Grid; 6] {
        [
            Grid::e4m3(),
            Grid::symmetric(bits).unwrap(),
            Grid::mirrored(bits).unwrap(),
            Grid::full_range(bits).unwrap(),
            Grid::asymmetric(bits).unwrap(),
            Grid::mid_rise(bits).unwrap(),
        ]
    }

    #[test]
    fn grids_have_the_documented_codes() {
        let cases = [
            (Grid::symmetric(4), -7, 7, 1, 15),
            (Grid::symmetric(1), -1, 1, 2, 2),
            (Grid::symmetric(8), -127, 127, 1, 255),
            (Grid::full_range(2), -2, 1, 1, 4),
            (Grid::asymmetric(8), 0, 255, 1, 256),
            (Grid::mid_rise(2), -3, 3, 2, 4),
            (Grid::mid_rise(8), -255, 255, 2, 256),
        ];
        for (grid, min, max, step, levels) in cases {
            let grid = grid.unwrap();
            let found = (grid.min_code(), grid.max_code(), grid.step, grid.levels());
            assert_eq!(found, (min, max, step, levels));
            assert_eq!(grid.codes().count(), levels);
        }
        assert_eq!(Grid::e4m3().levels(), 253);

        assert!(Grid::symmetric(0).is_err() && Grid::symmetric(9).is_err());
    }

    #[test]
    fn rounding_is_ties_to_even_with_saturation() {
        let grid = Grid::symmetric(4).unwrap();
        let affine = Affine::new(0.5, 0).unwrap();
        let cases = [(0.25, 0), (0.75, 2), (1.25, 2), (-0.25, 0), (-0.75, -2), (9.0, 7), (-9.0, -7), (0.26, 1)];
        for (x, code) in cases {
            assert_eq!(affine.quantize(x, &grid), code, "x = {x}");
        }
    }

    #[test]
    fn rounding_with_a_zero_point_rounds_before_shifting() {
        let grid = Grid::asymmetric(4).unwrap();
        let affine = Affine::new(1.0, 7).unwrap();
        assert_eq!(affine.quantize(0.5, &grid), 7);
        assert_eq!(affine.quantize(1.5, &grid), 9);
        assert_eq!(affine.quantize(-100.0, &grid), 0);
    }

    #[test]
    fn rounding_on_odd_codes_takes_the_nearest_odd_code() {
        let grid = Grid::mid_rise(2).unwrap();
        let affine = Affine::new(1.0, 0).unwrap();
        for (x, code) in [(0.1, 1), (-0.1, -1), (1.9, 1), (2.1, 3), (7.0, 3)] {
            assert_eq!(affine.quantize(x, &grid), code, "x = {x}");
        }
    }

    #[test]
    fn neighbours_and_cells_are_those_of_the_levels() {
        let odd = Grid::mid_rise(2).unwrap();
        assert_eq!(
            [-3, 1, 3].map(|code| odd.neighbours(code)),
            [[None, Some(-1)], [Some(-1), Some(3)], [Some(1), None]]
        );
        assert_eq!([-3, 1, 3].map(|code| odd.half_cell(code)), [1.0; 3]);
        let floats = Grid::e4m3();
        // From 1 on steps are 1/8, below 1/16; from 256 on they are 32.
        assert_eq!([0, 0x37, 0x38, 126].map(|code| floats.half_cell(code)), [1.0 / 1024.0, 0.03125, 0.0625, 16.0]);
        assert_eq!([0, 126].map(|code| floats.neighbours(code)), [[Some(-1), Some(1)], [Some(125), None]]);
    }

    #[test]
    fn what_codes_mean_takes_eight_bytes() {
        assert_eq!(size_of::<Affine>(), 8);
    }

    #[test]
    fn scales_that_are_not_positive_normal_numbers_are_refused() {
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-45] {
            assert!(Affine::new(scale, 0).is_err(), "{scale}");
        }
    }

    #[test]
    fn rounding_is_that_of_the_library() {
        for i in -4000..4000 {
            let x = i as f32 / 8.0;
            assert_eq!(round_ties_even(x), x.round_ties_even(), "{x}");
            let near = f32::from_bits((x + 0.5).to_bits() + 1);
            assert_eq!(round_ties_even(near), near.round_ties_even(), "{near}");
        }
        assert!(round_ties_even(f32::INFINITY) > 1e5 && round_ties_even(-1e30) < -1e5);
    }

    proptest! {
        #[test]
        fn every_code_survives_a_round_trip(bits in 1u32..=8, scale in 1e-30f32..1e30, zero in 0i16..255) {
            for grid in grids(bits) {
                let zero = if grid.symmetry() == Symmetry::Asymmetric { zero.min(grid.max_code()) } else { 0 };
                let affine = Affine::new(scale, zero).unwrap().with_alphabet(grid.alphabet());
                for code in grid.codes() {
                    prop_assert_eq!(affine.quantize(affine.dequantize(code), &grid), code);
                }
            }
        }

        #[test]
        fn quantize_takes_a_nearest_level(bits in 1u32..=8, x in -3f32..3.0, scale in 0.01f32..1.0) {
            for grid in grids(bits) {
                let affine = Affine::new(scale, 0).unwrap().with_alphabet(grid.alphabet());
                let code = affine.quantize(x, &grid);
                prop_assert!(grid.contains(code));
                prop_assert_eq!(affine.nearest_levels([x, -x], &grid)[0], affine.dequantize(code));
                let error = (affine.dequantize(code) - x).abs();
                for other in grid.codes() {
                    prop_assert!(error <= (affine.dequantize(other) - x).abs() + 1e-5);
                }
                let (least, greatest) = affine.ends(&grid);
                if (least..=greatest).contains(&x) {
                    prop_assert!(error <= scale * grid.half_cell(code) * (1.0 + 1e-5) + 1e-6);
                }
                let [below, above] = grid.neighbours(code).map(|code| code.map(|code| affine.dequantize(code)));
                prop_assert!(below.is_none_or(|level| level < affine.dequantize(code)));
                prop_assert!(above.is_none_or(|level| level > affine.dequantize(code)));
            }
        }
    }
}
