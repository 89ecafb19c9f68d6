//! Computes weights that follow from constants alone, so that the layer that reads them is seen.
//!
//! # Problem
//!
//! Exporters leave weights to be computed when a model is loaded: the direction of weight normalization times its
//! length, a part of a packed matrix, two matrices side by side. A layer behind them has no constant to quantize.
//!
//! # Method
//!
//! The weight and bias of every layer, recurrent ones too, and every table of a `Gather`, are followed back to the constants
//! that they come from, through operators of movement and arithmetic. What is found there is computed and takes the place of
//! the value; the chains that [`crate::constant_chain`] follows by itself stay. Weights that come from one large constant, as
//! parts of it do, are computed together or not at all.
//!
//! # Guarantee
//!
//! Movement keeps every bit; arithmetic is within one rounding of the specification's result in real numbers for each
//! operator. The file holds no more numbers than before, but for [`SLACK`] a weight, and no value on the way has more than the
//! constants together that it comes from.
//!
//! # Failure
//!
//! Left alone: weights that take more numbers than the constants that go with what computed them (an `Expand` of a large
//! shape, an outer product, a part of a table that others read too), numbers that are not finite, codes (weights that are
//! quantized already). Subgraphs are not entered.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use onnxquant_ir::{Graph, IR_WITH_PLAIN_INITIALIZERS, Model, Node, NodeId, Origin, Use, ValueId, tensor};

use crate::graph::constant_chain;
use crate::graph::evaluate::{Constant, Values, evaluate, is_known};
use crate::layers::{self, Bias};

/// Numbers by which a weight may be larger than what it comes from; constants of no more are not what weights have in
/// common.
pub const SLACK: usize = 1024;

/// Folds every such weight of the main graph; returns how many.
///
/// Below IR version 4, where initializers must also be inputs, the version is raised to 4.
pub fn fold_weights(model: &mut Model) -> usize {
    let graph = model.graph_mut();
    let mut folded = 0;
    // By name, since what one group leaves may be computed in another way by the next.
    for names in names_of_groups(graph) {
        let computed = Computed::new(graph);
        let mut group = Group::default();
        for root in names.iter().filter_map(|name| graph.find(name)) {
            if computed.values.contains(&root) {
                group.join(computed.behind(graph, root));
            }
        }
        let Some(results) = group.computed(graph) else { continue };
        for (name, result) in results {
            if let Some(value) = graph.find(&name) {
                replace(graph, value, &result);
                folded += 1;
            }
        }
    }
    if folded > 0 {
        model.raise_ir_version(IR_WITH_PLAIN_INITIALIZERS);
    }
    folded
}

/// Computed values that come from the same constants.
#[derive(Default)]
struct Group {
    /// What is computed.
    roots: BTreeSet<ValueId>,
    /// The nodes that compute it, by their place in the graph.
    nodes: BTreeMap<usize, NodeId>,
    /// The constants it comes from.
    sources: BTreeSet<ValueId>,
}

/// Everything to be computed; no large constant is a source of two groups.
fn groups(graph: &Graph) -> Vec<Group> {
    let computed = Computed::new(graph);
    let mut groups: Vec<Group> = Vec::new();
    for root in roots(graph, &computed.values) {
        let mut group = computed.behind(graph, root);
        let is_large = |source: &&ValueId| elements(graph, **source) > SLACK;
        let large: BTreeSet<ValueId> = group.sources.iter().filter(is_large).copied().collect();
        let (joined, apart) = groups.into_iter().partition(|other| !other.sources.is_disjoint(&large));
        groups = apart;
        joined.into_iter().for_each(|other: Group| group.join(other));
        groups.push(group);
    }
    groups
}

/// What is computed in each group.
fn names_of_groups(graph: &Graph) -> Vec<Vec<String>> {
    let names = |group: Group| group.roots.iter().map(|&root| graph.value(root).name().to_owned()).collect();
    groups(graph).into_iter().map(names).collect()
}

/// What follows from constants alone.
struct Computed {
    /// Results of known operators.
    values: HashSet<ValueId>,
    places: HashMap<NodeId, usize>,
}

impl Computed {
    fn new(graph: &Graph) -> Self {
        let mut values = HashSet::new();
        let mut places = HashMap::new();
        for (place, (id, node)) in graph.nodes().enumerate() {
            places.insert(id, place);
            let is_constant = |value: &ValueId| values.contains(value) || graph.value(*value).constant().is_some();
            if is_known(node) && node.inputs().iter().flatten().all(is_constant) {
                values.extend(node.outputs().iter().flatten());
            }
        }
        Self { values, places }
    }

    /// What `root`, which is computed, comes from.
    fn behind(&self, graph: &Graph, root: ValueId) -> Group {
        let mut group = Group { roots: BTreeSet::from([root]), ..Group::default() };
        let mut waiting = vec![root];
        while let Some(value) = waiting.pop() {
            let Some((id, node)) = graph.producer(value) else {
                group.sources.insert(value);
                continue;
            };
            let place = self.places.get(&id).copied().unwrap_or_default();
            if group.nodes.insert(place, id).is_none() {
                waiting.extend(node.inputs().iter().flatten());
            }
        }
        group
    }
}

/// The computed values that layers read where they take constants.
fn roots(graph: &Graph, computed: &HashSet<ValueId>) -> BTreeSet<ValueId> {
    let read = graph.nodes().flat_map(|(_, node)| constants_of(node));
    let unseen = read.filter(|&value| computed.contains(&value) && constant_chain::declared(graph, value).is_none());
    let root =
        |value| Some(constant_chain::start(graph, value)).filter(|start| computed.contains(start)).unwrap_or(value);
    let direct: BTreeSet<ValueId> = unseen.map(root).collect();
    // All results of a node go together, so that it goes with them.
    let beside = direct.iter().filter_map(|&value| graph.producer(value)).flat_map(|(_, node)| node.outputs());
    beside.flatten().copied().filter(|&value| !graph.value(value).uses().is_empty()).collect()
}

/// What a node reads in the places of its weights.
fn constants_of(node: &Node) -> Vec<ValueId> {
    let slots = match layers::layer(node).map(|layer| layer.bias()) {
        Some(Bias::Input(slot)) => vec![1, slot],
        Some(Bias::AddBehind) => vec![1],
        None if layers::is_recurrent(node) => vec![1, 2, 3],
        None if node.is("Gather") => vec![0],
        None if node.is("Einsum") => vec![0, 1],
        None => vec![],
    };
    slots.into_iter().filter_map(|slot| node.input(slot)).collect()
}

fn elements(graph: &Graph, value: ValueId) -> usize {
    graph.value(value).constant().and_then(|tensor| tensor::element_count(tensor).ok()).unwrap_or(0)
}

impl Group {
    fn join(&mut self, other: Self) {
        self.roots.extend(other.roots);
        self.nodes.extend(other.nodes);
        self.sources.extend(other.sources);
    }

    /// The roots' constants, by name; `None` where they had better stay as they are.
    fn computed(&self, graph: &Graph) -> Option<Vec<(String, Constant)>> {
        let total: usize = self.sources.iter().map(|&source| elements(graph, source)).sum();
        let last_readers = self.last_readers(graph);
        let mut known = Known { graph, made: HashMap::new() };
        for (&place, &id) in &self.nodes {
            let node = graph.node(id);
            let results = evaluate(node, &known, total.max(SLACK))?;
            let values = node.outputs().iter().zip(results);
            known.made.extend(values.filter_map(|(&value, result)| Some((value?, result))));
            let needed = |value: &ValueId| self.roots.contains(value) || last_readers.get(value) > Some(&place);
            known.made.retain(|value, _| needed(value));
        }
        let roots =
            self.roots.iter().map(|&root| Some((graph.value(root).name().to_owned(), known.made.remove(&root)?)));
        let results = roots.collect::<Option<Vec<_>>>()?;
        let made: usize = results.iter().map(|(_, result)| result.len()).sum();
        let allowed = self.freed(graph) + SLACK * results.len();
        (made <= allowed && results.iter().all(|(_, result)| result.is_finite())).then_some(results)
    }

    /// The places of the last of these nodes that reads a value.
    fn last_readers(&self, graph: &Graph) -> HashMap<ValueId, usize> {
        let read = self
            .nodes
            .iter()
            .flat_map(|(&place, &id)| graph.node(id).inputs().iter().flatten().map(move |&value| (value, place)));
        read.collect()
    }

    /// How many numbers go from the file with the nodes that computed the roots.
    fn freed(&self, graph: &Graph) -> usize {
        let mut gone = HashSet::new();
        let read_by_gone =
            |gone: &HashSet<NodeId>, user: &Use| matches!(user, Use::Input(node, _) if gone.contains(node));
        for &id in self.nodes.values().rev() {
            let goes = |value: &ValueId| match self.roots.contains(value) {
                true => graph.value(*value).uses().iter().all(|user| matches!(user, Use::Input(..))),
                false => graph.value(*value).uses().iter().all(|user| read_by_gone(&gone, user)),
            };
            if graph.node(id).outputs().iter().flatten().all(goes) {
                gone.insert(id);
            }
        }
        let goes = |source: &&ValueId| graph.value(**source).uses().iter().all(|user| read_by_gone(&gone, user));
        self.sources.iter().filter(goes).map(|&source| elements(graph, source)).sum()
    }
}

/// Constants of the graph, and those made so far.
struct Known<'a> {
    graph: &'a Graph,
    made: HashMap<ValueId, Constant>,
}

impl Values for Known<'_> {
    fn constant(&self, value: ValueId) -> Option<Constant> {
        match self.graph.value(value).origin() {
            Origin::Constant => Constant::read(self.graph.value(value).constant()?),
            _ => self.made.get(&value).cloned(),
        }
    }

    fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        match self.graph.value(value).constant() {
            Some(tensor) => tensor::shape(tensor).ok(),
            None => self.made.get(&value).map(|made| made.shape().to_vec()),
        }
    }
}

/// Lets everything that reads `value` read the constant, under the same name where it can go from there.
fn replace(graph: &mut Graph, value: ValueId, result: &Constant) {
    let Some((id, node)) = graph.producer(value) else { return };
    let inputs = node.inputs().to_vec();
    if graph.node_to_constant(id, result.to_tensor()).is_ok() {
        inputs.into_iter().flatten().for_each(|input| graph.remove_if_unused(input));
        return;
    }
    let name = graph.value(value).name().to_owned();
    let constant = graph.add_constant(&name, result.to_tensor());
    for user in graph.value(value).uses().to_vec() {
        if let Use::Input(reader, slot) = user {
            graph.set_input(reader, slot, Some(constant));
        }
    }
    graph.remove_if_unused(value);
}

#[cfg(test)]
#[path = "fold_weights_tests.rs"]
mod tests;
