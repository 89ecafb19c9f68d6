//! Makes the channels of activations even where what makes them can take the factors.
//!
//! # Problem
//!
//! A value that is stored on one fixed scale rounds its narrow channels coarsely. Dividing channels by factors that the
//! layer before takes, and multiplying the weights behind, changes nothing in float and makes the channels even
//! ([`onnxquant_quant::equalization_factors`]).
//!
//! # Method
//!
//! Values that only layers on fixed scales read, and that a Conv, Gemm, MatMul, normalization or Mul makes (over Relu,
//! pooling and the like), get the factors of least expected error. The outputs of validation samples decide: all values,
//! or the half that gains most, or none. Weights are rounded for that comparison, since factors make them less even.
//!
//! # Guarantee
//!
//! Exact in real arithmetic. The error of the validation outputs falls, or the model stays as it is.
//!
//! # Cost
//!
//! A run of at most [`SAMPLES`] calibration samples, and for each of up to three states of the model one of
//! [`RANGE_SAMPLES`] and one over at most [`VALIDATION_SAMPLES`] validation ones.

use std::sync::Arc;

use onnxquant_calib::Measurement;
use onnxquant_ir::Model;
use onnxquant_passes::migrate_scale::{can_absorb, migrate};
use onnxquant_passes::sites::Site;
use onnxquant_passes::write_codes::PackedWeight;
use onnxquant_quant::{ChannelAxis, Equalization, MatrixView, Method, RangeMethod, equalization_factors};

use crate::accuracy::{Accuracy, accuracy};
use crate::config::{Config, MethodChoice};
use crate::decide::decided::Decided;
use crate::decide::distributions::observed;
use crate::decide::fastest::fastest;
use crate::decide::measure::{Measure, error};
use crate::decide::trail::Trail;
use crate::error::Error;
use crate::judge::compare::Reference;
use crate::judge::held_out::Judge;
use crate::load::check;
use crate::observe::observer::Observer;
use crate::plan::assignment::Assignment;
use crate::plan::layers::{Plan, PlannedLayer};
use crate::plan::scales::{Origin, Scales};
use crate::progress::silent;
use crate::solve::job::Job;
use crate::solve::layers::solve_layers;
use crate::solve::solved::SolvedLayer;
use crate::solve::weights::stored_weight;
use crate::write::codes::Codes;
use crate::write::evaluated::Arithmetic;

/// Calibration samples from which the factors are found.
const SAMPLES: usize = 32;
/// Calibration samples from which ranges are found for the comparison.
const RANGE_SAMPLES: usize = 16;
/// Held-out samples on which outputs are compared.
const VALIDATION_SAMPLES: usize = 8;

/// The factors of one value, which is known by its name.
struct Candidate {
    name: String,
    found: Equalization,
}

/// Evens out values of the model where that makes validation outputs more exact. `float` computes what the model does.
pub(super) fn equalize(
    start: Decided,
    config: &Config,
    observer: &Observer<'_>,
    float: &Arc<Reference>,
) -> Result<Decided, Error> {
    let mut candidates = candidates(&start.model, &start.plan, &start.assignment, observer)?;
    if candidates.is_empty() {
        return Ok(start);
    }
    candidates.sort_by(|a, b| a.found.error_left.total_cmp(&b.found.error_left));
    let change = |start: &Decided, count: usize| {
        let (mut model, mut plan) = (start.model.clone(), start.plan.clone());
        let equalized = apply(&mut model, &mut plan, &candidates[..count], config)?;
        let assignment = fastest(&model, &plan, config, observer)?;
        let trail = Trail { equalized, ..start.trail.clone() };
        Ok((Decided { model, plan, assignment, trail }, equalized))
    };
    let measure = |state: &Decided| {
        let judge = Judge::beside(float.clone(), &state.model, observer.calibration(), Arithmetic::File);
        accuracy_with_rounded_weights(&judge, &state.plan, &state.assignment, config, observer)
    };
    as_many_as_help(start, candidates.len(), change, &measure)
}

/// With all of so many candidates, or the first half of them, or none: the first of these that makes the outputs more
/// exact. `change` makes the state with the first ones, and says how many it could take.
fn as_many_as_help<S>(
    start: S,
    candidates: usize,
    change: impl Fn(&S, usize) -> Result<(S, usize), Error>,
    measure: &dyn Measure<S>,
) -> Result<S, Error> {
    let before = error(measure, &start)?;
    for count in [candidates, candidates / 2] {
        if count == 0 || count == candidates / 2 && candidates == 1 {
            break;
        }
        let (changed, taken) = change(&start, count)?;
        if taken > 0 && error(measure, &changed)? < before {
            return Ok(changed);
        }
    }
    Ok(start)
}

/// Values that can be evened out, and how.
fn candidates(
    model: &Model,
    plan: &Plan,
    assignment: &Assignment,
    observer: &Observer<'_>,
) -> Result<Vec<Candidate>, Error> {
    let graph = model.graph();
    let is_static = |layer: &&PlannedLayer| assignment.is_static(layer.site.id());
    let mut groups: Vec<(String, Vec<&PlannedLayer>)> = Vec::new();
    for layer in plan.layers.iter().filter(is_static) {
        let name = graph.value(layer.site.input).name().to_owned();
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, layers)) => layers.push(layer),
            None => groups.push((name, vec![layer])),
        }
    }
    groups.retain(|(_, layers)| can_absorb(graph, layers[0].site.input, &sites(layers)));
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let requests: Vec<(String, ChannelAxis)> =
        groups.iter().map(|(name, layers)| (name.clone(), axis(&layers[0].site))).collect();
    let ranges = observer.channels(model, &requests, SAMPLES)?;
    let mut found = Vec::new();
    for ((name, layers), ranges) in groups.into_iter().zip(ranges) {
        let weights = layers.iter().map(|layer| stored_weight(model, layer)).collect::<Result<Vec<_>, _>>()?;
        let weights: Vec<Vec<f32>> = weights.into_iter().map(|weight| weight.into_iter().collect()).collect();
        let layers: Vec<(&MatrixView, &[f32])> =
            layers.iter().zip(&weights).map(|(layer, weight)| (&layer.site.view, weight.as_slice())).collect();
        found.extend(equalization_factors(&ranges, &layers).map(|found| Candidate { name, found }));
    }
    Ok(found)
}

fn sites(layers: &[&PlannedLayer]) -> Vec<Site> {
    layers.iter().map(|layer| layer.site.clone()).collect()
}

fn axis(site: &Site) -> ChannelAxis {
    if site.view.is_dense() { ChannelAxis::Last } else { ChannelAxis::Second }
}

/// Moves the factors; the layers of `plan` are found anew after each change. Returns how many values have changed.
fn apply(model: &mut Model, plan: &mut Plan, candidates: &[Candidate], config: &Config) -> Result<usize, Error> {
    let mut moved = 0;
    for Candidate { name, found } in candidates {
        let Some(value) = model.graph().find(name) else { continue };
        let layers: Vec<&PlannedLayer> = plan.layers.iter().filter(|layer| layer.site.input == value).collect();
        let sites = sites(&layers);
        // What cannot take the factors stays as it is.
        if can_absorb(model.graph(), value, &sites) && migrate(model.graph_mut(), value, &sites, &found.factors).is_ok()
        {
            check(model, "evening out channels")?;
            *plan = Plan::new(model, config)?;
            moved += 1;
        }
    }
    Ok(moved)
}

/// How exact validation outputs are with rounded weights and activations on scales of least error.
fn accuracy_with_rounded_weights(
    judge: &Judge<'_>,
    plan: &Plan,
    assignment: &Assignment,
    config: &Config,
    observer: &Observer<'_>,
) -> Result<Measurement<Accuracy>, Error> {
    let model = judge.model();
    // Weights are rounded beside the runs of the samples.
    let mut rounded = Ok(Vec::new());
    let (assignment, histograms) = rayon::in_place_scope(|scope| {
        scope.spawn(|_| rounded = round(model, plan, config));
        observed(assignment, model, config, observer, RANGE_SAMPLES)
    })?;
    let codes = rounded?;
    let range = config.range.unwrap_or(RangeMethod::MeanSquaredError);
    let rules = assignment.rules(model.graph(), config);
    let scales = Scales::uniform(rules, assignment.values(), &histograms, range, Origin::Settings)?;
    let assignment = assignment.on_scales(model.graph(), scales)?;
    let validation = &observer.calibration().samples.split.validation;
    let samples = &validation[..validation.len().min(VALIDATION_SAMPLES)];
    let codes = Codes { layers: &codes, ..Codes::default() };
    Ok(accuracy(&judge.outputs(codes, &assignment, Arithmetic::File, samples, &silent)?))
}

/// The layers of `plan` with rounded weights.
fn round(model: &Model, plan: &Plan, config: &Config) -> Result<Vec<(PlannedLayer, PackedWeight)>, Error> {
    let rounding = Config { method: MethodChoice::Fixed(Method::Msq), ..config.clone() };
    let none = Assignment::default();
    let job = Job {
        model,
        config: &rounding,
        layers: 1,
        assignment: &none,
        calibration: None,
        reach: None,
        served: None,
        metered: None,
        state: None,
        bodies: &[],
        progress: &silent,
    };
    let (solved, _) = solve_layers(job, plan, &[])?;
    Ok(solved.into_iter().map(SolvedLayer::into_parts).map(|(codes, _)| codes).collect())
}

#[cfg(test)]
mod tests {
    use onnxquant_calib::NotMeasured;

    use super::*;
    use crate::decide::testing::of_power;

    /// How many of four candidates are taken where so many leave this power of the error.
    fn taken(candidates: usize, power: impl Fn(usize) -> f64 + Sync) -> usize {
        let measure = |count: &usize| Ok(of_power(power(*count)));
        as_many_as_help(0, candidates, |_, count| Ok((count, count)), &measure).unwrap()
    }

    #[test]
    fn all_candidates_are_taken_where_they_help_else_half_of_them_else_none() {
        assert_eq!(taken(4, |count| 1.0 - count as f64 / 10.0), 4);
        assert_eq!(taken(4, |count| [0.5, 0.1, 0.4, 0.1, 0.6][count]), 2);
        assert_eq!(taken(5, |count| [0.5, 0.1, 0.5, 0.1, 0.1, 0.5][count]), 0, "no better is not enough");
        assert_eq!(taken(1, |count| [0.5, 0.6][count]), 0);
        // The first that helps, not the one that helps most.
        assert_eq!(taken(2, |count| [0.5, 0.1, 0.4][count]), 2);
    }

    #[test]
    fn what_changes_nothing_or_was_not_measured_is_not_taken() {
        let better = |count: &usize| Ok(of_power(if *count == 0 { 0.5 } else { 0.1 }));
        let found = as_many_as_help(0, 4, |_, count| Ok((count, if count == 4 { 0 } else { count })), &better);
        assert_eq!(found.unwrap(), 2);
        let lost = |count: &usize| match count {
            0 => Ok(of_power(0.5)),
            _ => Ok(Measurement::NotMeasured(NotMeasured::NoOutputs)),
        };
        assert_eq!(as_many_as_help(0, 4, |_, count| Ok((count, count)), &lost).unwrap(), 0);
    }
}
