//! Rescales the channels of values that are quantized at run time, so that one scale serves them all better.
//!
//! The factors come from [`onnxquant_quant::migration_factors`]; the function of the model stays as it is. They go into
//! what makes the value where that is possible, else one multiplication is added in front of the layers.

use std::collections::HashSet;

use ndarray::{Array3, Axis};
use onnxquant_ir::Model;
use onnxquant_passes::migrate_scale::migrate;
use onnxquant_passes::sites::LayerId;
use onnxquant_quant::{ChannelAxis, migration_factors};

use crate::config::Config;
use crate::error::Error;
use crate::load::check;
use crate::observe::observer::Observer;
use crate::plan::layers::{Plan, PlannedLayer};
use crate::solve::weights::stored_weight;

/// Rescales the inputs of the layers `dynamic` where that is worth it; returns how many.
///
/// The layers of `plan` are found anew after each change: their inputs and weights are others then.
pub(crate) fn rescale(
    model: &mut Model,
    plan: &mut Plan,
    config: &Config,
    dynamic: &HashSet<LayerId>,
    observer: &Observer<'_>,
) -> Result<usize, Error> {
    let read = plan.layers.iter().filter(|layer| dynamic.contains(&layer.site.id()));
    let mut names: Vec<String> = read.map(|layer| model.graph().value(layer.site.input).name().to_owned()).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(0);
    }
    let requests: Vec<(String, ChannelAxis)> = names.iter().map(|name| (name.clone(), ChannelAxis::Last)).collect();
    let ranges = observer.channels(model, &requests, usize::MAX)?;
    let mut rescaled = 0;
    for (name, ranges) in names.iter().zip(ranges) {
        let Some(value) = model.graph().find(name) else { continue };
        let reads = |layer: &&PlannedLayer| layer.site.input == value && dynamic.contains(&layer.site.id());
        let layers: Vec<&PlannedLayer> = plan.layers.iter().filter(reads).collect();
        let weights = layers.iter().map(|layer| matrix(model, layer)).collect::<Result<Vec<_>, Error>>()?;
        let views: Vec<_> = weights.iter().map(|weights| weights.index_axis(Axis(0), 0)).collect();
        let Some(factors) = migration_factors(&ranges, &views) else { continue };
        let sites: Vec<_> = layers.iter().map(|layer| layer.site.clone()).collect();
        // What cannot be rescaled stays as it is.
        if migrate(model.graph_mut(), value, &sites, &factors).is_ok() {
            check(model, "rescaling channels")?;
            *plan = Plan::new(model, config)?;
            rescaled += 1;
        }
    }
    Ok(rescaled)
}

/// The weights `[1, K, M]` of a dense layer.
fn matrix(model: &Model, layer: &PlannedLayer) -> Result<Array3<f32>, Error> {
    Ok(layer.site.view.to_matrix(stored_weight(model, layer)?.view())?)
}
