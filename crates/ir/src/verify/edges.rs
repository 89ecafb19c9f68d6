//! Both sides of every edge agree: a defect here is one of an edit, never of a file.

use std::collections::HashSet;

use crate::graph::{Graph, Origin, Use};
use crate::ids::{Marks, NodeId, ValueId};
use crate::violation::Violation;

/// Adds a violation for every edge that only one of its ends knows, and for ids that lead nowhere.
pub(super) fn edges(graph: &Graph, violations: &mut Vec<Violation>) {
    let mut check = Check { graph, violations };
    if check.nodes_in_order() {
        check.readers();
        check.origins();
        check.initializers();
    }
}

struct Check<'a> {
    graph: &'a Graph,
    violations: &'a mut Vec<Violation>,
}

impl Check<'_> {
    fn broken(&mut self, value: ValueId, detail: String) {
        let name = self.graph.values.get(value).map_or_else(|| format!("{value:?}"), |found| found.name.clone());
        self.violations.push(Violation::BrokenEdge { value: name, detail });
    }

    /// Every node stands in the order once; `false` when the order cannot be walked.
    fn nodes_in_order(&mut self) -> bool {
        let mut listed = Marks::none_of(&self.graph.nodes);
        let is_live = |id: &NodeId| self.graph.nodes.get(*id).is_some();
        let once = self.graph.order.iter().all(|id| is_live(id) && listed.add(*id));
        let whole = once && self.graph.nodes.iter().count() == self.graph.order.len();
        if !whole {
            let detail = "the order does not list every node once".to_owned();
            self.violations.push(Violation::BrokenEdge { value: String::new(), detail });
        }
        whole
    }

    /// Whatever reads a value is among its uses, once, and nothing else is.
    fn readers(&mut self) {
        let mut expected = Vec::new();
        for (id, node) in self.graph.nodes() {
            let inputs = node.inputs().iter().enumerate();
            expected.extend(inputs.filter_map(|(slot, value)| Some(((*value)?, Use::Input(id, slot)))));
            expected.extend(node.captures().iter().map(|&value| (value, Use::Capture(id))));
        }
        let outputs = self.graph.outputs().iter().enumerate();
        expected.extend(outputs.map(|(index, port)| (port.value, Use::GraphOutput(index))));
        expected.sort_unstable();
        expected.dedup();
        let users = self.graph.values().flat_map(|(id, value)| value.uses().iter().map(move |user| (id, *user)));
        let mut known: Vec<(ValueId, Use)> = users.collect();
        known.sort_unstable();
        // Large graphs are in order, as a rule: that takes no tables.
        if known == expected {
            return;
        }
        let mut expected: HashSet<_> = expected.into_iter().collect();
        for (id, value) in self.graph.values() {
            for user in value.uses() {
                if !expected.remove(&(id, *user)) {
                    self.broken(id, format!("{user:?} does not read it"));
                }
            }
        }
        let mut unknown = expected.into_iter().collect::<Vec<_>>();
        unknown.sort();
        unknown.into_iter().for_each(|(id, user)| self.broken(id, format!("does not know its user {user:?}")));
    }

    /// Whatever makes a value is its origin, and its name leads to it.
    fn origins(&mut self) {
        let listed = self.graph.inputs().iter().map(|port| port.value).collect::<HashSet<_>>();
        for (id, value) in self.graph.values() {
            let known = match value.origin() {
                Origin::Output(node, slot) => self.makes(node, slot) == Some(id),
                Origin::Input | Origin::Overridable => listed.contains(&id),
                Origin::Constant => true,
            };
            if !known {
                self.broken(id, format!("{:?} does not make it", value.origin()));
            }
            if self.graph.find(value.name()) != Some(id) {
                self.broken(id, "its name leads elsewhere".to_owned());
            }
        }
        let mut left = Vec::new();
        for (id, node) in self.graph.nodes() {
            let made = node.outputs().iter().enumerate().filter_map(|(slot, value)| Some(((*value)?, id, slot)));
            left.extend(made.filter(|&(value, node, slot)| {
                self.graph.values.get(value).is_none_or(|value| value.origin() != Origin::Output(node, slot))
            }));
        }
        left.sort();
        for (value, node, slot) in left {
            self.broken(value, format!("output {slot} of {} is not its origin", self.graph.describe(node)));
        }
    }

    /// What stands in an output of a node.
    fn makes(&self, node: NodeId, slot: usize) -> Option<ValueId> {
        *self.graph.nodes.get(node)?.outputs().get(slot)?
    }

    /// Initializers, dense and sparse, are exactly the constants and overridable inputs.
    fn initializers(&mut self) {
        let sparse = self.graph.rest.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        let sparse = sparse.filter_map(|values| self.graph.find(values.name())).collect::<HashSet<_>>();
        let dense = self.graph.initializers().iter().copied().collect::<HashSet<_>>();
        if dense.len() != self.graph.initializers().len() {
            let detail = "an initializer is listed twice".to_owned();
            self.violations.push(Violation::BrokenEdge { value: String::new(), detail });
        }
        for (id, value) in self.graph.values() {
            let holds = matches!(value.origin(), Origin::Constant | Origin::Overridable);
            if holds && value.tensor().is_none() && !sparse.contains(&id) {
                self.broken(id, "the initializer has no data".to_owned());
            }
            let has_data = value.tensor().is_some();
            if has_data != dense.contains(&id) || (has_data && !holds) {
                self.broken(id, "it is not an initializer for all".to_owned());
            }
        }
    }
}
