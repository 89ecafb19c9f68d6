//! Compares the tensors inside two models, in the order in which the first one makes them: where does an error enter?
//!
//! # Method
//!
//! Compared is what nodes of both models make under one name. The engine is asked for a few tensors at a time, as many as
//! are small enough together, and runs the samples for each such group from the inputs on. Where it fails on a group, its
//! halves are tried, so that a tensor that cannot be observed costs the others nothing.
//!
//! # Cost
//!
//! Memory: the tensors of one group, for each thread. Time: a run of both models for each group.

use std::collections::{HashMap, HashSet};

use onnxquant_calib::{
    Measurement, NotMeasured, Original, OutputComparison, compare, observe_shapes, unknown_operators,
};
use onnxquant_ir::{Graph, Model, NodeId, ValueId};

use crate::error::Error;
use crate::load::without_functions;
use crate::observe::samples::Samples;
use crate::progress::{Phase, Progress};

/// Tensors of the first group.
const FIRST_GROUP: usize = 8;
/// Bytes of the tensors of a group, of all threads and both models together, unless a single tensor has more.
const GROUP_BYTES: usize = 256 << 20;
/// Bytes of an element; floats of 64 bits are rare.
const ELEMENT_BYTES: usize = 4;
/// Tensors that the engine fails on before the others are given up.
const MOST_FAILING: usize = 16;

/// A tensor that both models make.
#[derive(Clone, Debug)]
pub struct TensorComparison {
    /// What people call the node of the first model that makes it.
    pub label: String,
    /// Its operator.
    pub op_type: String,
    /// The SQNR in dB of the least exact of what the node reads, as far as that was compared; infinite where nothing
    /// differs.
    pub before_db: f64,
    /// How it differs.
    pub found: OutputComparison,
}

/// Two models, whose weights are floats, and samples.
pub(super) struct Tensors<'a> {
    pub(super) first: &'a Model,
    pub(super) second: &'a Model,
    pub(super) samples: &'a Samples,
    pub(super) progress: Progress<'a>,
}

/// What became of a group.
enum Group {
    /// It was compared, and of so many bytes for one sample are its tensors.
    Compared(Vec<OutputComparison>, usize),
    /// Its tensors are too large together.
    TooLarge,
}

impl Tensors<'_> {
    /// All floats that both models make, in the order in which the first one makes them.
    pub(super) fn compare(&self) -> Result<Vec<TensorComparison>, Error> {
        let graph = self.first.graph();
        let made = self.made_by_both();
        let mut blocked = behind_unknown(self.samples, self.first)?;
        blocked.extend(behind_unknown(self.samples, self.second)?);
        let name = |value: ValueId| graph.value(value).name();
        let open: Vec<String> =
            made.iter().map(|(_, value)| name(*value).to_owned()).filter(|name| !blocked.contains_key(name)).collect();
        let mut found: HashMap<String, OutputComparison> =
            self.measure(&open)?.into_iter().map(|found| (found.name.clone(), found)).collect();
        let not_run =
            |(name, node): (String, String)| (name.clone(), not_measured(&name, NotMeasured::NotRun { node }));
        found.extend(blocked.into_iter().map(not_run));
        found.retain(|_, tensor| tensor.is_float);
        let before = before(graph, &found);
        let comparison = |(node, value): (NodeId, ValueId)| {
            Some(TensorComparison {
                label: graph.label(node).to_owned(),
                op_type: graph.node(node).op_type().to_owned(),
                before_db: before.get(&node).copied().unwrap_or(f64::INFINITY),
                found: found.get(name(value))?.clone(),
            })
        };
        Ok(made.into_iter().filter_map(comparison).collect())
    }

    /// What nodes of both models make under one name.
    fn made_by_both(&self) -> Vec<(NodeId, ValueId)> {
        let (first, second) = (self.first.graph(), self.second.graph());
        let made = |graph: &'_ Graph| {
            let outputs =
                |id: NodeId| graph.node(id).outputs().iter().flatten().map(move |&value| (id, value)).collect();
            graph.nodes().flat_map(|(id, _)| -> Vec<(NodeId, ValueId)> { outputs(id) }).collect::<Vec<_>>()
        };
        let others: HashSet<&str> = made(second).into_iter().map(|(_, value)| second.value(value).name()).collect();
        let is_common = |(_, value): &(NodeId, ValueId)| {
            let name = first.value(*value).name();
            !name.is_empty() && others.contains(name)
        };
        made(first).into_iter().filter(is_common).collect()
    }

    /// The tensors of these names, in their order.
    fn measure(&self, names: &[String]) -> Result<Vec<OutputComparison>, Error> {
        let (mut found, mut most, mut failing) = (Vec::with_capacity(names.len()), FIRST_GROUP, 0);
        while let Some(rest) = names.get(found.len()..).filter(|rest| !rest.is_empty()) {
            let group = rest.get(..most).unwrap_or(rest);
            match self.group(group) {
                Ok(Group::Compared(outputs, bytes)) => {
                    found.extend(outputs);
                    let fitting = self.bytes_of_a_sample() * group.len() / bytes.max(1);
                    most = fitting.clamp(1, 2 * group.len());
                }
                Ok(Group::TooLarge) => most = group.len().div_ceil(2),
                Err(Error::Calibration(_)) if group.len() > 1 => most = group.len().div_ceil(2),
                Err(Error::Calibration(error)) => {
                    failing += 1;
                    let problem = error.to_string();
                    // Where so many fail, the others are hardly better.
                    let given_up = if failing < MOST_FAILING { 1 } else { rest.len() };
                    let failed = |name: &String| not_measured(name, NotMeasured::Failed { problem: problem.clone() });
                    found.extend(rest.iter().take(given_up).map(failed));
                }
                Err(other) => return Err(other),
            }
        }
        Ok(found)
    }

    /// Bytes that the tensors of a group may have for one sample.
    fn bytes_of_a_sample(&self) -> usize {
        GROUP_BYTES / (2 * rayon::current_num_threads())
    }

    fn group(&self, names: &[String]) -> Result<Group, Error> {
        let Self { samples, progress, .. } = self;
        let all: Vec<usize> = (0..samples.data.len()).collect();
        let session = samples.session(self.first, names, &all)?;
        let Some(&sample) = all.first() else { return Ok(Group::Compared(Vec::new(), 0)) };
        let shapes = observe_shapes(&session, &samples.data, sample)?;
        let elements: usize = shapes.iter().map(|(dims, _)| dims.iter().product::<usize>()).sum();
        let bytes = elements * ELEMENT_BYTES;
        if names.len() > 1 && bytes > self.bytes_of_a_sample() {
            return Ok(Group::TooLarge);
        }
        let other = samples.session(self.second, names, &all)?;
        let report = |state: onnxquant_calib::Progress| progress(Phase::Compare, state.done, state.total);
        let outputs = compare(&Original::new(session), &other, &samples.data, &all, &report)?;
        Ok(Group::Compared(outputs, bytes))
    }
}

/// By name: what depends on a node whose operator the engine lacks, and which node that is.
fn behind_unknown(samples: &Samples, model: &Model) -> Result<HashMap<String, String>, Error> {
    let unknown = unknown_operators(&*samples.engine, &without_functions(model)?);
    let mut behind: HashMap<String, String> = HashMap::new();
    for node in &unknown {
        behind.extend(node.outputs.iter().map(|output| (output.clone(), node.to_string())));
    }
    let graph = model.graph();
    for (_, node) in graph.nodes().filter(|_| !unknown.is_empty()) {
        let mut read = node.inputs().iter().flatten().chain(node.captures());
        let cause = read.find_map(|&value| behind.get(graph.value(value).name()).cloned());
        if let Some(cause) = cause {
            let outputs = node.outputs().iter().flatten().map(|&output| graph.value(output).name().to_owned());
            behind.extend(outputs.map(|output| (output, cause.clone())));
        }
    }
    Ok(behind)
}

fn not_measured(name: &str, why: NotMeasured) -> OutputComparison {
    let found = Measurement::NotMeasured(why);
    OutputComparison { name: name.to_owned(), samples: 0, incomparable: 0, is_float: true, found, tokens: None }
}

/// By node: the SQNR in dB of the least exact of what it reads. What was not compared is as exact as what it is made of.
fn before(graph: &Graph, found: &HashMap<String, OutputComparison>) -> HashMap<NodeId, f64> {
    let mut known: HashMap<ValueId, f64> = HashMap::new();
    let mut before = HashMap::new();
    for (id, node) in graph.nodes() {
        let read = node.inputs().iter().flatten().chain(node.captures());
        let least = read.filter_map(|value| known.get(value)).copied().fold(f64::INFINITY, f64::min);
        before.insert(id, least);
        for &output in node.outputs().iter().flatten() {
            let own = found.get(graph.value(output).name()).and_then(|tensor| tensor.found.measured());
            // What is not a number is as bad as can be.
            let own = own.map(|error| Some(error.sqnr_db()).filter(|db| !db.is_nan()).unwrap_or(f64::NEG_INFINITY));
            known.insert(output, own.unwrap_or(least));
        }
    }
    before
}
