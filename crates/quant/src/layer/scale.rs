//! Chooses scale and zero point of every block of weights.
//!
//! # Problem
//!
//! Given weights that will share one scale, find `scale` and `zero_point` such
//! that the grid covers them, or covers most of them with less error.
//!
//! # Method
//!
//! `Max`: the least scale whose grid contains every weight and 0. With a free
//! zero point: `zero_point` = the code nearest to `-least / ((greatest - least) /
//! (levels - 1))`, then the least scale that contains both ends.
//! Of two zero points that are possible the one with the lesser scale.
//! `LeastSquares`: the range is shrunk by 14 factors 1, 0.95, ..., 0.35 (below a
//! third even 2-bit grids of heavy-tailed weights only lose) and the one kept
//! that minimises `sum_k h_k (w_k - q_k)^2`, `h_k` the mean square of input k, or
//! 1 without statistics; of equals the largest. Two zero points that are possible are both tried.
//! Levels of floats repeat at every power of two: there ranges up to twice as wide are tried as well, which place the
//! weights elsewhere between two powers and cut none.
//!
//! Where codes are bound to each other two by two ([`crate::layer::pairs`]) `Max` also contains every pair of weights, and
//! `LeastSquares` starts from there and counts what pairs beyond lose.
//!
//! # Numerics
//!
//! The scale is rounded to the type in which it is stored (up, so that the largest
//! weight stays inside; see [`ScaleType`](crate::ScaleType)) before any code is computed; everything
//! after uses the rounded scale. Where `scale * code` would overflow, the scale
//! is the largest for which it does not.
//!
//! # Failure
//!
//! None. All weights zero: scale 1 and every code the zero point; on a grid
//! without a zero level the least scale of the type instead. Weights so small that
//! the scale would be below that: the least scale.

use crate::layer::grid::{Affine, Grid, Symmetry};
use crate::layer::pairs;
use crate::layer::problem::LayerProblem;
use crate::layer::scale_type::Rounding;
use crate::layer::spec::{Granularity, QuantSpec, ScaleRule};
use ndarray::Array3;

const SHRINK_STEPS: i32 = 14;
const SHRINK_BY: f64 = 0.05;
const LANES: usize = 8;
/// Two codes of one sign add up to this at most; where weights, in steps, do not exceed the lesser number, neither do the
/// codes nearest to them.
const LARGEST_SUM: f32 = 128.0;
const FREE_SUM: f32 = LARGEST_SUM - 1.0;

/// Scale and zero point of every block.
#[derive(Clone, Debug)]
pub(crate) struct ScaleTable {
    affine: Array3<Affine>, // [groups, blocks, M]
    block_size: usize,
}

impl ScaleTable {
    /// Chooses the scales of a layer by `rule`.
    pub(crate) fn fit(problem: &LayerProblem<'_>, rule: ScaleRule) -> ScaleTable {
        let block_size = problem.spec().block_size(problem.inputs());
        let pairs = problem.pairs();
        let neurons = problem.map_neurons(|g, m| Neuron::new(problem, &pairs, g, m));
        let spec = problem.spec();
        let columns: Vec<Vec<Affine>> = match problem.spec().granularity() {
            Granularity::Tensor => {
                let affine = fit_together(&neurons, spec, rule);
                neurons.iter().map(|_| vec![affine]).collect()
            }
            Granularity::Channel => {
                problem.map_neurons(|g, m| vec![fit_together(&neurons[g * problem.outputs() + m..][..1], spec, rule)])
            }
            Granularity::Block(_) => problem.map_neurons(|g, m| {
                let neuron = &neurons[g * problem.outputs() + m];
                neuron.blocks(block_size).map(|block| fit_together(&[block], spec, rule)).collect()
            }),
        };
        ScaleTable::from_columns(problem, &columns)
    }

    /// From one list of blocks per neuron, neurons in order.
    pub(crate) fn from_columns(problem: &LayerProblem<'_>, columns: &[Vec<Affine>]) -> ScaleTable {
        let block_size = problem.spec().block_size(problem.inputs());
        let blocks = problem.inputs().div_ceil(block_size);
        let shape = (problem.groups(), blocks, problem.outputs());
        ScaleTable {
            affine: Array3::from_shape_fn(shape, |(g, b, m)| columns[g * problem.outputs() + m][b]),
            block_size,
        }
    }

    /// All scales times `factor`, zero points as they are.
    pub(crate) fn scaled(&self, spec: &QuantSpec, factor: f64) -> ScaleTable {
        let scaled =
            |affine: &Affine| spec.affine(factor * f64::from(affine.scale()), affine.zero_point(), Rounding::Nearest);
        ScaleTable { affine: self.affine.map(scaled), block_size: self.block_size }
    }

    /// Changes what the codes of a block mean.
    pub(crate) fn set(&mut self, group: usize, block: usize, output: usize, affine: Affine) {
        self.affine[[group, block, output]] = affine;
    }

    /// The meaning of input `k`'s codes.
    pub(crate) fn at(&self, group: usize, k: usize, output: usize) -> Affine {
        self.affine[[group, k / self.block_size, output]]
    }

    /// The scales of one neuron.
    pub(crate) fn blocks(&self, group: usize, output: usize) -> Vec<Affine> {
        let blocks = 0..self.affine.dim().1;
        blocks.map(|block| self.affine[[group, block, output]]).collect()
    }

    /// Inputs per block.
    pub(crate) fn block_size(&self) -> usize {
        self.block_size
    }

    /// `[groups, blocks, M]`.
    pub(crate) fn affine(&self) -> &Array3<Affine> {
        &self.affine
    }
}

/// Weights of one neuron, or of one block of it, with the importance of each.
struct Neuron {
    weights: Vec<f32>,
    importance: Vec<f64>,
    /// Pairs of weights of one sign whose codes are bound to each other, with what errors of either cost; those that are
    /// largest together come first.
    bound: Vec<([f32; 2], [f64; 2])>,
}

impl Neuron {
    /// `pairs` are the inputs whose codes are bound to each other.
    fn new(problem: &LayerProblem<'_>, pairs: &[(usize, usize)], group: usize, output: usize) -> Neuron {
        let weights = problem.neuron(group, output);
        let importance = match problem.stats() {
            Some(stats) => stats[group].mean_square().to_vec(),
            None => vec![1.0; weights.len()],
        };
        let pair = |(a, b): &(usize, usize)| ([weights[*a], weights[*b]], [importance[*a], importance[*b]]);
        let of_one_sign = |([a, b], _): &([f32; 2], _)| a * b > 0.0;
        let mut bound: Vec<_> = pairs.iter().map(pair).filter(of_one_sign).collect();
        bound.sort_by(|(a, _), (b, _)| sum(b).total_cmp(&sum(a)));
        Neuron { weights, importance, bound }
    }

    fn blocks(&self, size: usize) -> impl Iterator<Item = Neuron> {
        let blocks = self.weights.chunks(size).zip(self.importance.chunks(size));
        blocks.map(|(weights, importance)| Neuron {
            weights: weights.to_vec(),
            importance: importance.to_vec(),
            bound: Vec::new(),
        })
    }

    fn error(&self, affine: Affine, grid: &Grid) -> f64 {
        let lost = |w: f32, level: f32, h: f64| {
            let error = f64::from(w) - f64::from(level);
            h * error * error
        };
        let term = |w: f32, h: f64| lost(w, affine.nearest_levels([w], grid)[0], h);
        // Sums side by side, which the processor forms together.
        let (weights, last_weights) = self.weights.as_chunks::<LANES>();
        let (importance, last_importance) = self.importance.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for (weights, importance) in weights.iter().zip(importance) {
            let levels = affine.nearest_levels(*weights, grid);
            for lane in 0..LANES {
                sums[lane] += lost(weights[lane], levels[lane], importance[lane]);
            }
        }
        let rest = last_weights.iter().zip(last_importance).map(|(w, h)| term(*w, *h));
        sums.iter().sum::<f64>() + rest.sum::<f64>() + self.error_of_pairs(affine, term)
    }

    /// What the error is more because codes are bound to each other; `term` is the error of a weight whose code is not.
    fn error_of_pairs(&self, affine: Affine, term: impl Fn(f32, f64) -> f64) -> f64 {
        let beyond = |(weights, _): &&([f32; 2], _)| sum(weights) > affine.scale() * FREE_SUM;
        let more = |(weights, cost): &([f32; 2], [f64; 2])| {
            let codes = pairs::nearest(weights.map(|w| w / affine.scale()), *cost);
            let paid = |i: usize| cost[i] * (f64::from(weights[i]) - f64::from(affine.dequantize(codes[i]))).powi(2);
            paid(0) + paid(1) - term(weights[0], cost[0]) - term(weights[1], cost[1])
        };
        self.bound.iter().take_while(beyond).map(more).sum()
    }
}

/// Of two weights of one sign.
fn sum([a, b]: &[f32; 2]) -> f32 {
    a.abs() + b.abs()
}

fn fit_together(neurons: &[Neuron], spec: &QuantSpec, rule: ScaleRule) -> Affine {
    let all = || neurons.iter().flat_map(|neuron| &neuron.weights);
    let least = all().fold(0.0f32, |least, w| least.min(*w));
    let greatest = all().fold(0.0f32, |greatest, w| greatest.max(*w));
    let (least, greatest) = (f64::from(least), f64::from(greatest));
    // Pairs that are beyond at the scale of the largest weight need a range that is so much wider.
    let pair = neurons.iter().filter_map(|neuron| neuron.bound.first()).fold(0.0f32, |most, (w, _)| most.max(sum(w)));
    let reach = f64::from(pair / LARGEST_SUM) * f64::from(spec.grid().max_code());
    let wider = if pair > 0.0 { (reach / greatest.max(-least)).max(1.0) } else { 1.0 };
    if rule == ScaleRule::Max {
        return enclosing(wider * least, wider * greatest, spec);
    }
    let (first, mirrored) = zero_points(least, greatest, spec.grid());
    let mut best = None;
    let widest = wider.max(spec.grid().alphabet().period());
    let widened = ((widest - 1.0) / SHRINK_BY).ceil() as i32;
    for step in -widened..SHRINK_STEPS {
        let factor = 1.0 - SHRINK_BY * f64::from(step);
        for zero_point in std::iter::once(first).chain(mirrored) {
            let affine = enclosing_at(zero_point, factor * least, factor * greatest, spec);
            let error: f64 = neurons.iter().map(|neuron| neuron.error(affine, spec.grid())).sum();
            if best.is_none_or(|(smallest, _)| error < smallest) {
                best = Some((error, affine));
            }
        }
    }
    best.map_or_else(|| enclosing(least, greatest, spec), |(_, affine)| affine)
}

/// The zero point for weights from `least <= 0` to `greatest >= 0`, and the other one that is possible.
fn zero_points(least: f64, greatest: f64, grid: &Grid) -> (i16, Option<i16>) {
    let first = match grid.symmetry() {
        Symmetry::Symmetric => 0,
        Symmetry::Asymmetric => zero_point(least, greatest, grid),
    };
    (first, grid.is_mirrored().then_some(-1))
}

/// The least scale whose grid contains `least <= 0 <= greatest`.
fn enclosing(least: f64, greatest: f64, spec: &QuantSpec) -> Affine {
    let (first, mirrored) = zero_points(least, greatest, spec.grid());
    let plain = enclosing_at(first, least, greatest, spec);
    match mirrored.map(|zero_point| enclosing_at(zero_point, least, greatest, spec)) {
        Some(mirrored) if mirrored.scale() < plain.scale() => mirrored,
        _ => plain,
    }
}

/// The same with this zero point.
fn enclosing_at(zero_point: i16, least: f64, greatest: f64, spec: &QuantSpec) -> Affine {
    let grid = spec.grid();
    if least == 0.0 && greatest == 0.0 {
        let scale = if grid.has_zero() { 1.0 } else { 0.0 };
        return spec.affine(scale, grid.min_code().max(0), Rounding::Nearest);
    }
    let span = |real: f64, value: f32| if value > 0.0 { real / f64::from(value) } else { 0.0 };
    let (lowest, highest) = (grid.value(grid.min_code() - zero_point), grid.value(grid.max_code() - zero_point));
    let scale = span(greatest, highest).max(span(-least, -lowest));
    spec.affine(scale, zero_point, Rounding::Up)
}

/// The code nearest to where 0 lies if the ends lie at `least` and `greatest`.
fn zero_point(least: f64, greatest: f64, grid: &Grid) -> i16 {
    let steps = f64::from(grid.max_code() - grid.min_code());
    let offset = (-least / (greatest - least) * steps).round_ties_even() as i16;
    // Both ends can only be inside if each has a code of its own.
    let room = i16::from(grid.levels() > 2);
    let first = grid.min_code() + if least < 0.0 { room } else { 0 };
    let last = grid.max_code() - if greatest > 0.0 { room } else { 0 };
    (grid.min_code() + offset).clamp(first, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::scale_type::ScaleType;
    use crate::stats::gram::GramStats;
    use crate::testing::gaussian_rows;
    use ndarray::{Array3, Axis, array};
    use proptest::prelude::*;

    fn affine_of(weights: &[f32], grid: Grid, rule: ScaleRule) -> Affine {
        let weights = Array3::from_shape_vec((1, weights.len(), 1), weights.to_vec()).unwrap();
        let spec = QuantSpec::new(grid, Granularity::Channel, rule).unwrap();
        let problem = LayerProblem::new(weights.view(), None, spec).unwrap();
        ScaleTable::fit(&problem, rule).at(0, 0, 0)
    }

    fn grids() -> Vec<Grid> {
        let make = [Grid::symmetric, Grid::full_range, Grid::mirrored, Grid::asymmetric, Grid::mid_rise];
        let integers = make.iter().flat_map(|f| (2..=8).map(|bits| f(bits).unwrap()));
        integers.chain([Grid::e4m3()]).collect()
    }

    #[test]
    fn all_zero_weights_have_scale_one_and_the_code_of_zero() {
        for grid in grids() {
            for rule in [ScaleRule::Max, ScaleRule::LeastSquares] {
                let affine = affine_of(&[0.0, -0.0, 0.0], grid, rule);
                let code = affine.quantize(0.0, &grid);
                if grid.has_zero() {
                    assert_eq!((affine.scale(), code), (1.0, affine.zero_point()));
                }
                assert!(affine.dequantize(code).abs() < 1e-30);
            }
        }
    }

    #[test]
    fn denormal_and_huge_weights_give_a_normal_scale() {
        for grid in grids() {
            for w in [1e-45f32, 1e-39, f32::MAX] {
                let affine = affine_of(&[w, -w / 2.0], grid, ScaleRule::Max);
                assert!(affine.scale().is_normal(), "{w} {grid:?}");
            }
        }
    }

    #[test]
    fn constant_weights_are_kept() {
        for grid in grids().into_iter().filter(|grid| *grid != Grid::full_range(8).unwrap()) {
            for w in [0.37f32, -2.0e4] {
                let affine = affine_of(&[w; 5], grid, ScaleRule::Max);
                let back = affine.dequantize(affine.quantize(w, &grid));
                assert!((back - w).abs() <= 1e-6 * w.abs(), "{grid:?} {w} {back}");
            }
        }
    }

    #[test]
    fn least_squares_shrinks_for_an_outlier_on_a_quiet_input() {
        let mut weights = vec![0.9f32; 31];
        weights.push(2.0);
        let grid = Grid::symmetric(2).unwrap();
        let weights = Array3::from_shape_vec((1, 32, 1), weights).unwrap();
        let mut rows = gaussian_rows(64, 32, 1);
        rows.column_mut(31).fill(1e-3);
        let stats = [GramStats::from_rows(rows.view()).unwrap()];
        let spec = QuantSpec::new(grid, Granularity::Channel, ScaleRule::LeastSquares).unwrap();
        let problem = LayerProblem::new(weights.view(), Some(&stats), spec).unwrap();
        let max = ScaleTable::fit(&problem, ScaleRule::Max).at(0, 0, 0).scale();
        let best = ScaleTable::fit(&problem, ScaleRule::LeastSquares).at(0, 0, 0).scale();
        assert_eq!(max, 2.0);
        assert!(best < 1.2, "{best}");
    }

    #[test]
    fn the_mirrored_grid_has_its_longer_side_where_weights_need_it() {
        let grid = Grid::mirrored(2).unwrap();
        for (weights, zero_point) in [([-2.0f32, 1.0, 0.0], 0), ([2.0, -1.0, 0.0], -1)] {
            for rule in [ScaleRule::Max, ScaleRule::LeastSquares] {
                let affine = affine_of(&weights, grid, rule);
                assert_eq!((affine.scale(), affine.zero_point()), (1.0, zero_point), "{weights:?} {rule:?}");
            }
        }
    }

    #[test]
    fn granularity_decides_who_shares() {
        let weights = array![[[1.0f32, 4.0], [2.0, 8.0], [7.0, 14.0]]];
        let grid = Grid::symmetric(4).unwrap();
        let cases = [
            (Granularity::Tensor, array![[2.0f32, 2.0]]),
            (Granularity::Channel, array![[1.0, 2.0]]),
            (Granularity::Block(2), array![[2.0 / 7.0, 8.0 / 7.0], [1.0, 2.0]]),
        ];
        for (granularity, wanted) in cases {
            let spec = QuantSpec::new(grid, granularity, ScaleRule::Max).unwrap();
            let problem = LayerProblem::new(weights.view(), None, spec).unwrap();
            let table = ScaleTable::fit(&problem, ScaleRule::Max);
            let scales = table.affine().index_axis(Axis(0), 0).mapv(|affine| affine.scale());
            for (found, wanted) in scales.iter().zip(&wanted) {
                assert!((found - wanted).abs() < 1e-6, "{scales} {wanted}");
            }
        }
    }

    #[test]
    fn the_largest_number_of_the_type_does_not_decode_to_infinity() {
        let types = [(ScaleType::F32, f32::MAX), (ScaleType::F16, 65504.0), (ScaleType::Bf16, 3.38953e38)];
        for (scale_type, largest) in types {
            for grid in grids() {
                let weights = array![[[largest], [-largest], [largest / 3.0]]];
                let spec = QuantSpec::new(grid, Granularity::Channel, ScaleRule::Max).unwrap();
                let problem = LayerProblem::new(weights.view(), None, spec.with_scale_type(scale_type)).unwrap();
                let affine = ScaleTable::fit(&problem, ScaleRule::Max).at(0, 0, 0);
                let (least, greatest) = affine.ends(&grid);
                assert!(greatest.max(-least) <= largest * 1.0001, "{scale_type:?} {grid:?} {least} {greatest}");
                assert!(greatest.max(-least) >= largest * 0.99, "{scale_type:?} {grid:?} {least} {greatest}");
            }
        }
    }

    #[test]
    fn sixteen_bit_scales_contain_every_weight() {
        let weights = gaussian_rows(1, 50, 3).mapv(|w| w * 0.05);
        let weights = Array3::from_shape_vec((1, 50, 1), weights.iter().copied().collect()).unwrap();
        for scale_type in [ScaleType::F16, ScaleType::Bf16] {
            for grid in grids() {
                let spec = QuantSpec::new(grid, Granularity::Block(7), ScaleRule::Max).unwrap();
                let problem = LayerProblem::new(weights.view(), None, spec.with_scale_type(scale_type)).unwrap();
                let table = ScaleTable::fit(&problem, ScaleRule::Max);
                for (k, w) in weights.iter().enumerate() {
                    let affine = table.at(0, k, 0);
                    let (least, greatest) = affine.ends(&grid);
                    assert!(
                        scale_type.holds(affine.scale()) && (least..=greatest).contains(w),
                        "{scale_type:?} {grid:?}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn max_rule_contains_every_weight(weights in prop::collection::vec(-1e3f32..1e3, 1..20)) {
            for grid in grids() {
                let affine = affine_of(&weights, grid, ScaleRule::Max);
                let (least, greatest) = affine.ends(&grid);
                for w in &weights {
                    prop_assert!(least <= *w && *w <= greatest, "{w} in {least}..{greatest} {grid:?}");
                }
            }
        }
    }
}
