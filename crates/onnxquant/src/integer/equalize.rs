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
//! pooling and the like), get the factors of least expected error. The outputs of held-out samples decide: all values,
//! or the half that gains most, or none. Weights are rounded for that comparison, since factors make them less even.
//!
//! # Guarantee
//!
//! Exact in real arithmetic. The error of the held-out outputs falls, or the model stays as it is.
//!
//! # Cost
//!
//! A run of at most [`SAMPLES`] calibration samples, and for each of up to three states of the model one of
//! [`RANGE_SAMPLES`] and one over at most [`HELD_OUT_SAMPLES`] held-out ones.

use std::sync::Arc;

use onnxquant_ir::Model;
use onnxquant_passes::migrate_scale::{can_absorb, migrate};
use onnxquant_passes::sites::Site;
use onnxquant_passes::write_codes::PackedWeight;
use onnxquant_quant::{ChannelAxis, Equalization, MatrixView, Method, RangeMethod, equalization_factors};

use super::scales::{Origin, Scales};
use super::{IntegerPlan, observed};
use crate::accuracy::{accuracy, power};
use crate::compare::Reference;
use crate::config::{Config, MethodChoice};
use crate::error::Error;
use crate::judge::Judge;
use crate::load::check;
use crate::observe::Observer;
use crate::plan::{Plan, PlannedLayer};
use crate::progress::silent;
use crate::solve::{Job, SolvedLayer, solve_layers, stored_weight};
use crate::write::{Arithmetic, Codes};

/// Calibration samples from which the factors are found.
const SAMPLES: usize = 32;
/// Calibration samples from which ranges are found for the comparison.
const RANGE_SAMPLES: usize = 16;
/// Held-out samples on which outputs are compared.
const HELD_OUT_SAMPLES: usize = 8;

/// The factors of one value, which is known by its name.
struct Candidate {
    name: String,
    found: Equalization,
}

/// Evens out values of `model` where that makes held-out outputs more exact; returns how many. `float` computes what the
/// model does.
pub(super) fn equalize(
    model: &mut Model,
    plan: &mut Plan,
    integers: &mut IntegerPlan,
    config: &Config,
    observer: &Observer<'_>,
    float: &Arc<Reference>,
) -> Result<usize, Error> {
    let mut candidates = candidates(model, plan, integers, observer)?;
    if candidates.is_empty() {
        return Ok(0);
    }
    candidates.sort_by(|a, b| a.found.error_left.total_cmp(&b.found.error_left));
    let error = |model: &Model, plan: &Plan, integers: &IntegerPlan| {
        let judge = Judge::beside(float.clone(), model, observer.calibration(), Arithmetic::File);
        error(&judge, plan, integers, config, observer)
    };
    let before = error(model, plan, integers)?;
    for count in [candidates.len(), candidates.len() / 2] {
        if count == 0 || count == candidates.len() / 2 && candidates.len() == 1 {
            break;
        }
        let (mut changed, mut new_plan) = (model.clone(), plan.clone());
        let moved = apply(&mut changed, &mut new_plan, &candidates[..count], config)?;
        let mut new_integers = IntegerPlan::new(&changed, &new_plan, config, observer)?;
        new_integers.rescaled = integers.rescaled;
        if moved > 0 && error(&changed, &new_plan, &new_integers)? < before {
            (*model, *plan, *integers) = (changed, new_plan, new_integers);
            return Ok(moved);
        }
    }
    Ok(0)
}

/// Values that can be evened out, and how.
fn candidates(
    model: &Model,
    plan: &Plan,
    integers: &IntegerPlan,
    observer: &Observer<'_>,
) -> Result<Vec<Candidate>, Error> {
    let graph = model.graph();
    let is_static = |layer: &&PlannedLayer| integers.is_static(layer.site.id());
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

/// The power of the error of the held-out outputs with rounded weights and activations on scales of least error;
/// infinite where it was not measured.
fn error(
    judge: &Judge<'_>,
    plan: &Plan,
    integers: &IntegerPlan,
    config: &Config,
    observer: &Observer<'_>,
) -> Result<f64, Error> {
    let model = judge.model();
    // Weights are rounded beside the runs of the samples.
    let mut rounded = Ok(Vec::new());
    let mut integers = integers.clone();
    let histograms = rayon::in_place_scope(|scope| {
        scope.spawn(|_| rounded = round(model, plan, config));
        observed(&mut integers, model, config, observer, RANGE_SAMPLES)
    })?;
    let codes = rounded?;
    let range = config.range.unwrap_or(RangeMethod::MeanSquaredError);
    let scales = Scales::uniform(model.graph(), &integers, &histograms, range, Origin::Settings, config)?;
    integers.set_scales(model.graph(), scales)?;
    let held_out = &observer.calibration().split.held_out;
    let samples = &held_out[..held_out.len().min(HELD_OUT_SAMPLES)];
    let codes = Codes { layers: &codes, ..Codes::default() };
    Ok(power(&accuracy(&judge.outputs(codes, &integers, Arithmetic::File, samples, &silent)?)))
}

/// The layers of `plan` with rounded weights.
fn round(model: &Model, plan: &Plan, config: &Config) -> Result<Vec<(PlannedLayer, PackedWeight)>, Error> {
    let rounding = Config { method: MethodChoice::Fixed(Method::Msq), ..config.clone() };
    let none = IntegerPlan::default();
    let job = Job {
        model,
        config: &rounding,
        layers: 1,
        integers: &none,
        calibration: None,
        reach: None,
        state: None,
        progress: &silent,
    };
    let (solved, _) = solve_layers(job, plan, &[])?;
    Ok(solved.into_iter().map(SolvedLayer::into_parts).map(|(_, codes)| codes).collect())
}
