//! The assignment of operators to codes that takes the least time, before anything is known of its accuracy.

use std::collections::{BTreeSet, HashMap};

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, NodeId, ValueId};
use onnxquant_passes::integer::kernels::{Unit, find_units};
use onnxquant_passes::sites::Site;

use crate::config::{Activations, Config};
use crate::error::Error;
use crate::observe::observer::Observer;
use crate::plan::assignment::Assignment;
use crate::plan::candidates::{Candidates, values_of};
use crate::plan::layers::{Plan, PlannedLayer};

/// What takes the least time, without scales yet.
pub(super) fn fastest(
    model: &Model,
    plan: &Plan,
    config: &Config,
    observer: &Observer<'_>,
) -> Result<Assignment, Error> {
    let graph = model.graph();
    let behind = observer.calibration().reach.behind(graph);
    let sites = sites(plan, |value| behind.contains_key(&value));
    let sizes = sizes(model, &sites, observer, |value| behind.contains_key(&value))?;
    let candidates = Candidates::new(graph, &sites, sizes, config);
    Ok(Assignment::new(graph, candidates, &sites, config.activations))
}

/// Every layer that can quantize its input at run time does: for that no sample is needed.
pub(crate) fn without_samples(model: &Model, plan: &Plan, config: &Config) -> Assignment {
    let sites = sites(plan, |_| false);
    let candidates = Candidates::new(model.graph(), &sites, HashMap::new(), config);
    Assignment::new(model.graph(), candidates, &sites, Activations::Dynamic)
}

/// The layers of the plan that integers may serve; not those whose input is `unseen`.
fn sites(plan: &Plan, unseen: impl Fn(ValueId) -> bool) -> HashMap<NodeId, Site> {
    let is_usable = |layer: &&PlannedLayer| layer.site.dtype == DataType::Float && !unseen(layer.site.input);
    let usable = plan.layers.iter().filter(is_usable);
    usable.map(|layer| (layer.site.node, layer.site.clone())).collect()
}

/// Elements of every float value that a region could touch, in the first calibration sample, but for those `unseen`.
fn sizes(
    model: &Model,
    sites: &HashMap<NodeId, Site>,
    observer: &Observer<'_>,
    unseen: impl Fn(ValueId) -> bool,
) -> Result<HashMap<ValueId, usize>, Error> {
    let graph = model.graph();
    let candidates = find_units(graph, sites, |_| true);
    // The result of a layer tells its size, also where an activation behind it vanishes into the codes.
    let inner = |unit: &Unit| graph.node(unit.node).output(0);
    let touched = candidates
        .iter()
        .flat_map(|unit| values_of(unit).chain(inner(unit)))
        .filter(|value| graph.value(*value).constant().is_none());
    let values: BTreeSet<ValueId> = touched.filter(|value| !unseen(*value)).collect();
    let names: Vec<String> = values.iter().map(|value| graph.value(*value).name().to_owned()).collect();
    let sizes = observer.sizes(model, &names)?;
    Ok(values.into_iter().zip(sizes).filter_map(|(value, size)| Some((value, size?))).collect())
}
