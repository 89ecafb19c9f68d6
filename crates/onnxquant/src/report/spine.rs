//! The nodes of the model in the order in which they run, and on what.

use std::collections::{HashMap, HashSet};

use onnxquant_ir::{Graph, NodeId};
use schemars::JsonSchema;
use serde::Serialize;

use crate::plan::assignment::{Assignment, Form};
use crate::plan::layers::{Plan, PlannedLayer};

/// Layers with what lies between them, in the order in which they run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SpineNode {
    /// Name of the layer; absent for what lies between layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What there is.
    pub operators: Vec<OperatorCount>,
    /// On what they run.
    pub precision: Precision,
    /// Bits of the weight, where it has codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
}

/// Nodes of one operator.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OperatorCount {
    /// The operator.
    pub op_type: String,
    /// How many nodes.
    pub count: usize,
}

/// On what nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Floats alone.
    Float,
    /// The weight has codes, what it meets are floats.
    Weights,
    /// Weight and activations are codes.
    Codes,
}

impl SpineNode {
    /// Of all nodes of `graph`, in float, as `plan` and `assignment` have them.
    pub(super) fn all(graph: &Graph, plan: &Plan, assignment: &Assignment) -> Vec<Self> {
        let layers: HashMap<NodeId, &PlannedLayer> = plan.layers.iter().map(|layer| (layer.site.node, layer)).collect();
        let floats: HashSet<NodeId> = plan.skipped.iter().filter_map(|layer| layer.node).collect();
        let heads =
            plan.tables.iter().flat_map(|planned| planned.table.heads.iter().map(|head| (head.node, planned.bits)));
        let heads: HashMap<NodeId, u32> = heads.collect();
        let units = &assignment.regions().units;
        let on_codes: HashSet<NodeId> =
            units.iter().flat_map(|unit| std::iter::once(unit.node).chain(unit.tail)).collect();
        let mut found: Vec<Self> = Vec::new();
        for (id, node) in graph.nodes() {
            let operators = vec![OperatorCount { op_type: node.op_type().to_owned(), count: 1 }];
            let of_layer = |label: String, precision, bits| Self {
                label: Some(label),
                operators: operators.clone(),
                precision,
                bits,
            };
            let alone = match (layers.get(&id), heads.get(&id)) {
                (Some(layer), _) => {
                    Some(of_layer(layer.label.clone(), Precision::of(assignment, layer), Some(layer.bits)))
                }
                (None, Some(&bits)) => Some(of_layer(graph.label(id).to_owned(), Precision::Weights, Some(bits))),
                (None, None) if floats.contains(&id) => {
                    Some(of_layer(graph.label(id).to_owned(), Precision::Float, None))
                }
                (None, None) => None,
            };
            let precision = if on_codes.contains(&id) { Precision::Codes } else { Precision::Float };
            match (alone, found.last_mut()) {
                (Some(layer), _) => found.push(layer),
                (None, Some(last)) if last.label.is_none() && last.precision == precision => {
                    last.add(node.op_type());
                }
                (None, _) => found.push(Self { label: None, operators, precision, bits: None }),
            }
        }
        found
    }

    /// Counts one more node.
    fn add(&mut self, op_type: &str) {
        match self.operators.iter_mut().find(|known| known.op_type == op_type) {
            Some(known) => known.count += 1,
            None => self.operators.push(OperatorCount { op_type: op_type.to_owned(), count: 1 }),
        }
    }
}

impl Precision {
    fn of(assignment: &Assignment, layer: &PlannedLayer) -> Self {
        match assignment.form(layer.site.id()) {
            Form::WeightOnly => Self::Weights,
            Form::Static { .. } | Form::Dynamic => Self::Codes,
        }
    }
}
