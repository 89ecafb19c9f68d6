//! The weight of a layer as numbers.

use ndarray::{Array3, ArrayD, Dimension, IxDyn};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, tensor};
use onnxquant_quant::{QuantError, ScaleType};

use crate::error::Error;
use crate::plan::layers::PlannedLayer;

/// The weights `[groups, K, M]` of a layer; an error where one is not finite.
pub(crate) fn weights(model: &Model, layer: &PlannedLayer) -> Result<Array3<f32>, Error> {
    let stored = stored_weight(model, layer)?;
    if !stored.iter().all(|weight| weight.is_finite()) {
        return Err(non_finite(model, layer, &stored));
    }
    layer.site.view.to_matrix(stored.view()).map_err(|error| failed(model, layer, error))
}

/// The weight as the operator has it.
pub(crate) fn stored_weight(model: &Model, layer: &PlannedLayer) -> Result<ArrayD<f32>, Error> {
    let stored = layer.site.weight_tensor(model.graph())?;
    let numbers = tensor::to_f32(&stored)?.into_owned();
    ArrayD::from_shape_vec(IxDyn(&layer.site.view.weight_shape()), numbers)
        .map_err(|error| Error::Internal(format!("weight of `{}`: {error}", layer.label)))
}

/// That a weight is not finite: which one.
fn non_finite(model: &Model, layer: &PlannedLayer, stored: &ArrayD<f32>) -> Error {
    let tensor = model.graph().value(layer.site.weight).name().to_owned();
    let bad = stored.indexed_iter().find(|(_, weight)| !weight.is_finite());
    let (index, value) = bad.map_or((Vec::new(), f32::NAN), |(index, &value)| (index.slice().to_vec(), value));
    Error::NonFinite { tensor, index, value }
}

/// Scales have the type of the weights they stand for.
pub(crate) fn scale_type(dtype: DataType) -> ScaleType {
    match dtype {
        DataType::Float16 => ScaleType::F16,
        DataType::Bfloat16 => ScaleType::Bf16,
        _ => ScaleType::F32,
    }
}

pub(crate) fn failed(model: &Model, layer: &PlannedLayer, source: QuantError) -> Error {
    let weight = model.graph().value(layer.site.weight).name().to_owned();
    Error::Layer { layer: layer.label.clone(), weight, source }
}
