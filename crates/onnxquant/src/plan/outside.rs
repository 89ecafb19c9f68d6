//! Where a body stands: what layers in it are called, and who outside reads what they read.
//!
//! A weight of the graph around may be read by several bodies, and by layers there. Were it the weight of a layer inside
//! and something else outside, codes would only make the file larger.

use onnxquant_ir::{BodyId, Graph, Model, Use, ValueId};
use onnxquant_passes::constant_chain::source;
use onnxquant_passes::expose::BodyStep;
use onnxquant_passes::sites::{Site, SkipReason, sharing};

/// The graphs around a body, the main graph first.
#[derive(Clone, Debug)]
pub(super) struct Around<'a> {
    models: Vec<&'a Model>,
    /// What comes before the labels of its layers.
    path: String,
    step: BodyStep,
}

impl<'a> Around<'a> {
    /// Of the main graph.
    pub(super) fn nothing() -> Self {
        let step = BodyStep { output: String::new(), attribute: String::new() };
        Self { models: Vec::new(), path: String::new(), step }
    }

    /// Of a body of `model`, which itself stands here.
    pub(super) fn inside(&self, model: &'a Model, id: &BodyId) -> Self {
        let graph = model.graph();
        let output = graph.node(id.node()).outputs().iter().flatten().next();
        let output = output.map_or("", |&value| graph.value(value).name());
        let name = graph.label(id.node());
        let has_own = graph.nodes().filter(|(_, node)| node.name() == name).count() < 2;
        let path = format!("{}{}/{}/", self.path, if has_own { name } else { output }, id.attribute());
        let models = self.models.iter().copied().chain([model]).collect();
        Self { models, path, step: BodyStep { output: output.to_owned(), attribute: id.attribute().to_owned() } }
    }

    /// Where it stands in the graph directly around it.
    pub(super) fn step(&self) -> BodyStep {
        self.step.clone()
    }

    /// What a layer is called whose own graph calls it so.
    pub(super) fn label(&self, own: String) -> String {
        if self.path.is_empty() { own } else { format!("{}{own}", self.path) }
    }

    /// Refused where the weight of a layer in `graph` comes from outside and is something else there.
    pub(super) fn may_share(&self, graph: &Graph, site: &Site) -> Result<(), SkipReason> {
        let Some(weight) = source(graph, site.weight) else { return Ok(()) };
        self.outer_values(graph, weight).into_iter().try_for_each(|(outer, value)| sharing(outer, value))
    }

    /// Whether a table in `graph` is its own, or read by bodies alone.
    pub(super) fn lets_go(&self, graph: &Graph, table: ValueId) -> bool {
        let captured = |user: &Use| matches!(user, Use::Capture(_));
        self.outer_values(graph, table).into_iter().all(|(outer, value)| outer.value(value).uses().iter().all(captured))
    }

    /// The value in all the graphs around that hand it on or have it.
    fn outer_values(&self, graph: &Graph, value: ValueId) -> Vec<(&'a Graph, ValueId)> {
        let name = graph.value(value).name().to_owned();
        let (mut found, mut is_captured) = (Vec::new(), graph.is_captured(&name));
        for outer in self.models.iter().rev().map(|model| model.graph()) {
            let Some(value) = outer.find(&name).filter(|_| is_captured) else { break };
            found.push((outer, value));
            is_captured = outer.is_captured(&name);
        }
        found
    }
}
