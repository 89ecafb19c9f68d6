//! Expands local functions, for engines that do not know them.

use onnxquant_proto::onnx::ModelProto;

use crate::error::CalibError;

/// The model without local functions; it computes the same values. For running a model: the
/// weights are shared with `model`.
pub fn inline_functions(model: &ModelProto) -> Result<ModelProto, CalibError> {
    onnxquant_proto::inline_functions(model, |_| true).map_err(|error| CalibError::BadModel(error.to_string()))
}
