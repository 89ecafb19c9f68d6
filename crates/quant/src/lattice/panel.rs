//! Error feedback and coordinate descent on a few neurons side by side.
//!
//! # Shapes and units
//!
//! Matrices are P x K, column-major: P neurons of a panel lie next to each other
//! in memory, inputs in the order of [`Quadratic`]. `E = W - Q`, in units of the
//! weights.
//!
//! # Method
//!
//! Error feedback rounds from the last input to the first,
//!
//! ```text
//! t_i = w_i + sum_{k > i} L_ki e_k / L_ii,      q_i = nearest level of t_i
//! ```
//!
//! The sum over earlier blocks of [`BLOCK`] inputs is one matrix product; within
//! a block each column is added as soon as it is known. The error comes for free:
//! `e^T A e = sum_i L_ii^2 (t_i - q_i)^2`.
//!
//! Coordinate descent keeps `G = E A` and moves each code to the level nearest to
//! `q_i + g_i / A_ii`, the minimiser with all others fixed. Changes are carried to the other blocks of [`REACH`] inputs
//! by one product a block, and to all other inputs by one product for these.
//!
//! Inputs whose codes are bound to each other ([`crate::layer::pairs`]): the first of two that is rounded gives up its share of
//! what both weights are beyond, the second is cut to what the first has left. The descent moves codes inside that room,
//! and then moves steps from one code of a pair to the other.
//!
//! # Guarantee
//!
//! If no `t_i` lies beyond the grid's ends, feedback leaves an error of at most
//! `sum_i (step_i / 2)^2 L_ii^2` (Babai's nearest plane), where step i is the wider gap beside the level that was chosen.
//! Descent never raises it.
//!
//! # Numerics
//!
//! Weights, errors and matrices are `f32`, as weights are stored: twice the speed of `f64` at half the memory. What is
//! summed up over inputs, the cost, is `f64`. The guarantees hold up to the rounding of `f32`.
//!
//! # Cost
//!
//! `K^2` multiply-adds a neuron for feedback, with half of them skipped; `K^2` for `G` and for
//! each sweep of the descent.

pub(crate) mod descent;

use crate::lattice::quadratic::Quadratic;
use crate::layer::grid::{Affine, Grid};
use crate::layer::pairs::{self, PairRule};
use crate::layer::scale::ScaleTable;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// Inputs whose errors enter one matrix product.
pub(crate) const BLOCK: usize = 64;

/// Steps that two weights may gain together when each moves to either level around it.
const ROOM_TO_ROUND: f32 = 2.0;

/// Neurons of one group, with what their errors cost.
pub(crate) struct Panel<'a> {
    pub(crate) form: &'a Quadratic,
    /// `L`; only the lower triangle is read.
    pub(crate) lower: MatRef<'a, f32>,
    /// The damping on the diagonal of `A`.
    pub(crate) added: f32,
    pub(crate) grid: &'a Grid,
    /// By row of the form, the row whose code is bound to its code; empty where none is.
    pub(crate) partners: &'a [Option<usize>],
    /// P x K.
    pub(crate) weights: Mat<f32>,
}

/// Codes of a panel.
#[derive(Clone, Debug)]
pub(crate) struct Rounded {
    /// K columns of P codes.
    pub(crate) codes: Vec<i16>,
    /// `E`, P x K.
    pub(crate) errors: Mat<f32>,
}

/// What the codes of a panel mean.
#[derive(Clone, Debug)]
pub(crate) struct PanelScales {
    /// The block of every row of the form.
    blocks: Vec<usize>,
    /// Blocks of P entries.
    affine: Vec<Affine>,
    width: usize,
}

impl PanelScales {
    /// Those of the neurons `first..first + width` of a group.
    pub(crate) fn new(table: &ScaleTable, group: usize, first: usize, width: usize, inputs: &[usize]) -> PanelScales {
        let blocks = inputs.iter().map(|k| k / table.block_size()).collect();
        let affine = table.affine();
        let entry = |index: usize| affine[[group, index / width, first + index % width]];
        PanelScales { blocks, affine: (0..affine.dim().1 * width).map(entry).collect(), width }
    }

    /// How many blocks a neuron has.
    pub(crate) fn count(&self) -> usize {
        self.affine.len() / self.width
    }

    /// The rows of a block.
    pub(crate) fn rows(&self, block: usize) -> Vec<usize> {
        (0..self.blocks.len()).filter(|i| self.blocks[*i] == block).collect()
    }

    /// Row `i`, all neurons.
    pub(crate) fn at(&self, i: usize) -> &[Affine] {
        self.block(self.blocks[i])
    }

    /// A block, all neurons.
    pub(crate) fn block(&self, block: usize) -> &[Affine] {
        &self.affine[block * self.width..][..self.width]
    }

    /// Puts the scales of neurons from output `first` on into the table of the layer.
    pub(crate) fn write_into(&self, table: &mut ScaleTable, group: usize, first: usize) {
        for block in 0..self.count() {
            for (m, affine) in (first..).zip(self.block(block)) {
                table.set(group, block, m, *affine);
            }
        }
    }

    /// A block of one neuron.
    pub(crate) fn set(&mut self, block: usize, p: usize, affine: Affine) {
        self.affine[block * self.width + p] = affine;
    }
}

impl Panel<'_> {
    fn width(&self) -> usize {
        self.weights.nrows()
    }

    fn inputs(&self) -> usize {
        self.weights.ncols()
    }

    /// The row whose code is bound to that of row `i`.
    pub(crate) fn partner(&self, i: usize) -> Option<usize> {
        self.partners.get(i).copied().flatten()
    }

    /// The codes of row `i`, and what those of row `beside` leave them.
    fn split<'r>(&self, i: usize, beside: Option<usize>, codes: &'r mut [i16]) -> (&'r mut [i16], Rooms<'r>) {
        let width = self.width();
        let Some(j) = beside else { return (&mut codes[i * width..][..width], Rooms(&[])) };
        let (before, after) = codes.split_at_mut(width * i.max(j));
        let (upper, lower) = (&mut after[..width], &mut before[i.min(j) * width..][..width]);
        let (own, beside) = if i > j { (upper, lower) } else { (lower, upper) };
        (own, Rooms(beside))
    }

    fn empty(&self) -> Rounded {
        let (p, k) = (self.width(), self.inputs());
        Rounded { codes: vec![0; p * k], errors: Mat::zeros(p, k) }
    }

    /// Every weight to its nearest level. `scales` say what codes mean.
    pub(crate) fn round(&self, scales: &PanelScales) -> Rounded {
        let mut rounded = self.empty();
        for i in 0..self.inputs() {
            let column = self.weights.col_as_slice(i);
            rounded.set(i, column, column, self, scales, None);
            if let Some(j) = self.partner(i).filter(|j| *j < i) {
                self.round_pair(i, j, &mut rounded, scales);
            }
        }
        rounded
    }

    /// The nearest codes of two rows that may stand side by side.
    fn round_pair(&self, i: usize, j: usize, rounded: &mut Rounded, scales: &PanelScales) {
        let width = self.width();
        let cost = [i, j].map(|row| f64::from(self.form.matrix[(row, row)] + self.added));
        for (p, affine) in scales.at(i).iter().enumerate() {
            if PairRule::allows(rounded.codes[i * width + p], rounded.codes[j * width + p]) {
                continue;
            }
            let weights = [i, j].map(|row| self.weights[(p, row)]);
            let codes = pairs::nearest(weights.map(|w| w / affine.scale()), cost);
            for ((row, code), w) in [i, j].into_iter().zip(codes).zip(weights) {
                rounded.codes[row * width + p] = code;
                rounded.errors[(p, row)] = w - affine.dequantize(code);
            }
        }
    }

    /// Error feedback; and the error `e^T A e` of every neuron.
    pub(crate) fn feed_back(&self, scales: &PanelScales) -> (Rounded, Vec<f64>) {
        self.feed_back_from(&self.weights, scales)
    }

    /// The same with other numbers in the place of `w_i` in the formula for `t_i`; the errors stay those of W.
    pub(crate) fn feed_back_from(&self, starts: &Mat<f32>, scales: &PanelScales) -> (Rounded, Vec<f64>) {
        let (p, k) = (self.width(), self.inputs());
        let factor = self.lower;
        let starts_of = |i: usize| starts.col_as_slice(i);
        let mut rounded = self.empty();
        let mut energies = vec![0.0; p];
        let mut target = vec![0.0f32; p];
        let mut carried = Mat::<f32>::zeros(p, BLOCK);
        let mut end = k;
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            let size = end - start;
            multiply(
                carried.as_mut().subcols_mut(0, size),
                Accum::Replace,
                rounded.errors.as_ref().subcols(end, k - end),
                factor.submatrix(end, start, k - end, size),
            );
            for i in (start..end).rev() {
                let pivot = factor[(i, i)];
                let weights = self.weights.col_as_slice(i);
                for ((target, w), carried) in target.iter_mut().zip(starts_of(i)).zip(carried.col_as_slice(i - start)) {
                    *target = w + carried / pivot;
                }
                match self.partner(i) {
                    Some(j) if j < i => {
                        let aimed = self.aimed(i, j, &target, starts_of(j), scales.at(i));
                        rounded.set(i, &aimed, weights, self, scales, None);
                    }
                    beside => rounded.set(i, &target, weights, self, scales, beside),
                }
                let errors = rounded.errors.col_as_slice(i);
                for (((energy, target), w), e) in energies.iter_mut().zip(&target).zip(weights).zip(errors) {
                    // The level is w - e.
                    *energy += f64::from(pivot * (target - w + e)).powi(2);
                }
                for earlier in start..i {
                    add_scaled(carried.col_as_slice_mut(earlier - start), factor[(i, earlier)], errors);
                }
            }
            end = start;
        }
        (rounded, energies)
    }

    /// The targets of row `i` less what they give up for those of row `j`, which is bound to it and comes later.
    fn aimed(&self, i: usize, j: usize, targets: &[f32], later: &[f32], scales: &[Affine]) -> Vec<f32> {
        let cost = [i, j].map(|row| f64::from(self.lower[(row, row)]).powi(2));
        let less = |((target, later), affine): ((&f32, &f32), &Affine)| {
            let scale = affine.scale();
            target - scale * pairs::given_up([target / scale, later / scale], cost)
        };
        targets.iter().zip(later).zip(scales).map(less).collect()
    }

    /// What error feedback can leave of every neuron where it clips none of these codes: `sum_i (step_i / 2)^2 L_ii^2`.
    pub(crate) fn nearest_plane_bounds(&self, rounded: &Rounded, scales: &PanelScales) -> Vec<f64> {
        let mut bounds = vec![0.0; self.width()];
        for (i, codes) in rounded.codes.chunks(self.width()).enumerate() {
            for ((bound, code), affine) in bounds.iter_mut().zip(codes).zip(scales.at(i)) {
                let half_step = f64::from(self.grid.half_cell(*code));
                *bound += (half_step * f64::from(affine.scale()) * f64::from(self.lower[(i, i)])).powi(2);
            }
        }
        bounds
    }

    /// `(s / 2)^2` of every neuron, s the widest step beside its weights; infinite where a weight lies beyond its grid.
    pub(crate) fn widest_cells(&self, scales: &PanelScales) -> Vec<f64> {
        let mut cells = vec![0.0f64; self.width()];
        for i in 0..self.inputs() {
            for (p, ((cell, affine), w)) in
                cells.iter_mut().zip(scales.at(i)).zip(self.weights.col_as_slice(i)).enumerate()
            {
                let (least, greatest) = affine.ends(self.grid);
                let beside = self.partner(i).map_or(0.0, |j| self.weights[(p, j)]);
                let free = pairs::excess([*w, beside].map(|w| w / affine.scale())) <= -ROOM_TO_ROUND;
                let inside = (least..=greatest).contains(w) && (free || self.partners.is_empty());
                let half_step = f64::from(self.grid.half_cell(affine.quantize(*w, self.grid)));
                *cell = cell.max(if inside { (half_step * f64::from(affine.scale())).powi(2) } else { f64::INFINITY });
            }
        }
        cells
    }

    /// Rows bound to each other, the later one first.
    fn bound(&self) -> impl Iterator<Item = (usize, usize)> {
        let partners = self.partners.iter().enumerate();
        partners.filter_map(|(i, partner)| partner.filter(|j| *j < i).map(|j| (i, j)))
    }
}

/// What is left to codes by those beside them, by neuron; empty where nothing binds them.
struct Rooms<'r>(&'r [i16]);

impl Rooms<'_> {
    #[inline]
    fn cut(&self, p: usize, code: i16) -> i16 {
        let Some(beside) = self.0.get(p) else { return code };
        let (least, greatest) = PairRule::room(*beside);
        code.clamp(least, greatest)
    }
}

impl Rounded {
    /// Rounds `target` for input `i` and notes what that does to `weights`.
    /// Codes stay beside those of row `beside`.
    fn set(
        &mut self,
        i: usize,
        target: &[f32],
        weights: &[f32],
        panel: &Panel<'_>,
        scales: &PanelScales,
        beside: Option<usize>,
    ) {
        let (codes, rooms) = panel.split(i, beside, &mut self.codes);
        let errors = self.errors.col_as_slice_mut(i);
        let rows = codes.iter_mut().zip(errors).zip(target.iter().zip(weights)).zip(scales.at(i));
        for (p, (((code, error), (target, w)), affine)) in rows.enumerate() {
            *code = rooms.cut(p, affine.quantize(*target, panel.grid));
            *error = w - affine.dequantize(*code);
        }
    }

    /// Takes neuron `p` over from another solution.
    pub(crate) fn take(&mut self, p: usize, other: &Rounded) {
        let (width, inputs) = (self.errors.nrows(), self.errors.ncols());
        for i in 0..inputs {
            self.codes[i * width + p] = other.codes[i * width + p];
            self.errors[(p, i)] = other.errors[(p, i)];
        }
    }
}

pub(crate) fn add_scaled(target: &mut [f32], factor: f32, source: &[f32]) {
    for (target, source) in target.iter_mut().zip(source) {
        *target += factor * source;
    }
}

pub(crate) fn multiply(target: MatMut<'_, f32>, accum: Accum, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    matmul(target, accum, a, b, 1.0, Par::Seq);
}
