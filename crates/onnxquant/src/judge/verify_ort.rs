//! Loads a written model in ONNX Runtime, and checks what was predicted of it.
//!
//! The file is loaded at every optimization level, and the graph is saved of the level below the highest, which only
//! changes layouts, and names with them. Every layer is looked up in it by what the runtime leaves of its names: the
//! node's, its result's, or those of its codes and scales. The prediction is the one for the version that is found.

use std::path::Path;

use onnxquant_calib::{OrtEngine, OrtLevel, OrtOptions};
use onnxquant_ir::onnx::NodeProto;
use onnxquant_ir::{Graph, Model};
use onnxquant_passes::ort_version::OrtVersion;
use onnxquant_passes::runs_as::{Kernel, runs_as};
use onnxquant_passes::sites::LayerId;
use onnxquant_proto::all_nodes;
use onnxquant_temporary::TempFolder;
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Config;
use crate::error::Error;
use crate::write::file::write;

/// From the one that changes nothing to the default.
const LEVELS: [(OrtLevel, &str); 4] =
    [(OrtLevel::None, "none"), (OrtLevel::Basic, "basic"), (OrtLevel::Extended, "extended"), (OrtLevel::All, "all")];

/// Names by which a layer is found in the optimized graph.
#[derive(Clone, Debug, Default)]
struct LayerNames {
    /// The layer's node.
    node: String,
    results: Vec<String>,
    /// Constants and intermediate values on the side of the weight.
    weights: Vec<String>,
}

/// What ONNX Runtime made of the file.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VerifiedOrt {
    /// Version of ONNX Runtime.
    pub version: String,
    /// Layers that run as predicted.
    pub as_predicted: usize,
    /// Layers that do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mispredicted: Vec<Mispredicted>,
}

/// A layer that does not run as predicted.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Mispredicted {
    /// The layer.
    pub label: String,
    /// What was predicted.
    pub predicted: Kernel,
    /// What was found; absent where the layer was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

impl LayerNames {
    /// Those of a layer in a written graph.
    fn new(graph: &Graph, layer: LayerId) -> Self {
        let layer = graph.node(layer.node());
        let name = |value| graph.value(value).name().to_owned();
        // Others may be called so too.
        let is_its_own = graph.nodes().filter(|(_, node)| node.name() == layer.name()).count() == 1;
        let mut found = Self {
            node: if is_its_own { layer.name().to_owned() } else { String::new() },
            results: layer.outputs().iter().flatten().map(|&value| name(value)).collect(),
            weights: Vec::new(),
        };
        // Other inputs may be shared with other layers.
        let mut waiting: Vec<_> = layer.input(1).into_iter().collect();
        while let Some(value) = waiting.pop() {
            found.weights.push(name(value));
            waiting.extend(
                graph.producer(value).into_iter().flat_map(|(_, node)| node.inputs().iter().copied().flatten()),
            );
        }
        found
    }

    fn is(&self, node: &NodeProto) -> bool {
        let made = node.output.iter().any(|name| self.results.contains(name));
        let reads = node.input.iter().any(|name| self.weights.contains(name));
        // Of a MatMul and an Add the runtime makes one node, `name/MatMulAddFusion`.
        let of_name = |rest: &str| rest.is_empty() || rest.starts_with('/');
        let is_named = !self.node.is_empty() && node.name().strip_prefix(&self.node).is_some_and(of_name);
        made || reads || is_named
    }
}

/// Writes `model` where nobody sees it, beside `output`, and loads it in ONNX Runtime, where `config` asks for that;
/// `layers`, each with the graph in which it stands, are known by what people call them.
pub(crate) fn verify<'a>(
    model: &Model,
    config: &Config,
    output: &Path,
    layers: impl Iterator<Item = (&'a str, (&'a Graph, LayerId))>,
) -> Result<Option<VerifiedOrt>, Error> {
    let runtime = match (config.verify, &config.runtime) {
        (false, _) => return Ok(None),
        (true, None) => return Err(Error::Verify("it is not there".to_owned())),
        (true, Some(runtime)) => runtime,
    };
    let failed = |error: std::io::Error| Error::Verify(error.to_string());
    let near = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = TempFolder::new_in(near, ".onnxquant-").map_err(failed)?;
    let path = folder.path().join("model.onnx");
    write(model, &path, config)?;
    verify_file(&path, runtime, layers).map(Some)
}

/// Loads the file at `path`, in whose graphs `layers` stand, and compares.
fn verify_file<'a>(
    path: &Path,
    runtime: &OrtEngine,
    layers: impl Iterator<Item = (&'a str, (&'a Graph, LayerId))>,
) -> Result<VerifiedOrt, Error> {
    let failed = |problem: String| Error::Verify(problem);
    let folder = TempFolder::new("onnxquant-").map_err(|error| failed(error.to_string()))?;
    let optimized = folder.path().join("optimized.onnx");
    for (level, name) in LEVELS {
        let saved = (level == OrtLevel::Extended).then_some(optimized.as_path());
        let loaded = runtime.load(path, &OrtOptions { level, threads: 1, optimized: saved });
        loaded.map_err(|error| failed(format!("at optimization level {name}: {error}")))?;
    }
    let model = onnxquant_proto::read_model(&optimized).map_err(|error| failed(error.to_string()))?;
    let graph = model.graph.unwrap_or_default();
    let nodes = all_nodes(&graph.node);
    let mut found = VerifiedOrt { version: runtime.version().to_owned(), as_predicted: 0, mispredicted: Vec::new() };
    let version = found.version.parse::<OrtVersion>().map_err(failed)?;
    for (label, (graph, layer)) in layers {
        let (names, predicted) = (LayerNames::new(graph, layer), runs_as(graph, layer.node(), version).kernel);
        let of_layer: Vec<&NodeProto> = nodes.iter().copied().filter(|node| names.is(node)).collect();
        if of_layer.iter().any(|node| predicted.is(node.op_type())) {
            found.as_predicted += 1;
        } else {
            let found_as = of_layer.first().map(|node| node.op_type().to_owned());
            found.mispredicted.push(Mispredicted { label: label.to_owned(), predicted, found: found_as });
        }
    }
    Ok(found)
}
