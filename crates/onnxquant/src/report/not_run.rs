//! What the calibration engine could not run.

use onnxquant_calib::BlockedNode;
use onnxquant_ir::Graph;
use schemars::JsonSchema;
use serde::Serialize;

use crate::observe::reach::Reach;
use crate::plan::layers::Plan;

/// What the calibration engine could not run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NotRun {
    /// Nodes that it cannot run, less those that depend on another one of these.
    pub nodes: Vec<NotRunNode>,
    /// Outputs of the model that depend on them, and are not compared.
    pub outputs: Vec<String>,
    /// Values before them that are compared instead.
    pub compared: Vec<String>,
    /// Layers that depend on them, which are rounded without data.
    pub layers: Vec<String>,
}

/// A node that the calibration engine cannot run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NotRunNode {
    /// Its name, or its first output's.
    pub label: String,
    /// Its operator.
    pub op_type: String,
    /// The operator's domain, empty for the default one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Why.
    pub reason: String,
}

impl NotRun {
    /// What is said of `reach`, where there is something to say.
    pub(crate) fn of(reach: &Reach, graph: &Graph, plan: &Plan) -> Option<Self> {
        let behind = reach.behind(graph);
        let unseen = plan.layers.iter().filter(|layer| behind.contains_key(&layer.site.input));
        let outputs = graph.outputs().iter().filter(|port| behind.contains_key(&port.value));
        (!reach.blocked().is_empty()).then(|| Self {
            nodes: reach.blocked().iter().map(NotRunNode::from).collect(),
            outputs: outputs.map(|port| graph.value(port.value).name().to_owned()).collect(),
            compared: reach.names_before(),
            layers: unseen.map(|layer| layer.label.clone()).collect(),
        })
    }
}

impl From<&BlockedNode> for NotRunNode {
    fn from(node: &BlockedNode) -> Self {
        Self {
            label: node.label.clone(),
            op_type: node.op_type.clone(),
            domain: node.domain.clone(),
            reason: node.reason.clone(),
        }
    }
}
