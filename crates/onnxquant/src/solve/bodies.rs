//! Quantizes the layers inside bodies.
//!
//! # Method
//!
//! Their weights alone become codes, in the forms that they would have outside. Each layer is fitted to what it reads in
//! the float network, before any layer of the main graph: these then make up for what bodies lose. Layers that read one
//! weight, in whichever bodies, get one set of codes, for the rows of all of them together. Tables and weights of recurrent
//! layers are rounded, as they are outside.
//!
//! # Failure
//!
//! A layer of which there are no statistics is rounded without data; its report says why.

use onnxquant_calib::OrtEngine;
use onnxquant_ir::Model;
use onnxquant_passes::add_to_bias::has_bias;
use onnxquant_passes::constant_chain::source;
use onnxquant_passes::expose::BodyStep;

use crate::error::Error;
use crate::observe::bodies::{BodyObserver, InnerLayer, InnerStats};
use crate::observe::calibration::LayerStats;
use crate::plan::assignment::Assignment;
use crate::plan::layers::{Plan, PlannedBody, PlannedLayer};
use crate::solve::codes::find_codes;
use crate::solve::job::{Job, judges};
use crate::solve::layers::describe;
use crate::solve::solved::{AboutLayer, SolvedLayer};
use crate::solve::tables::quantize_tables;
use crate::solve::tied::Sum;
use crate::solve::weights::{failed, weights};
use crate::write::codes::QuantizedBody;

/// The bodies of a model with their codes.
#[derive(Default)]
pub(crate) struct SolvedBodies {
    /// As the plan has them.
    pub(crate) codes: Vec<QuantizedBody>,
    /// What is known of the layers, by body, each before those inside it.
    pub(crate) about: Vec<Vec<AboutLayer>>,
}

/// A body and what is around it.
struct Place<'a> {
    path: Vec<BodyStep>,
    /// From the main graph to the body itself.
    models: Vec<&'a Model>,
    body: &'a PlannedBody,
}

/// Solves the layers inside all bodies of a plan. `job` is that of the main graph.
pub(crate) fn solve_bodies(job: Job<'_>, plan: &Plan, runtime: Option<&OrtEngine>) -> Result<SolvedBodies, Error> {
    let mut places = Vec::new();
    find_places(&plan.bodies, &[], &[job.model], &mut places);
    let layers: Vec<(&Place<'_>, &PlannedLayer)> =
        places.iter().flat_map(|place| place.body.plan.layers.iter().map(move |layer| (place, layer))).collect();
    let stats = observe(job, &layers, runtime)?;
    let mut solved: Vec<Option<SolvedLayer>> = layers.iter().map(|_| None).collect();
    for group in groups(&layers)? {
        for (at, layer) in solve_group(job, &layers, &group, stats.as_deref())? {
            solved[at] = Some(layer);
        }
    }
    let mut solved = solved.into_iter().flatten();
    let mut found = SolvedBodies::default();
    found.codes = assembled(&plan.bodies, &mut solved, &mut found.about)?;
    Ok(found)
}

fn find_places<'a>(bodies: &'a [PlannedBody], path: &[BodyStep], around: &[&'a Model], found: &mut Vec<Place<'a>>) {
    for body in bodies {
        let path = [path, std::slice::from_ref(&body.step)].concat();
        let models: Vec<&Model> = around.iter().copied().chain([&*body.model]).collect();
        found.push(Place { path: path.clone(), models: models.clone(), body });
        find_places(&body.plan.bodies, &path, &models, found);
    }
}

/// What every layer reads, where there are samples.
fn observe(
    job: Job<'_>,
    layers: &[(&Place<'_>, &PlannedLayer)],
    runtime: Option<&OrtEngine>,
) -> Result<Option<Vec<InnerStats>>, Error> {
    let Some(calibration) = job.calibration.filter(|_| !layers.is_empty()) else { return Ok(None) };
    let inner: Vec<InnerLayer<'_>> =
        layers.iter().map(|(place, layer)| InnerLayer { path: &place.path, body: place.body, layer }).collect();
    let (judged, limit_bytes) = (judges(job.config), job.config.memory_limit_bytes);
    let observer = BodyObserver { calibration, runtime, judged, limit_bytes, progress: job.progress };
    observer.statistics(job.model, &inner).map(Some)
}

/// Layers that read one weight and can have the same codes together, the others alone, in their order.
fn groups(layers: &[(&Place<'_>, &PlannedLayer)]) -> Result<Vec<Vec<usize>>, Error> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, &layer) in layers.iter().enumerate() {
        let mut own = None;
        for (group, members) in groups.iter().enumerate() {
            if alike(layers[members[0]], layer)? {
                own = Some(group);
                break;
            }
        }
        match own {
            Some(group) => groups[group].push(at),
            None => groups.push(vec![at]),
        }
    }
    Ok(groups)
}

/// Whether two layers read one weight alike and are written alike.
fn alike(a: (&Place<'_>, &PlannedLayer), b: (&Place<'_>, &PlannedLayer)) -> Result<bool, Error> {
    let written = |layer: &PlannedLayer| {
        (layer.op_type.clone(), layer.form, layer.integer_codes, layer.packed_type, layer.granularity, layer.bits)
    };
    let (left, right) = (&a.1.site.view, &b.1.site.view);
    let same_matrix = if left.is_dense() { left == right } else { left.groups() == right.groups() };
    if origin(a) != origin(b) || written(a.1) != written(b.1) || !same_matrix {
        return Ok(false);
    }
    let weight = |(place, layer): (&Place<'_>, &PlannedLayer)| layer.site.weight_tensor(place.body.model.graph());
    let (left, right) = (weight(a)?, weight(b)?);
    Ok((left.dims, left.raw_data, left.float_data) == (right.dims, right.raw_data, right.float_data))
}

/// The graph that holds the weight of a layer, by the path to it, and the weight's name there.
fn origin<'a>((place, layer): (&'a Place<'_>, &PlannedLayer)) -> Option<(&'a [BodyStep], String)> {
    let graph = place.body.model.graph();
    let name = graph.value(source(graph, layer.site.weight)?).name().to_owned();
    let depth = place.models.iter().rposition(|model| !model.graph().is_captured(&name))?;
    Some((&place.path[..depth], name))
}

/// The codes of layers that read one weight, by place.
fn solve_group(
    job: Job<'_>,
    layers: &[(&Place<'_>, &PlannedLayer)],
    group: &[usize],
    stats: Option<&[InnerStats]>,
) -> Result<Vec<(usize, SolvedLayer)>, Error> {
    let assignment = Assignment::default();
    let of_body = |at: usize| Job {
        model: &layers[at].0.body.model,
        assignment: &assignment,
        reach: None,
        served: None,
        metered: None,
        state: None,
        bodies: &[],
        ..job
    };
    let stats_of = |at: usize| stats.and_then(|stats| stats[at].of_layer());
    let mut sum = None;
    for &at in group {
        if let Some(stats) = stats_of(at) {
            let added = Sum::with(sum.take(), &stats);
            sum = Some(added.map_err(|error| failed(&layers[at].0.body.model, layers[at].1, error))?);
        }
    }
    let all: Option<LayerStats<'_>> = sum.as_ref().map(Sum::stats);
    let first = group
        .iter()
        .copied()
        .find(|&at| !has_bias(layers[at].0.body.model.graph(), &layers[at].1.site))
        .unwrap_or(group[0]);
    let exact = weights(&layers[first].0.body.model, layers[first].1)?;
    let mut found = find_codes(of_body(first), layers[first].1, &exact, all.as_ref())?;
    if group.len() > 1 {
        // It is of the readers together.
        found.solution.promise = None;
        found.readers = group.len();
    }
    let solve = |&at: &usize| {
        let (place, layer) = layers[at];
        let exact = weights(&place.body.model, layer)?;
        let mut solved = describe(of_body(at), layer, &exact, stats_of(at).as_ref(), found.clone())?;
        if let Some(InnerStats::Unseen(why)) = stats.map(|stats| &stats[at]) {
            solved.findings.notes.push(why.clone());
        }
        let solved = solved.into_layer(layer, at == group[0]);
        Ok((at, solved.map_err(|error| failed(&place.body.model, layer, error))?))
    };
    group.iter().map(solve).collect()
}

/// The codes of `bodies`, whose layers come in their order.
fn assembled(
    bodies: &[PlannedBody],
    solved: &mut dyn Iterator<Item = SolvedLayer>,
    about: &mut Vec<Vec<AboutLayer>>,
) -> Result<Vec<QuantizedBody>, Error> {
    let mut found = Vec::with_capacity(bodies.len());
    for body in bodies {
        let own = solved.take(body.plan.layers.len()).map(SolvedLayer::into_parts);
        let (layers, about_own) = own.unzip();
        about.push(about_own);
        let tables = quantize_tables(&body.model, &body.plan.tables, None)?;
        let bodies = assembled(&body.plan.bodies, solved, about)?;
        found.push(QuantizedBody { layers, tables, bodies });
    }
    Ok(found)
}
