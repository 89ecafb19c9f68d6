//! Makes what was cut out of a model ready for tract.
//!
//! - Rounding to a grid becomes one operator ([`fuse`]), and what the engine would not understand is rewritten
//!   ([`adapt`]).
//! - Tensors of more than a few bytes are marked as external, with their index in a table as
//!   the offset. The engine asks for them one by one while it builds its own copies, so that
//!   no second copy of all weights exists on the way.

use bytes::Bytes;
use onnxquant_proto::onnx::{GraphProto, ModelProto, StringStringEntryProto, TensorProto, tensor_proto::DataLocation};

use super::adapt::adapt;
use super::misread::check;
use super::round_to_grid::fuse;
use crate::engine::contract::Feed;
use crate::engine::cut::{Cut, cut};
use crate::error::CalibError;

/// Smaller tensors stay in the message: the engine reads them more than once (shapes, axes).
const INLINE_BYTES: usize = 256;

/// A model made ready for the engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineModel {
    /// The model; large tensors are references into `tensors`.
    pub(crate) proto: ModelProto,
    /// Data of large tensors.
    pub(crate) tensors: Vec<Bytes>,
    /// Names of the inputs to feed, in the order of the model's inputs.
    pub(crate) inputs: Vec<String>,
    /// Whether there is a convolution.
    pub(crate) has_convolutions: bool,
    /// Whether activations are quantized.
    pub(crate) quantizes: bool,
}

/// Prepares `model` to compute `values` when samples give the values `feeds`.
pub(crate) fn engine_model(model: &ModelProto, values: &[String], feeds: &[Feed]) -> Result<EngineModel, CalibError> {
    let part = cut(model, values, feeds)?;
    check(&part.model)?;
    rewritten(part, values)
}

/// Prepares what was cut out, whatever the engine makes of it.
pub(super) fn rewritten(part: Cut, values: &[String]) -> Result<EngineModel, CalibError> {
    let Cut { model: mut proto, inputs } = part;
    let has = |is_one: fn(&str) -> bool| proto.graph.iter().flat_map(|graph| &graph.node).any(|n| is_one(n.op_type()));
    let quantizes = has(|op_type| matches!(op_type, "QuantizeLinear" | "DynamicQuantizeLinear"));
    let has_convolutions = has(|op_type| op_type.contains("Conv"));
    if let Some(graph) = &mut proto.graph {
        fuse(graph, values);
    }
    adapt(&mut proto)?;
    let mut tensors = Vec::new();
    proto.graph.iter_mut().for_each(|graph| take_tensors(graph, &mut tensors));
    Ok(EngineModel { proto, tensors, inputs, has_convolutions, quantizes })
}

/// Moves the data of large tensors into the table.
fn take_tensors(graph: &mut GraphProto, table: &mut Vec<Bytes>) {
    graph.value_info.clear();
    graph.doc_string = None;
    for tensor in &mut graph.initializer {
        take_tensor(tensor, table);
    }
    for node in &mut graph.node {
        node.doc_string = None;
        for attribute in &mut node.attribute {
            attribute.t.iter_mut().for_each(|t| take_tensor(t, table));
            attribute.tensors.iter_mut().for_each(|t| take_tensor(t, table));
            attribute.g.iter_mut().for_each(|g| take_tensors(g, table));
            attribute.graphs.iter_mut().for_each(|g| take_tensors(g, table));
        }
    }
}

fn take_tensor(tensor: &mut TensorProto, table: &mut Vec<Bytes>) {
    let large = tensor.raw_data.take_if(|raw| raw.len() > INLINE_BYTES);
    let Some(raw) = large else { return };
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
    tensor.data_location = Some(DataLocation::External.into());
    tensor.external_data = vec![
        entry("location", ".".into()),
        entry("offset", table.len().to_string()),
        entry("length", raw.len().to_string()),
    ];
    table.push(raw);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;
    use onnxquant_proto::onnx::ValueInfoProto;

    #[test]
    fn the_data_of_large_tensors_stand_in_the_table() {
        let tensor = |name: &str, bytes: usize| TensorProto {
            name: Some(name.into()),
            raw_data: Some(vec![0; bytes].into()),
            ..TensorProto::default()
        };
        let graph = GraphProto {
            node: vec![node("MatMul", &["x", "w"], "y"), node("Reshape", &["y", "shape"], "z")],
            initializer: vec![tensor("w", 1000), tensor("shape", 16)],
            input: vec![ValueInfoProto { name: Some("x".into()), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let made = engine_model(&model, &["z".into()], &[Feed { name: "x".into(), element_type: None }]).unwrap();
        let lengths = made.proto.graph.unwrap().initializer.into_iter().map(|t| t.raw_data.map(|raw| raw.len()));
        assert_eq!((made.tensors.len(), lengths.collect::<Vec<_>>()), (1, vec![None, Some(16)]));
    }
}
