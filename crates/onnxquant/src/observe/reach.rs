//! What of a model the calibration engine can compute, where there are nodes that it cannot run.
//!
//! # Problem
//!
//! A Loop, an operator on sequences or one of a domain of its own keeps the engine from computing what depends on it.
//! The layers before it can be calibrated all the same, and the values that it reads can be compared.
//!
//! # Method
//!
//! Nodes whose operators the engine lacks are known beforehand, those on which it fails are found by trying
//! ([`onnxquant_calib::failing_nodes`]). What depends on neither is computed as usual: the engine is only ever asked for
//! such values. Instead of the outputs behind these nodes the last float values before them are compared that layers or
//! tables have a part in: those that the nodes behind read or, where these are no floats and no output can be computed
//! either, what they are made of. Layers behind are quantized without data.
//!
//! # Guarantee
//!
//! A model that the engine runs as a whole is treated as if this did not exist.
//!
//! # Cost
//!
//! One run of one sample, only where there are such nodes; of some more where the engine fails on a later one.

use std::collections::{HashMap, HashSet};

use onnxquant_calib::{
    BlockedNode, CalibError, Fault, NotMeasured, Slicing, failing_nodes, observe_shapes, unknown_operators,
};
use onnxquant_ir::onnx::ModelProto;
use onnxquant_ir::{Graph, Model, Node, NodeId, Port, ValueId};

use crate::error::Error;
use crate::load::{decoded, without_functions};
use crate::observe::samples::Samples;
use crate::plan::layers::{Plan, PlannedLayer};

/// Samples that are tried for the node that the engine fails on.
const MOST_TRIED: usize = 16;

/// What the engine can compute of a model and of those made of it.
#[derive(Debug)]
pub(crate) struct Reach {
    /// Nodes that it cannot run and that depend on no other such node.
    blocked: Vec<BlockedNode>,
    /// What is compared, in order.
    compared: Vec<Compared>,
}

/// A value by which models are compared.
#[derive(Debug)]
struct Compared {
    /// Its name in the float model.
    name: String,
    place: Place,
    /// Which parts of it are judged apart.
    slicing: Slicing,
}

impl Compared {
    fn new(name: String, place: Place) -> Self {
        Self { name, place, slicing: Slicing::default() }
    }
}

/// Where a value is looked up in a model that was made of the float one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Among the outputs.
    Output,
    /// At this input of a node: there it may be another value, rounded to codes.
    Input(NodeId, usize),
    /// In a graph inside a node, which knows it by its name.
    Capture,
}

impl Reach {
    /// The whole of `model`.
    pub(crate) fn all(model: &Model) -> Self {
        let output = |name| Compared::new(name, Place::Output);
        Self { blocked: Vec::new(), compared: output_names(model).into_iter().map(output).collect() }
    }

    /// All of `model` that does not depend on operators which the engine lacks.
    pub(crate) fn find(model: &Model, plan: &Plan, samples: &Samples) -> Result<Self, Error> {
        let proto = without_functions(&decoded(model)?)?;
        let blocked = unknown_operators(&*samples.engine, &proto);
        Self::without(blocked, &proto, model, plan, samples)
    }

    /// What is left of it after the engine has failed with `failure`, by trying; where that explains nothing, the
    /// failure.
    pub(crate) fn after(&self, failure: Error, model: &Model, plan: &Plan, samples: &Samples) -> Result<Self, Error> {
        let proto = without_functions(&decoded(model)?)?;
        let is_defect = |node: &BlockedNode| node.fault != Fault::Error;
        for (at, &sample) in samples.split.calibration.iter().take(MOST_TRIED).enumerate() {
            match failing_nodes(&*samples.engine, &proto, &self.blocked, &samples.data, sample) {
                Ok(failing) if failing.is_empty() => {}
                // What the engine refuses of single samples, their user has to know of.
                Ok(failing) if at == 0 || failing.iter().all(is_defect) => {
                    let blocked = [&self.blocked[..], &failing].concat();
                    return Self::without(blocked, &proto, model, plan, samples);
                }
                _ => break,
            }
        }
        Err(failure)
    }

    fn without(
        blocked: Vec<BlockedNode>,
        proto: &ModelProto,
        model: &Model,
        plan: &Plan,
        samples: &Samples,
    ) -> Result<Self, Error> {
        let quantizes = !plan.all_layers().is_empty() || !plan.all_tables().is_empty();
        let Some(&sample) = samples.split.calibration.first().filter(|_| quantizes && !blocked.is_empty()) else {
            return Ok(Self::all(model));
        };
        let mut reach = Self { compared: Vec::new(), blocked };
        if !reach.sees_layers(model.graph(), plan) {
            return reach.refusal(model.graph(), plan).map_or(Ok(reach), Err);
        }
        match reach.compare_before(model, plan, samples, sample) {
            Ok(()) => Ok(reach),
            Err(Error::Calibration(failure)) => {
                let failing = failing_nodes(&*samples.engine, proto, &reach.blocked, &samples.data, sample)?;
                match failing.is_empty() {
                    true => Err(failure.into()),
                    false => Self::without([reach.blocked, failing].concat(), proto, model, plan, samples),
                }
            }
            Err(other) => Err(other),
        }
    }

    /// Whether any layer of `plan` can be calibrated, or there is none.
    pub(crate) fn sees_layers(&self, graph: &Graph, plan: &Plan) -> bool {
        let behind = self.behind(graph);
        plan.layers.is_empty() || plan.layers.iter().any(|layer| !behind.contains_key(&layer.site.input))
    }

    /// An error where the engine, without a defect of its own, refuses a layer.
    fn refusal(&self, graph: &Graph, plan: &Plan) -> Option<Error> {
        let makes = |node: &BlockedNode, layer: &PlannedLayer| {
            let output = graph.node(layer.site.node).output(0);
            output.is_some_and(|output| node.outputs.iter().any(|name| name == graph.value(output).name()))
        };
        let is_layer = |node: &&BlockedNode| plan.layers.iter().any(|layer| makes(node, layer));
        let refused = self.blocked.iter().filter(|node| node.fault == Fault::Error).find(is_layer)?;
        Some(CalibError::from(refused).into())
    }

    /// The error of a run that has to measure something where no layer can be calibrated.
    pub(crate) fn unmeasurable(&self) -> Option<Error> {
        self.blocked.first().map(|node| CalibError::from(node).into())
    }

    /// Everything in `graph` that the engine cannot compute, with the place of a blocked node before it.
    pub(crate) fn behind(&self, graph: &Graph) -> HashMap<ValueId, usize> {
        let mut behind = HashMap::new();
        for (at, node) in self.blocked.iter().enumerate() {
            behind.extend(node.outputs.iter().filter_map(|name| Some((graph.find(name)?, at))));
        }
        for (_, node) in graph.nodes().filter(|_| !self.blocked.is_empty()) {
            if let Some(at) = reads(node).find_map(|value| behind.get(&value).copied()) {
                behind.extend(node.outputs().iter().flatten().map(|&output| (output, at)));
            }
        }
        behind
    }

    /// Why the engine cannot compute the input of a layer, where that is so.
    pub(crate) fn why_unseen(&self, graph: &Graph, layer: &PlannedLayer) -> Option<String> {
        let at = *self.behind(graph).get(&layer.site.input)?;
        let node = &self.blocked[at];
        Some(format!("rounded without data: it depends on {node}, which the calibration engine cannot run"))
    }

    /// The names of what is compared in the float model.
    pub(crate) fn names(&self) -> Vec<String> {
        self.compared.iter().map(|value| value.name.clone()).collect()
    }

    /// The names of the same values in a model that was made of the float one.
    pub(crate) fn names_in(&self, model: &Model) -> Vec<String> {
        let graph = model.graph();
        let name = |value: &Compared| match value.place {
            Place::Input(node, slot) if graph.order().contains(&node) => {
                graph.node(node).input(slot).map(|value| graph.value(value).name().to_owned())
            }
            Place::Input(..) | Place::Output | Place::Capture => None,
        };
        self.compared.iter().map(|value| name(value).unwrap_or_else(|| value.name.clone())).collect()
    }

    /// By compared value: which parts of it are judged apart.
    pub(crate) fn slicings(&self) -> Vec<Slicing> {
        self.compared.iter().map(|value| value.slicing.clone()).collect()
    }

    /// Takes over how the compared values are divided; those that are no outputs stay as they are.
    pub(crate) fn divide(&mut self, slicings: Vec<Slicing>) {
        let outputs = self.compared.iter_mut().zip(slicings).filter(|(value, _)| value.place == Place::Output);
        outputs.for_each(|(value, slicing)| value.slicing = slicing);
    }

    /// The outputs of `graph` that cannot be compared, and why.
    pub(crate) fn not_compared<'a>(&self, graph: &'a Graph) -> Vec<(&'a Port, NotMeasured)> {
        let behind = self.behind(graph);
        let not_run = |at: usize| NotMeasured::NotRun { node: self.blocked[at].to_string() };
        graph.outputs().iter().filter_map(|port| Some((port, not_run(*behind.get(&port.value)?)))).collect()
    }

    /// What is compared instead of outputs.
    pub(crate) fn names_before(&self) -> Vec<String> {
        let before = self.compared.iter().filter(|value| value.place != Place::Output);
        before.map(|value| value.name.clone()).collect()
    }

    /// Nodes that the engine cannot run and that depend on no other such node.
    pub(crate) fn blocked(&self) -> &[BlockedNode] {
        &self.blocked
    }

    /// Chooses what is compared among the values that the engine computes for `sample`.
    fn compare_before(&mut self, model: &Model, plan: &Plan, samples: &Samples, sample: usize) -> Result<(), Error> {
        let graph = model.graph();
        let (behind, touched) = (self.behind(graph), touched(graph, plan));
        let name = |value: ValueId| graph.value(value).name().to_owned();
        let outputs = graph.outputs().iter().map(|port| port.value).filter(|value| !behind.contains_key(value));
        let outputs = outputs.map(|value| (value, Place::Output)).collect::<Vec<_>>();
        let is_behind = |node: &Node| node.outputs().iter().flatten().any(|output| behind.contains_key(output));
        let mut readers: Vec<NodeId> = graph.nodes().filter(|(_, node)| is_behind(node)).map(|(id, _)| id).collect();
        let mut known: HashSet<ValueId> = outputs.iter().map(|(value, _)| *value).collect();
        let float_model = decoded(model)?;
        let before = loop {
            let mut before: Vec<(ValueId, Place)> = readers.iter().flat_map(|&id| places(graph, id)).collect();
            before.retain(|(value, _)| touched.contains(value) && !behind.contains_key(value) && known.insert(*value));
            let names: Vec<String> = outputs.iter().chain(&before).map(|(value, _)| name(*value)).collect();
            let session = samples.session(&float_model, &names, &[sample])?;
            let shapes = observe_shapes(&session, &samples.data, sample)?;
            readers = before.iter().filter_map(|(value, _)| graph.producer(*value)).map(|(id, _)| id).collect();
            let mut is_float = shapes.iter().skip(outputs.len()).map(|(_, is_float)| *is_float);
            before.retain(|_| is_float.next().unwrap_or(false));
            if !before.is_empty() || !outputs.is_empty() || readers.is_empty() {
                break before;
            }
        };
        let compared = outputs.into_iter().chain(before);
        self.compared = compared.map(|(value, place)| Compared::new(name(value), place)).collect();
        Ok(())
    }
}

/// The names of what `model` gives.
pub(crate) fn output_names(model: &Model) -> Vec<String> {
    let graph = model.graph();
    graph.outputs().iter().map(|port| graph.value(port.value).name().to_owned()).collect()
}

/// The values that a node and the graphs inside it read.
fn reads(node: &Node) -> impl Iterator<Item = ValueId> {
    node.inputs().iter().copied().flatten().chain(node.captures().iter().copied())
}

/// The same with where they are read.
fn places(graph: &Graph, id: NodeId) -> impl Iterator<Item = (ValueId, Place)> {
    let node = graph.node(id);
    let inputs = node.inputs().iter().enumerate();
    let inputs = inputs.filter_map(move |(slot, value)| Some(((*value)?, Place::Input(id, slot))));
    inputs.chain(node.captures().iter().map(|&value| (value, Place::Capture)))
}

/// Everything whose numbers depend on a layer or table of the plan.
fn touched(graph: &Graph, plan: &Plan) -> HashSet<ValueId> {
    let layers: HashSet<NodeId> = plan.layers.iter().map(|layer| layer.site.node).collect();
    let tables: HashSet<ValueId> = plan.tables.iter().flat_map(|planned| planned.table.sources()).collect();
    let bodies: HashSet<NodeId> = plan.bodies.iter().map(|body| body.place.node()).collect();
    let layers: HashSet<NodeId> = layers.union(&bodies).copied().collect();
    let mut touched = HashSet::new();
    for (id, node) in graph.nodes().filter(|(_, node)| !asks_shape(node)) {
        if layers.contains(&id) || reads(node).any(|value| touched.contains(&value) || tables.contains(&value)) {
            touched.extend(node.outputs().iter().flatten());
        }
    }
    touched
}

fn asks_shape(node: &Node) -> bool {
    node.is("Shape") || node.is("Size")
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
