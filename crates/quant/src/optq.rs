//! Error feedback along the Cholesky factor of the inputs' covariance (`optq`).
//!
//! # Problem
//!
//! Choose codes that minimise the layer's error on the calibration rows, not the
//! error of the weights: for each neuron w
//!
//! ```text
//! min over levels q of  (w - q)^T A (w - q),    A = H - mean mean^T + damping * mean(diag) * I
//! ```
//!
//! The mean row is taken out because the bias absorbs the mean error afterwards
//! ([`bias_correction`](crate::bias_correction)); where there is no bias to do so
//! (see [`LayerProblem::with_fixed_bias`]) it is left in.
//!
//! # Shapes and units
//!
//! Weights `[groups, K, M]`; one A, K x K, a group. The damping counts as part of
//! the objective: it keeps weights near their values where the data say little.
//!
//! # Method
//!
//! 1. Inputs in falling order of `H_kk`; `A = L L^T` once a group, shared by all
//!    its neurons ([`crate::quadratic`]).
//! 2. Scales by the specification's rule. On grids of up to 16 levels a few
//!    multiples of them are tried, and the one kept whose codes after feedback
//!    cost least: one multiple a neuron, or one for the layer with
//!    `Granularity::Tensor`.
//! 3. Error feedback ([`crate::panel`]): each weight is rounded after the errors of
//!    those before it were passed on to it.
//! 4. Coordinate descent over the codes, from there or from plain rounding,
//!    whichever costs less. Up to 16 inputs (depthwise convolutions): the
//!    best codes by branch and bound ([`crate::nearest_point`]).
//!
//! Inputs without variance are rounded to the nearest level.
//!
//! | paper | here |
//! |---|---|
//! | `H = 2 X X^T`, `H^-1 = U^T U` | `A = L L^T`, no inverse; rows in reverse order of rounding |
//! | `(w_q - quant(w_q)) / [H^-1]_qq` | `L_ki e_k / L_ii`, pulled instead of pushed |
//! | blocks of 128 columns, lazy updates | blocks of 64, one matrix product each |
//!
//! # Guarantee
//!
//! On its own objective never worse than rounding to the same scales. Without
//! clipping, feedback leaves at most `sum_i (step_i / 2)^2 L_ii^2` (Babai's nearest
//! plane), before the descent lowers it.
//!
//! # Numerics
//!
//! `f64`; levels are those the runtime computes in `f32`. Panels of a fixed number
//! of neurons are solved in parallel, each on one thread: the same bytes for any
//! number of threads.
//!
//! # Cost
//!
//! O(K^3 / 3) a group; `K^2` multiply-adds a neuron and multiple, about three times
//! that for the last two steps.
//!
//! # Failure
//!
//! Without the Gram matrix of every group, or if it stays indefinite under heavy
//! damping, an error. Damping above 0.01 is noted.
//!
//! # References
//!
//! E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, *OPTQ: accurate quantization
//! for generative pre-trained transformers*, ICLR 2023, arXiv 2210.17323.
//! J. Chen, Y. Shabanzadeh, E. Crnčević, T. Hoefler, D. Alistarh, *The geometry of LLM quantization: GPTQ as Babai's
//! nearest plane algorithm*, arXiv 2507.18553.
//! Step 4 as K. Behdin et al., *QuantEase*, arXiv 2309.01885.

use crate::error::QuantError;
use crate::grid::Affine;
use crate::method::Method;
use crate::nearest_point::{MOST_INPUTS, Search};
use crate::panel::{Panel, Rounded};
use crate::problem::LayerProblem;
use crate::quadratic::{FIRST_DAMPING, Quadratic};
use crate::scale::ScaleTable;
use crate::solution::{LayerSolution, Note};
use crate::spec::Granularity;
use faer::Mat;
use rayon::prelude::*;

/// Neurons solved side by side.
const PANEL: usize = 32;
/// Grids with more levels gain nothing from another scale.
const SEARCHED_LEVELS: usize = 16;
/// On grids with more levels the last multiples never win.
const WIDELY_SEARCHED_LEVELS: usize = 8;
/// Multiples of the fitted scale, the first of equals wins.
const MULTIPLES: [f64; 8] = [1.0, 0.9, 0.8, 0.7, 1.1, 0.6, 0.5, 0.4];
/// How many of them are tried on grids of more than [`WIDELY_SEARCHED_LEVELS`].
const NEAR_MULTIPLES: usize = 5;
const SWEEPS: usize = 4;

pub(crate) fn solve(problem: &LayerProblem<'_>) -> Result<LayerSolution, QuantError> {
    let layer = Layer::new(problem)?;
    let fitted = ScaleTable::fit(problem, problem.spec().scale_rule());
    let table = layer.best_multiples(fitted);
    let panels = layer.map_panels(|place| layer.solve_panel(place, &table));
    let weights = problem.weights();
    let mut solution = LayerSolution::round(problem, &table, |g, k, m| weights[[g, k, m]]);
    for (place, rounded) in layer.panels.iter().zip(panels) {
        let inputs = &layer.forms[place.group].inputs;
        for (codes, k) in rounded.codes.chunks(place.width()).zip(inputs) {
            for (code, m) in codes.iter().zip(place.first..) {
                solution.codes[[place.group, *k, m]] = *code;
            }
        }
    }
    solution.notes = layer.notes();
    Ok(solution)
}

struct Layer<'a, 'p> {
    problem: &'a LayerProblem<'p>,
    forms: Vec<Quadratic>,
    panels: Vec<Place>,
}

/// Neurons `first..end` of a group.
#[derive(Clone, Copy, Debug)]
struct Place {
    group: usize,
    first: usize,
    end: usize,
}

impl Place {
    fn width(&self) -> usize {
        self.end - self.first
    }
}

impl<'a, 'p> Layer<'a, 'p> {
    fn new(problem: &'a LayerProblem<'p>) -> Result<Layer<'a, 'p>, QuantError> {
        let needed = |found| QuantError::StatisticsNeeded { method: Method::Optq, needed: "the Gram matrix", found };
        let stats = problem.stats().ok_or_else(|| needed("none"))?;
        let form = |stats| Quadratic::new(stats, problem.corrects_bias())?.ok_or_else(|| needed("the diagonal only"));
        let forms = stats.par_iter().map(form).collect::<Vec<_>>();
        let outputs = problem.outputs();
        let place = |group, first| Place { group, first, end: outputs.min(first + PANEL) };
        let panels = (0..problem.groups()).flat_map(|g| (0..outputs).step_by(PANEL).map(move |m| place(g, m)));
        Ok(Layer { problem, forms: forms.into_iter().collect::<Result<_, _>>()?, panels: panels.collect() })
    }

    fn map_panels<T: Send>(&self, solve: impl Fn(Place) -> T + Sync) -> Vec<T> {
        self.panels.par_iter().map(|place| solve(*place)).collect()
    }

    fn panel(&self, place: Place) -> Panel<'_> {
        let form = &self.forms[place.group];
        let weights = self.problem.weights();
        let weight = |p, i| f64::from(weights[[place.group, form.inputs[i], place.first + p]]);
        let weights = Mat::from_fn(place.width(), form.inputs.len(), weight);
        Panel { form, grid: self.problem.spec().grid(), weights }
    }

    fn affine<'t>(&'t self, place: Place, table: &'t ScaleTable) -> impl Fn(usize, usize) -> Affine + 't {
        let inputs = &self.forms[place.group].inputs;
        move |i, p| table.at(place.group, inputs[i], place.first + p)
    }

    /// For every neuron the multiple of its scales that serves it best.
    fn best_multiples(&self, fitted: ScaleTable) -> ScaleTable {
        if self.problem.spec().grid().levels() > SEARCHED_LEVELS {
            return fitted;
        }
        let wide = self.problem.spec().grid().levels() <= WIDELY_SEARCHED_LEVELS;
        let multiples = if wide { &MULTIPLES[..] } else { &MULTIPLES[..NEAR_MULTIPLES] };
        let tables: Vec<ScaleTable> =
            multiples.iter().map(|multiple| fitted.scaled(self.problem.spec(), *multiple)).collect();
        let jobs: Vec<(&ScaleTable, Place)> =
            tables.iter().flat_map(|table| self.panels.iter().map(move |place| (table, *place))).collect();
        let energies: Vec<Vec<f64>> = jobs
            .into_par_iter()
            .map(|(table, place)| self.panel(place).feed_back(&self.affine(place, table)).1)
            .collect();
        let energies: Vec<Vec<f64>> = energies.chunks(self.panels.len()).map(<[Vec<f64>]>::concat).collect();
        let neurons = self.problem.groups() * self.problem.outputs();
        let best = |energy: &dyn Fn(usize) -> f64| {
            (1..tables.len()).fold(0, |best, t| if energy(t) < energy(best) { t } else { best })
        };
        let chosen: Vec<usize> = match self.problem.spec().granularity() {
            Granularity::Tensor => vec![best(&|t| energies[t].iter().sum()); neurons],
            Granularity::Channel | Granularity::Block(_) => {
                (0..neurons).map(|neuron| best(&|t| energies[t][neuron])).collect()
            }
        };
        let outputs = self.problem.outputs();
        let columns = chosen.iter().enumerate().map(|(n, t)| tables[*t].blocks(n / outputs, n % outputs));
        ScaleTable::from_columns(self.problem, &columns.collect::<Vec<_>>())
    }

    fn solve_panel(&self, place: Place, table: &ScaleTable) -> Rounded {
        let panel = self.panel(place);
        let affine = self.affine(place, table);
        let (mut best, energies) = panel.feed_back(&affine);
        let plain = panel.round(&affine);
        for (p, energy) in panel.energies(&plain).into_iter().enumerate() {
            if energy < energies[p] {
                best.take(p, &plain);
            }
        }
        panel.descend(&mut best, &affine, SWEEPS);
        let inputs = panel.weights.ncols();
        if (1..=MOST_INPUTS).contains(&inputs) {
            search(&panel, &mut best, &affine);
        }
        best
    }

    fn notes(&self) -> Vec<Note> {
        let raised = |(group, form): (usize, &Quadratic)| {
            let damping = form.damping;
            (damping > FIRST_DAMPING).then_some(Note::DampingRaised { group, damping })
        };
        self.forms.iter().enumerate().filter_map(raised).collect()
    }
}

/// Replaces codes by better ones where there are any.
fn search(panel: &Panel<'_>, best: &mut Rounded, affine: &impl Fn(usize, usize) -> Affine) {
    let (width, inputs) = (panel.weights.nrows(), panel.weights.ncols());
    for (p, energy) in panel.energies(best).into_iter().enumerate() {
        let weights: Vec<f64> = (0..inputs).map(|i| panel.weights[(p, i)]).collect();
        let affine: Vec<Affine> = (0..inputs).map(|i| affine(i, p)).collect();
        let factor = panel.form.factor.as_ref();
        let search = Search { factor, weights: &weights, affine: &affine, grid: panel.grid };
        for (i, code) in search.below(energy).into_iter().flatten().enumerate() {
            best.codes[i * width + p] = code;
        }
    }
}

#[cfg(test)]
#[path = "optq_tests.rs"]
mod tests;
