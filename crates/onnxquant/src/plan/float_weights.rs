//! The weights that stay floats, of all operators.

use std::collections::HashMap;

use onnxquant_ir::{BodyId, Graph, Model, NodeId, Use};
use onnxquant_passes::float_weights::{self, FloatReason, closed_float_weights, float_weights};
use onnxquant_passes::sites::SkipReason;
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Config;
use crate::plan::layers::{Plan, PlannedBody, SkippedLayer};

/// What is said of all that has one dimension.
const VECTORS: &str = "biases and other vectors";

/// A weight that stays floats.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FloatWeight {
    /// Its name.
    pub name: String,
    /// The operators that read it, sorted.
    pub operators: Vec<String>,
    /// Bytes of its elements.
    pub bytes: usize,
    /// Why it is not stored as codes.
    pub reason: String,
    /// It is a bias or another vector: there may be many.
    #[serde(skip)]
    pub is_vector: bool,
}

/// Whether a layer of the planned graph is that layer of another form of the graph.
type IsSame<'a> = &'a dyn Fn(NodeId, NodeId) -> bool;

impl Plan {
    /// The weights of `model` that are floats, or will be: it may be the model that was planned or the one that was
    /// written.
    pub fn float_weights(&self, model: &Model, config: &Config) -> Vec<FloatWeight> {
        self.floats_of(model, config, &|planned, found| planned == found)
    }

    /// Whether a layer gets codes, its own or those of a table.
    fn has_codes(&self, node: NodeId, is_same: IsSame<'_>) -> bool {
        let mut heads = self.tables.iter().flat_map(|planned| &planned.table.heads);
        heads.any(|head| is_same(head.node, node)) || self.layers.iter().any(|layer| is_same(layer.site.node, node))
    }

    fn floats_of(&self, model: &Model, config: &Config, is_same: IsSame<'_>) -> Vec<FloatWeight> {
        let (mut inside, mut captured) = (Vec::new(), HashMap::new());
        for id in model.graph().bodies() {
            let Some((planned, body)) = self.body(model.graph(), &id).zip(model.open_body(&id)) else {
                let closed = closed_float_weights(model.graph(), &id);
                inside.extend(closed.into_iter().filter_map(|found| self.float_weight(found, config, is_same)));
                continue;
            };
            let is_same = |a, b| result(planned.model.graph(), a) == result(body.graph(), b);
            for found in planned.plan.floats_of(&body, config, &is_same) {
                match body.graph().is_captured(&found.name) {
                    true => drop(captured.insert(found.name.clone(), found)),
                    false => inside.push(found),
                }
            }
        }
        let own = float_weights(model).into_iter().filter_map(|found| {
            if found.reason == FloatReason::Skipped(SkipReason::ReadBySubgraph)
                && self.reads_are_planned(model.graph(), &found.name)
            {
                return captured.remove(&found.name);
            }
            self.float_weight(found, config, is_same)
        });
        own.collect::<Vec<_>>().into_iter().chain(inside).collect()
    }

    /// What is planned for a body of a form of the planned graph.
    fn body(&self, graph: &Graph, id: &BodyId) -> Option<&PlannedBody> {
        let makes = |name: &str| {
            let mut outputs = graph.node(id.node()).outputs().iter().flatten();
            outputs.any(|&value| graph.value(value).name() == name)
        };
        self.bodies.iter().find(|body| body.step.attribute == id.attribute() && makes(&body.step.output))
    }

    /// Whether all bodies that read a value are planned.
    fn reads_are_planned(&self, graph: &Graph, name: &str) -> bool {
        let uses = graph.find(name).map(|value| graph.value(value).uses()).unwrap_or_default();
        uses.iter().all(|user| match user {
            Use::Capture(node) => graph.bodies().iter().any(|id| id.node() == *node && self.body(graph, id).is_some()),
            _ => true,
        })
    }

    fn float_weight(
        &self,
        found: float_weights::FloatWeight,
        config: &Config,
        is_same: IsSame<'_>,
    ) -> Option<FloatWeight> {
        if self.tables.iter().any(|table| table.name == found.name) {
            return None;
        }
        let is_vector = found.reason == FloatReason::Vector;
        let reason = match found.reason {
            FloatReason::Vector => VECTORS.to_owned(),
            FloatReason::OfLayer(node) if self.has_codes(node, is_same) => return None,
            FloatReason::OfLayer(node) => {
                let is_it = |layer: &&SkippedLayer| layer.node.is_some_and(|skipped| is_same(skipped, node));
                let skipped = self.skipped.iter().find(is_it);
                skipped.map_or(&SkipReason::Excluded, |layer| &layer.reason).to_string()
            }
            FloatReason::Skipped(reason) => reason.to_string(),
            FloatReason::Table if config.embeddings.is_none() => SkipReason::Excluded.to_string(),
            FloatReason::Table if config.target.takes().is_strict => {
                format!("a table, which `--target {}` does not take on codes, or that is small", config.target)
            }
            FloatReason::Table => "a table that is small, of another type or not read by rows".to_owned(),
            FloatReason::NoForm => "no quantized form".to_owned(),
        };
        Some(FloatWeight { name: found.name, operators: found.operators, bytes: found.bytes, reason, is_vector })
    }
}

/// The name of what a node makes.
fn result(graph: &Graph, node: NodeId) -> Option<&str> {
    graph.node(node).outputs().iter().flatten().next().map(|&value| graph.value(value).name())
}
