//! Finds the codes of one layer: by the method that is asked for, or by the best of several.

use ndarray::Array3;
use onnxquant_quant::{
    GramStats, LayerProblem, LayerSolution, Method, QuantError, Saturation, Verdict, auto, guarded, solve,
};

use crate::config::{Config, MethodChoice};
use crate::error::Error;
use crate::observe::calibration::LayerStats;
use crate::plan::layers::PlannedLayer;
use crate::solve::job::{Job, layer_problem};
use crate::solve::weights::failed;

/// Levels up to which pinning saturated weights first pays, inputs up to which its time is worth it, and rows an input
/// from which it holds on other data: see the table in docs/src/methods.md.
pub(crate) const PINNED_LEVELS: usize = 16;
const PINNED_INPUTS: usize = 2048;
const PINNED_ROWS: usize = 4;

/// Levels up to which `auto` tries walks, where there are fewer rows than inputs: with more rows there is hardly a kernel to
/// walk in, and with more levels what is gained in it is lost on other data (see docs/src/methods.md).
pub(crate) const WALKED_LEVELS: usize = 128;

/// Codes, and how they were chosen.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) solution: LayerSolution,
    pub(crate) method: Method,
    pub(crate) verdict: Option<Verdict>,
    /// Layers that have these codes.
    pub(crate) readers: usize,
}

/// The codes of a layer, or of several that read one weight, for these statistics.
pub(crate) fn find_codes(
    job: Job<'_>,
    layer: &PlannedLayer,
    weights: &Array3<f32>,
    stats: Option<&LayerStats<'_>>,
) -> Result<Found, Error> {
    let find = || {
        let problem = layer_problem(job, layer, weights, stats.map(|stats| stats.calibration))?;
        let method = layer.own.method.map_or(job.config.method, MethodChoice::Fixed);
        choose((method, job.config), &problem, stats.and_then(|stats| stats.validation))
    };
    let (solution, method, verdict) = find().map_err(|error| failed(job.model, layer, error))?;
    Ok(Found { solution, method, verdict, readers: 1 })
}

fn choose(
    (method, config): (MethodChoice, &Config),
    problem: &LayerProblem<'_>,
    validation: Option<&[GramStats]>,
) -> Result<(LayerSolution, Method, Option<Verdict>), QuantError> {
    match (method, validation) {
        _ if problem.stats().is_none() => Ok((solve(Method::Msq, problem)?, Method::Msq, None)),
        (MethodChoice::Auto, Some(validation)) => {
            let (solution, verdict) = auto(&candidates(problem), problem, validation)?;
            Ok((solution, verdict.winner().method, Some(verdict)))
        }
        (MethodChoice::Fixed(method), Some(validation)) if config.fallback && method.walks() => {
            let (solution, verdict) = guarded(method, problem, validation)?;
            Ok((solution, verdict.winner().method, Some(verdict)))
        }
        (MethodChoice::Auto, None) => Ok((solve(Method::Msq, problem)?, Method::Msq, None)),
        (MethodChoice::Fixed(method), Some(validation)) => {
            Ok((solve(method, &problem.with_held_out(validation)?)?, method, None))
        }
        (MethodChoice::Fixed(method), None) => Ok((solve(method, problem)?, method, None)),
    }
}

/// The methods between which `auto` chooses.
fn candidates(problem: &LayerProblem<'_>) -> Vec<Method> {
    let (levels, inputs) = (problem.spec().grid().levels(), problem.inputs());
    let rows = problem.stats().and_then(|stats| stats.first()).map_or(0, GramStats::n_rows);
    let pins = levels <= PINNED_LEVELS && inputs <= PINNED_INPUTS && rows >= PINNED_ROWS * inputs;
    let mut methods = vec![Method::Msq, if pins { Method::Saturate } else { Method::Feedback }];
    if levels <= WALKED_LEVELS && rows < inputs {
        methods.extend([Method::MalySaab { saturation: Saturation::Max }, Method::CellWalk]);
    }
    methods
}
