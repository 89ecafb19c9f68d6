//! Decides which layers run on integers, and on which scales.
//!
//! | scheme | Conv | MatMul, Gemm |
//! |---|---|---|
//! | static | regions | regions |
//! | dynamic | weights only | codes of the input made at run time |
//! | auto | regions | in a region behind a Conv, else codes made at run time |
//!
//! Regions come from [`onnxquant_passes::integer`].

use std::sync::Arc;

use onnxquant_ir::Model;

use crate::config::{Activations, Config};
use crate::decide::decided::Decided;
use crate::decide::distributions::observed;
use crate::decide::equalize::equalize;
use crate::decide::fastest::fastest;
use crate::decide::goal::Goal;
use crate::decide::ranges::{Ranges, Trial};
use crate::decide::rescale::rescale;
use crate::decide::retreat::{Retreat, SENSITIVITY_SAMPLES};
use crate::decide::trail::{JudgedBy, Weights};
use crate::error::Error;
use crate::judge::compare::Reference;
use crate::judge::held_out::Judge;
use crate::observe::observer::Observer;
use crate::plan::assignment::Assignment;
use crate::plan::scales::{Origin, Scales};
use crate::progress::silent;
use crate::write::evaluated::Arithmetic;

/// Held-out samples on which integers are judged before weights are fitted.
const FIRST_SAMPLES: usize = 8;

/// What runs on integers under `config`; nothing where activations stay floats, of which the sizes alone are seen then.
///
/// Channels of values are rescaled where that makes the codes of activations finer; the layers of the plan are found
/// anew then.
pub(crate) fn decide_integers(start: Decided, config: &Config, observer: &Observer<'_>) -> Result<Decided, Error> {
    if start.plan.layers.is_empty() {
        return Ok(start);
    }
    let mut now = start;
    now.assignment = fastest(&now.model, &now.plan, config, observer)?;
    if config.activations == Activations::Float {
        return Ok(now);
    }
    now.trail.rescaled = rescale(&mut now.model, &mut now.plan, config, now.assignment.dynamic(), observer)?;
    if now.trail.rescaled > 0 {
        now.assignment = fastest(&now.model, &now.plan, config, observer)?;
    }
    let has_regions = !now.assignment.regions().units.is_empty();
    if !has_regions && (now.assignment.is_empty() || Goal::of(config).is_none()) {
        return Ok(now);
    }
    let calibration = observer.calibration();
    let float = Arc::new(Reference::new(now.model.clone(), calibration, &calibration.samples.split.validation)?);
    if has_regions {
        now = equalize(now, config, observer, &float)?;
        now.assignment = find_scales(&now.assignment, &now.model, config, observer, float.clone())?;
    }
    let judge = Judge::beside(float, &now.model, calibration, Arithmetic::File);
    let (samples, progress) = (judge.first_samples(FIRST_SAMPLES), observer.progress());
    let whole = |candidate: &Assignment| judge.with_float_weights(candidate, samples, progress);
    let few = judge.first_samples(SENSITIVITY_SAMPLES);
    let alone = |candidate: &Assignment| judge.with_float_weights(candidate, few, &silent);
    let (graph, weights) = (now.model.graph(), Weights::Float);
    let question = Retreat { graph, config, weights, judged_by: JudgedBy::Simulation, whole: &whole, alone: &alone };
    (now.assignment, now.trail) = question.from(now.assignment, now.trail)?;
    Ok(now)
}

/// Gives the tensors of the regions their scales: by the method that is asked for, else by those that leave the
/// outputs of validation samples the least error, in comparison with `float`.
fn find_scales(
    assignment: &Assignment,
    model: &Model,
    config: &Config,
    observer: &Observer<'_>,
    float: Arc<Reference>,
) -> Result<Assignment, Error> {
    let graph = model.graph();
    let (assignment, histograms) = observed(assignment, model, config, observer, usize::MAX)?;
    let scaled = match config.range {
        Some(range) => {
            let rules = assignment.rules(graph, config);
            let scales = Scales::uniform(rules, assignment.values(), &histograms, range, Origin::Settings)?;
            assignment.on_scales(graph, scales)?
        }
        None => {
            let judge = Judge::beside(float, model, observer.calibration(), Arithmetic::File);
            let progress = observer.progress();
            let measure = |trial: &Trial| {
                let progress = if trial.samples == Trial::ALL { progress } else { &silent };
                judge.with_float_weights(&trial.assignment, judge.first_samples(trial.samples), progress)
            };
            let validation = judge.first_samples(Trial::ALL).len();
            Ranges { graph, config, histograms: &histograms, validation, measure: &measure }.of(&assignment)?
        }
    };
    Ok(scaled.with_distributions(histograms))
}
