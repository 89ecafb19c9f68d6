//! Lets held-out rows choose between methods.
//!
//! # Problem
//!
//! A walk preserves the layer on the calibration rows and may spoil it on all
//! others. Which method is best for a layer is decided on rows that none saw.
//!
//! # Method
//!
//! Every candidate is solved on the problem and judged by what its error leaves
//! on the held-out rows `X_h` after the bias was corrected from the calibration
//! rows, as it will be in use ([`corrected_error`]); where the layer's bias is fixed
//! ([`LayerProblem::with_fixed_bias`]) that is `|X_h W - X~_h Q|_F / |X_h W|_F`. The
//! least wins, the first of equals. Methods that do not walk enter with both scale
//! rules, unless they find the scales themselves; these choose their settings on the held-out rows too
//! ([`crate::lattice::retarget`]), and a note of the solution says which. Forms and factors of the data are made once for all
//! methods. Two short cuts, both
//! visible in the verdict: a walk without a kernel is `msq` and is not run; a
//! walk over a large layer is first run on 6 evenly spaced neurons and only
//! goes on if it beats the best so far there.
//!
//! [`guarded`] lets a method that was asked for by name run against rounding alone.
//!
//! Walks are left out where they, or the search for the kernel, would take more
//! than the limit of the problem's options ([`SolverOptions::with_walk_limit`](crate::SolverOptions::with_walk_limit))
//! by the estimates in [`crate::walks::walk`] and [`crate::walks::kernel`]. Called by its name a method has no such limit.
//!
//! # Cost
//!
//! The candidates' own costs and O(K^2 M) for each judgement; for each walk at
//! most the limit above.
//!
//! # Failure
//!
//! A candidate that fails is reported and passed over; if all fail, the first
//! error is returned.

use crate::certify::bias::Remaining;
use crate::choose::solve::{Prepared, solve_in};
use crate::error::QuantError;
use crate::error::shape_error;
use crate::lattice::recipe::Forms;
use crate::layer::method::Method;
use crate::layer::outcome::Outcome;
use crate::layer::problem::LayerProblem;
use crate::layer::solution::{LayerSolution, Note};
use crate::layer::spec::ScaleRule;
use crate::stats::gram::GramStats;
use crate::stats::layer_error::{Yardstick, ratio};
use crate::walks::kernel::Kernel;
use crate::walks::preprocess;
use ndarray::{Array3, ArrayView3, Axis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Neurons of a group on which an expensive walk has to win first.
const SCREENED_NEURONS: usize = 6;
/// Multiply-adds up to which screening is not worth it: about a second.
const CHEAP_WALK: f64 = 1e10;

/// One way to quantize the layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The method.
    pub method: Method,
    /// The rule for its scales.
    pub scale_rule: ScaleRule,
    /// What became of it.
    pub outcome: Outcome,
}

/// All candidates and which one won.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Index of the winner.
    pub chosen: usize,
    /// In the order in which they were tried.
    pub candidates: Vec<Candidate>,
}

impl Verdict {
    /// The winner.
    pub fn winner(&self) -> &Candidate {
        &self.candidates[self.chosen]
    }
}

/// `|X W - X~ Q|_F / |X W|_F` on the rows behind `held_out` (one entry per group).
pub fn relative_error(
    weights: ArrayView3<'_, f32>,
    dequantized: ArrayView3<'_, f32>,
    held_out: &[GramStats],
) -> Result<f64, QuantError> {
    if dequantized.dim() != weights.dim() {
        let expected = format!("{:?}", weights.shape());
        return Err(shape_error("dequantized weights", dequantized.shape(), expected));
    }
    check_held_out(weights, held_out)?;
    let weights = weights.mapv(f64::from);
    let errors = &weights - &dequantized.mapv(f64::from);
    let yardstick = Yardstick::new(held_out, weights);
    Ok(ratio(yardstick.lost(&errors), yardstick.output()))
}

fn check_held_out(weights: ArrayView3<'_, f32>, held_out: &[GramStats]) -> Result<(), QuantError> {
    let usable = |stats: &GramStats| stats.k() == weights.dim().1 && stats.gram().is_some();
    if held_out.len() == weights.dim().0 && held_out.iter().all(usable) {
        return Ok(());
    }
    let found: Vec<usize> = held_out.iter().map(GramStats::k).collect();
    let expected = format!("one Gram matrix per group of {:?}", weights.shape());
    Err(shape_error("held-out statistics", &found, expected))
}

/// Solves the layer with every method of `candidates` and keeps the solution
/// with the least error on `held_out` (one entry per group, with Gram matrices).
pub fn auto(
    candidates: &[Method],
    problem: &LayerProblem<'_>,
    held_out: &[GramStats],
) -> Result<(LayerSolution, Verdict), QuantError> {
    // Walks last: the others are cheap and set the mark that walks have to beat. Kernels are searched beside them, on
    // one thread.
    let (quick, walking): (Vec<Method>, Vec<Method>) = candidates.iter().partition(|method| !method.walks());
    let others = || {
        let mut judge = Judge::new(problem, held_out, candidates)?;
        for method in quick {
            if !method.fits_scales() {
                judge.run(method, ScaleRule::Max);
            }
            judge.run(method, ScaleRule::LeastSquares);
        }
        Ok(judge)
    };
    let (kernels, judge) = rayon::join(|| Kernels::search(problem, walking.first()), others);
    let (kernels, mut judge): (Kernels, Judge<'_>) = (kernels?, judge?);
    judge.walk_cost = kernels.walk_cost;
    judge.prepared.kernels = kernels.by_group;
    for method in walking {
        judge.walk(method);
    }
    judge.verdict()
}

/// Solves the layer with `method`, or by rounding ([`Method::Msq`]) where that is no worse on `held_out`.
pub fn guarded(
    method: Method,
    problem: &LayerProblem<'_>,
    held_out: &[GramStats],
) -> Result<(LayerSolution, Verdict), QuantError> {
    let (mut solution, verdict) = auto(&[Method::Msq, method], problem, held_out)?;
    if verdict.winner().method != method {
        let own = verdict.candidates.iter().find(|candidate| candidate.method == method);
        solution.notes.extend(own.map(|own| Note::FellBack { method, outcome: own.outcome.clone() }));
    }
    Ok((solution, verdict))
}

/// What walks need to know of the data.
struct Kernels {
    /// Empty where the search would take too long.
    by_group: Vec<Kernel>,
    /// Multiply-adds of a walk or of the search, whichever is more.
    walk_cost: f64,
}

impl Kernels {
    /// For walks by this method, if there is one.
    fn search(problem: &LayerProblem<'_>, walking: Option<&Method>) -> Result<Kernels, QuantError> {
        let searches: f64 = problem.stats().iter().flat_map(|stats| stats.iter()).map(Kernel::search_cost).sum();
        let by_group = match walking {
            Some(method) if searches <= problem.options().walk_limit() => preprocess::kernels(*method, problem)?,
            _ => Vec::new(),
        };
        let walks: f64 = by_group.iter().map(|kernel| kernel.walk_cost() * problem.outputs() as f64).sum();
        Ok(Kernels { by_group, walk_cost: walks.max(searches) })
    }
}

struct Judge<'a> {
    problem: LayerProblem<'a>,
    held_out: &'a [GramStats],
    remaining: Remaining<'a>,
    prepared: Prepared,
    /// [`Kernels::walk_cost`], once it is known.
    walk_cost: f64,
    candidates: Vec<Candidate>,
    best: Option<(usize, f64, LayerSolution)>,
    first_error: Option<QuantError>,
}

impl<'a> Judge<'a> {
    fn new(
        problem: &'a LayerProblem<'_>,
        held_out: &'a [GramStats],
        candidates: &[Method],
    ) -> Result<Judge<'a>, QuantError> {
        let quadratic = candidates.iter().find(|method| method.is_quadratic());
        // Where they cannot be made every method fails by itself, and says why.
        let forms = quadratic.and_then(|method| Forms::new(*method, problem, problem.damping()).ok());
        let (problem, prepared) = (problem.with_held_out(held_out)?, Prepared { kernels: Vec::new(), forms });
        let remaining = Remaining::new(&problem, held_out);
        Ok(Judge {
            problem,
            held_out,
            remaining,
            prepared,
            walk_cost: 0.0,
            candidates: Vec::new(),
            best: None,
            first_error: None,
        })
    }

    fn walk(&mut self, method: Method) {
        let scale_rule = self.problem.spec().scale_rule();
        let limit = self.problem.options().walk_limit();
        if self.walk_cost > limit {
            let outcome = Outcome::TooExpensive { multiply_adds: self.walk_cost, limit };
            self.record(method, scale_rule, outcome);
            return;
        }
        let known = self
            .candidates
            .iter()
            .any(|candidate| candidate.method == Method::Msq && candidate.scale_rule == scale_rule);
        if known && preprocess::all_trivial(&self.prepared.kernels) {
            self.record(method, scale_rule, Outcome::SameAsRounding);
            return;
        }
        match self.screen(method) {
            Some(outcome) => self.record(method, scale_rule, outcome),
            None => self.run(method, scale_rule),
        }
    }

    /// The outcome of a walk that need not be run on the whole layer.
    fn screen(&self, method: Method) -> Option<Outcome> {
        let (_, _, best) = self.best.as_ref()?;
        let outputs = self.problem.outputs();
        if outputs < 2 * SCREENED_NEURONS || self.walk_cost < CHEAP_WALK {
            return None;
        }
        let chosen: Vec<usize> = (0..SCREENED_NEURONS).map(|i| i * outputs / SCREENED_NEURONS).collect();
        let weights = self.problem.weights().select(Axis(2), &chosen);
        let few = self.problem.with_weights(weights.view()).ok()?;
        let walked = solve_in(&self.prepared, method, &few).ok()?.dequantize();
        let best = best.dequantize().select(Axis(2), &chosen);
        let remaining = Remaining::new(&few, self.held_out);
        let error = |levels: &Array3<f32>| remaining.error(levels.view()).ok();
        let (error, best) = (error(&walked)?, error(&best)?);
        (error >= best).then_some(Outcome::ScreenedOut { error, best })
    }

    fn run(&mut self, method: Method, scale_rule: ScaleRule) {
        let problem = self.problem.with_spec(self.problem.spec().with_scale_rule(scale_rule));
        let solved = solve_in(&self.prepared, method, &problem).and_then(|solution| {
            let levels = solution.dequantize();
            let error = self.remaining.error(levels.view())?;
            Ok((solution, error))
        });
        match solved {
            Err(error) => {
                self.record(method, scale_rule, Outcome::Failed(error.to_string()));
                self.first_error.get_or_insert(error);
            }
            Ok((solution, error)) => {
                if self.best.as_ref().is_none_or(|(_, least, _)| error < *least) {
                    self.best = Some((self.candidates.len(), error, solution));
                }
                self.record(method, scale_rule, Outcome::HeldOutError(error));
            }
        }
    }

    fn record(&mut self, method: Method, scale_rule: ScaleRule, outcome: Outcome) {
        self.candidates.push(Candidate { method, scale_rule, outcome });
    }

    fn verdict(self) -> Result<(LayerSolution, Verdict), QuantError> {
        match self.best {
            Some((chosen, _, solution)) => {
                let candidates = self.candidates;
                Ok((solution, Verdict { chosen, candidates }))
            }
            None => Err(self.first_error.unwrap_or(QuantError::NoCandidates)),
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
