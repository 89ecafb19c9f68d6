//! Codes of a layer in the metric of its data: what `optq`, `feedback`, `saturate` and `gpfq` share.
//!
//! # Problem
//!
//! With the forms and factors of [`crate::lattice::quadratic`], find scales and codes of all neurons with a small
//! `(w - q)^T A (w - q)`.
//!
//! # Method
//!
//! A [`Recipe`] says which of these steps are taken, and how often:
//!
//! 1. Scales by a rule; a few multiples of them are tried, and the one kept whose codes after error feedback cost
//!    least: one multiple a neuron, or one for the layer with `Granularity::Tensor`.
//! 2. Error feedback ([`crate::lattice::panel`]) or one of its variants ([`Start`]), or plain rounding where that costs less.
//! 3. Coordinate descent over the codes, in turn with a refit of the scales ([`crate::lattice::scale_refit`]).
//! 4. Up to 16 inputs (depthwise convolutions): the best codes for the scales by branch and bound
//!    ([`crate::lattice::nearest_point`]).
//!
//! # Guarantee
//!
//! Steps 3 and 4 never raise the cost. Codes belong to the scales that are returned.
//!
//! # Numerics
//!
//! `f32` with sums in `f64` ([`crate::lattice::panel`]); levels are those the runtime computes. Panels of a fixed number of neurons are solved in parallel,
//! each on one thread: the same bytes for any number of threads.

use crate::error::QuantError;
use crate::lattice::beam;
use crate::lattice::effective_dimension::MeanError;
use crate::lattice::nearest_point::{MOST_INPUTS, Search};
use crate::lattice::panel::descent::Descent;
use crate::lattice::panel::{Panel, PanelScales, Rounded};
use crate::lattice::pin::{self, Inverse};
use crate::lattice::quadratic::{Factor, Quadratic};
use crate::lattice::scale_refit::refit;
use crate::layer::grid::Affine;
use crate::layer::method::Method;
use crate::layer::pairs::PairRule;
use crate::layer::problem::LayerProblem;
use crate::layer::scale::ScaleTable;
use crate::layer::solution::{LayerSolution, Note, Promise};
use crate::layer::spec::{Granularity, ScaleRule};
use faer::Mat;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Neurons solved side by side: enough of them for the matrix to be read from memory at the speed of the products.
fn panel_width(inputs: usize) -> usize {
    if inputs > 1024 { 96 } else { 48 }
}

/// The forms of all groups with their factors.
#[derive(Clone, Debug)]
pub(crate) struct Forms {
    pub(crate) forms: Vec<Quadratic>,
    pub(crate) factors: Vec<Factor>,
}

impl Forms {
    /// For `method`, which is named where statistics are missing.
    pub(crate) fn new(method: Method, problem: &LayerProblem<'_>, damping: f64) -> Result<Forms, QuantError> {
        let needed = |found| QuantError::StatisticsNeeded { method: method.name(), needed: "the Gram matrix", found };
        let stats = problem.stats().ok_or_else(|| needed("none"))?;
        let form = |stats| Quadratic::new(stats, problem.corrects_bias()).ok_or_else(|| needed("the diagonal only"));
        let forms = stats.par_iter().map(form).collect::<Vec<_>>().into_iter().collect::<Result<Vec<_>, _>>()?;
        let factors = factors(&forms, damping)?;
        Ok(Forms { forms, factors })
    }
}

/// The factors of all groups.
pub(crate) fn factors(forms: &[Quadratic], damping: f64) -> Result<Vec<Factor>, QuantError> {
    forms.par_iter().map(|form| form.factor(damping)).collect::<Vec<_>>().into_iter().collect()
}

/// From what the descent starts.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Error feedback.
    FeedBack,
    /// The best of this many partial solutions ([`crate::lattice::beam`]).
    Beam(usize),
    /// Error feedback after weights beyond the grid were pinned to its ends ([`crate::lattice::saturate`]).
    Saturated(&'a [Inverse]),
}

/// Which steps are taken.
#[derive(Clone, Copy)]
pub(crate) struct Recipe<'a> {
    pub(crate) scale_rule: ScaleRule,
    /// The first of equals wins.
    pub(crate) multiples: &'a [f64],
    pub(crate) start: Start<'a>,
    /// How often scales are refitted.
    pub(crate) refits: usize,
    /// Passes of the descent after the last refit; before it there is one each.
    pub(crate) sweeps: usize,
}

/// A layer and the metric of its errors.
pub(crate) struct Lattice<'a, 'p> {
    problem: &'a LayerProblem<'p>,
    forms: &'a [Quadratic],
    factors: &'a [Factor],
    /// [`Panel::partners`] of every group.
    partners: Vec<Vec<Option<usize>>>,
    panels: Vec<Place>,
}

/// What is known of a panel's neurons together, before the descent.
pub(crate) struct Bounds {
    /// Of the nearest plane.
    nearest_plane: f64,
    /// Neurons beyond it.
    broken: usize,
    /// [`Panel::widest_cells`].
    cells: f64,
}

/// Neurons `first..end` of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) group: usize,
    pub(crate) first: usize,
    end: usize,
}

impl Place {
    fn width(&self) -> usize {
        self.end - self.first
    }
}

impl<'a, 'p> Lattice<'a, 'p> {
    pub(crate) fn new(problem: &'a LayerProblem<'p>, forms: &'a [Quadratic], factors: &'a [Factor]) -> Lattice<'a, 'p> {
        let outputs = problem.outputs();
        let width = panel_width(problem.inputs());
        let place = |group, first| Place { group, first, end: outputs.min(first + width) };
        let panels = (0..problem.groups()).flat_map(|g| (0..outputs).step_by(width).map(move |m| place(g, m)));
        let partners = forms.iter().map(|form| partners(problem, form)).collect();
        Lattice { problem, forms, factors, partners, panels: panels.collect() }
    }

    /// Scales and codes, and what they promise; `asked` is the damping that should have been enough.
    pub(crate) fn solve(&self, recipe: &Recipe<'_>, asked: f64) -> LayerSolution {
        let (mut solution, panels) = self.codes(recipe);
        let walks = self.forms.iter().zip(self.factors);
        let walks: Vec<MeanError> = walks.map(|(form, factor)| MeanError::new(form, factor)).collect();
        let mut promise = Promise {
            target: self.problem.weights().to_owned(),
            rounding: 0.0,
            broken: 0,
            attainable: 0.0,
            effective_dimension: walks.iter().map(|walk| walk.effective_dimension).sum(),
        };
        for (place, Bounds { nearest_plane, broken, cells }) in self.panels.iter().zip(panels) {
            promise.rounding += nearest_plane;
            promise.broken += broken;
            promise.attainable += walks[place.group].of(cells);
        }
        solution.promise = Some(promise);
        solution.notes = self.notes(asked);
        solution
    }

    /// Scales and codes, and what is known of every panel.
    pub(crate) fn codes(&self, recipe: &Recipe<'_>) -> (LayerSolution, Vec<Bounds>) {
        let fitted = ScaleTable::fit(self.problem, recipe.scale_rule);
        let table = self.best_multiples(fitted, recipe);
        self.solve_panels(&table, |panel, place, scales| {
            let (start, energies) = self.start(panel, place, scales, recipe.start);
            let bounds = panel.nearest_plane_bounds(&start, scales);
            let broken = energies.iter().zip(&bounds).filter(|(energy, bound)| energy > bound).count();
            let cells = panel.widest_cells(scales).iter().sum();
            let bounds = Bounds { nearest_plane: bounds.iter().sum(), broken, cells };
            (self.improve(panel, start, scales, recipe), bounds)
        })
    }

    /// Codes and scales of every panel by `solve`, and what it says of them; inputs that are not in a form are rounded on
    /// the scales of `table`.
    pub(crate) fn solve_panels<T: Send>(
        &self,
        table: &ScaleTable,
        solve: impl Fn(&Panel<'_>, Place, &mut PanelScales) -> (Rounded, T) + Sync,
    ) -> (LayerSolution, Vec<T>) {
        let solved = self.map_panels(|place| {
            let mut scales = self.scales(place, table);
            let (rounded, said) = solve(&self.panel(place), place, &mut scales);
            ((rounded, scales), said)
        });
        let (solved, said): (Vec<(Rounded, PanelScales)>, Vec<T>) = solved.into_iter().unzip();
        let mut table = table.clone();
        for (place, (_, scales)) in self.panels.iter().zip(&solved) {
            scales.write_into(&mut table, place.group, place.first);
        }
        let weights = self.problem.weights();
        let mut solution = LayerSolution::round(self.problem, &table, |g, k, m| weights[[g, k, m]]);
        for (place, (rounded, _)) in self.panels.iter().zip(solved) {
            let inputs = &self.forms[place.group].inputs;
            for (codes, k) in rounded.codes.chunks(place.width()).zip(inputs) {
                for (code, m) in codes.iter().zip(place.first..) {
                    solution.codes[[place.group, *k, m]] = *code;
                }
            }
        }
        self.cut_unseen(&mut solution);
        (solution, said)
    }

    /// Codes of inputs that are in no form give way to those beside them.
    fn cut_unseen(&self, solution: &mut LayerSolution) {
        let pairs = self.problem.pairs();
        for (group, form) in self.forms.iter().enumerate().filter(|_| !pairs.is_empty()) {
            let seen: HashSet<usize> = form.inputs.iter().copied().collect();
            for &(first, second) in &pairs {
                let (kept, cut) = if seen.contains(&second) { (second, first) } else { (first, second) };
                for m in 0..self.problem.outputs() {
                    let (least, greatest) = PairRule::room(solution.codes[[group, kept, m]]);
                    let code = &mut solution.codes[[group, cut, m]];
                    *code = (*code).clamp(least, greatest);
                }
            }
        }
    }

    pub(crate) fn map_panels<T: Send>(&self, solve: impl Fn(Place) -> T + Sync) -> Vec<T> {
        self.panels.par_iter().map(|place| solve(*place)).collect()
    }

    pub(crate) fn panel(&self, place: Place) -> Panel<'_> {
        let (form, factor) = (&self.forms[place.group], &self.factors[place.group]);
        let weights = self.problem.weights();
        let weight = |p, i| weights[[place.group, form.inputs[i], place.first + p]];
        let weights = Mat::from_fn(place.width(), form.inputs.len(), weight);
        let (partners, grid) = (&self.partners[place.group][..], self.problem.spec().grid());
        Panel { form, lower: factor.lower.as_ref(), added: factor.added, grid, partners, weights }
    }

    pub(crate) fn scales(&self, place: Place, table: &ScaleTable) -> PanelScales {
        PanelScales::new(table, place.group, place.first, place.width(), &self.forms[place.group].inputs)
    }

    /// The first codes and what they cost.
    fn start(&self, panel: &Panel<'_>, place: Place, scales: &PanelScales, start: Start<'_>) -> (Rounded, Vec<f64>) {
        match start {
            Start::FeedBack => panel.feed_back(scales),
            Start::Beam(beam) => beam::search(panel, scales, beam),
            Start::Saturated(inverses) => pin::start(panel, &inverses[place.group], scales),
        }
    }

    /// For every neuron the multiple of its scales that serves it best.
    fn best_multiples(&self, fitted: ScaleTable, recipe: &Recipe<'_>) -> ScaleTable {
        let [_, _, ..] = recipe.multiples else {
            return fitted;
        };
        // A search over partial solutions gains the same for all scales.
        let start = if matches!(recipe.start, Start::Beam(_)) { Start::FeedBack } else { recipe.start };
        let tables: Vec<ScaleTable> =
            recipe.multiples.iter().map(|multiple| fitted.scaled(self.problem.spec(), *multiple)).collect();
        let jobs: Vec<(&ScaleTable, Place)> =
            tables.iter().flat_map(|table| self.panels.iter().map(move |place| (table, *place))).collect();
        let energies: Vec<Vec<f64>> = jobs
            .into_par_iter()
            .map(|(table, place)| self.start(&self.panel(place), place, &self.scales(place, table), start).1)
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

    /// Steps 2 (plain rounding where it is cheaper) to 4.
    fn improve(&self, panel: &Panel<'_>, start: Rounded, scales: &mut PanelScales, recipe: &Recipe<'_>) -> Rounded {
        let mut best = panel.descent(start);
        let plain = panel.descent(panel.round(scales));
        let costs = best.energies().into_iter().zip(plain.energies());
        for (p, (own, plain_cost)) in costs.enumerate() {
            if plain_cost < own {
                best.take(p, &plain);
            }
        }
        // One scale for all panels cannot be refitted in one of them.
        let refits = if self.problem.spec().granularity() == Granularity::Tensor { 0 } else { recipe.refits };
        for _ in 0..refits {
            panel.descend(&mut best, scales, 1);
            if !refit(panel, &mut best, scales, self.problem.spec()) {
                break;
            }
        }
        panel.descend(&mut best, scales, recipe.sweeps);
        if (1..=MOST_INPUTS).contains(&panel.weights.ncols()) {
            best = decode(panel, best, scales);
            for _ in 0..refits {
                if !refit(panel, &mut best, scales, self.problem.spec()) {
                    break;
                }
                best = decode(panel, best, scales);
            }
        }
        best.rounded
    }

    fn notes(&self, asked: f64) -> Vec<Note> {
        let raised = |(group, factor): (usize, &Factor)| {
            let damping = factor.damping;
            (damping > asked).then_some(Note::DampingRaised { group, damping })
        };
        self.factors.iter().enumerate().filter_map(raised).collect()
    }
}

/// By row of the form, the row of the input whose code is bound to its code; empty where no codes are bound.
fn partners(problem: &LayerProblem<'_>, form: &Quadratic) -> Vec<Option<usize>> {
    let Some(rule) = problem.spec().pairs() else { return Vec::new() };
    let rows: HashMap<usize, usize> = form.inputs.iter().enumerate().map(|(row, input)| (*input, row)).collect();
    form.inputs.iter().map(|input| rows.get(&rule.partner(*input)?).copied()).collect()
}

/// Replaces codes by better ones where there are any.
fn decode(panel: &Panel<'_>, best: Descent, scales: &PanelScales) -> Descent {
    let (width, inputs) = (panel.weights.nrows(), panel.weights.ncols());
    let (energies, mut rounded) = (best.energies(), best.rounded);
    for (p, energy) in energies.into_iter().enumerate() {
        let weights: Vec<f32> = (0..inputs).map(|i| panel.weights[(p, i)]).collect();
        let affine: Vec<Affine> = (0..inputs).map(|i| scales.at(i)[p]).collect();
        let (grid, partners) = (panel.grid, panel.partners);
        let search = Search { factor: panel.lower, weights: &weights, affine: &affine, grid, partners };
        for (i, code) in search.below(energy).into_iter().flatten().enumerate() {
            rounded.codes[i * width + p] = code;
            rounded.errors[(p, i)] = weights[i] - affine[i].dequantize(code);
        }
    }
    panel.descent(rounded)
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
