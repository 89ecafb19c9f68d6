//! Decides what will be done with every layer, without doing it.

use onnxquant_ir::Model;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_passes::raise_opset::LOWEST_TARGET;
use onnxquant_passes::sites::{Site, SkipReason, find_sites};
use onnxquant_passes::write_codes::needed_opset;
use onnxquant_quant::{Granularity, MatrixView};
use serde::Serialize;

use crate::config::{Config, Selection};
use crate::error::Error;

/// A layer that will be quantized.
#[derive(Clone, Debug)]
pub struct PlannedLayer {
    /// The node's name, or its first output's.
    pub label: String,
    /// Gemm, MatMul or Conv.
    pub op_type: String,
    /// Where it is and how it is read.
    pub site: Site,
    /// Which weights share a scale: as configured, but never blocks in a Conv.
    pub granularity: Granularity,
    /// Storage type of the codes.
    pub storage: DataType,
}

/// A layer that stays in float.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedLayer {
    /// The node's name, or its first output's.
    pub label: String,
    /// Gemm, MatMul or Conv.
    pub op_type: String,
    /// Shape of the weight, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_shape: Option<Vec<usize>>,
    /// Why.
    #[serde(flatten)]
    pub reason: SkipReason,
}

/// What will be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Layers to quantize, in topological order.
    pub layers: Vec<PlannedLayer>,
    /// Layers that stay in float, in the same order.
    pub skipped: Vec<SkippedLayer>,
    /// Opset that the written model needs at least.
    pub opset: i64,
}

impl Plan {
    /// The plan for `model` under `config`.
    pub fn new(model: &Model, config: &Config) -> Result<Self, Error> {
        let selection = Selection::new(config)?;
        let (mut layers, mut skipped) = (Vec::new(), Vec::new());
        for candidate in find_sites(model) {
            let outcome = candidate.outcome.and_then(|site| match selection.contains(&candidate.label) {
                true => Ok(site),
                false => Err(SkipReason::Excluded),
            });
            let (label, op_type, weight_shape) = (candidate.label, candidate.op_type, candidate.weight_shape);
            match outcome {
                Ok(site) => {
                    let granularity = granularity(&site.view, config.granularity);
                    let storage = storage(&site.view, config.storage());
                    layers.push(PlannedLayer { label, op_type, site, granularity, storage });
                }
                Err(reason) => skipped.push(SkippedLayer { label, op_type, weight_shape, reason }),
            }
        }
        let needed = layers.iter().map(|layer| needed_opset(&layer.site, layer.storage, layer.granularity));
        let needed = needed.max().unwrap_or(0);
        let present = model.opset("").unwrap_or(0);
        let opset = if needed > present { needed.max(LOWEST_TARGET) } else { present };
        if opset > config.opset_max && opset > present {
            let settings = "choose a coarser granularity, or allow a higher opset with --opset-max";
            return Err(Error::Usage(format!(
                "the codes need opset {opset}, but at most {} is allowed: {settings}",
                config.opset_max
            )));
        }
        Ok(Self { layers, skipped, opset })
    }
}

/// ONNX Runtime 1.32 computes its fused 2-bit MatMul wrongly unless the number of outputs is a multiple of 4: such
/// a layer takes the next wider type.
fn storage(view: &MatrixView, wanted: DataType) -> DataType {
    const OUTPUTS_OF_TWO_BIT_KERNEL: usize = 4;
    match (view, wanted) {
        (MatrixView::Dense { outputs, .. }, _) if outputs % OUTPUTS_OF_TWO_BIT_KERNEL == 0 => wanted,
        (MatrixView::Dense { .. }, DataType::Int2) => DataType::Int4,
        (MatrixView::Dense { .. }, DataType::Uint2) => DataType::Uint4,
        _ => wanted,
    }
}

/// Blocks along K mean nothing to a Conv, whose inputs are channels times kernel positions.
fn granularity(view: &MatrixView, wanted: Granularity) -> Granularity {
    match (view, wanted) {
        (MatrixView::Conv(_), Granularity::Block(_)) => Granularity::Channel,
        (MatrixView::Dense { inputs, .. }, Granularity::Block(size)) if size >= *inputs => Granularity::Channel,
        _ => wanted,
    }
}
