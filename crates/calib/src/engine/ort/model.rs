//! Makes what was cut out of a model ready for ONNX Runtime.
//!
//! Names of optional inputs that are left out at the end are dropped: some of its kernels count them.
//!
//! Large constants are handed over beside the model, so that neither the message nor its parsed form holds a copy. Newer
//! libraries use them where they lie; older ones copy them.

use std::collections::HashSet;

use bytes::Bytes;
use onnxquant_proto::onnx::tensor_proto::DataLocation;
use onnxquant_proto::onnx::{GraphProto, ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use prost::Message;

use super::ffi::Constant;
use crate::engine::contract::Feed;
use crate::engine::cut::{Cut, cut};
use crate::error::CalibError;
use crate::graph::{drop_trailing_empty, reads, subgraphs_mut};
use crate::tensor::ElementType;

/// Smaller constants stay in the message: shapes and axes are read while the graph is built.
const INLINE_BYTES: usize = 256;

/// Elements of every type, and vectors of them, may begin at multiples of this.
const ALIGNMENT: usize = 64;

/// A model made ready.
pub(super) struct OrtGraph {
    /// The message, without its large constants.
    pub(super) bytes: Vec<u8>,
    pub(super) constants: Vec<Constant>,
    /// Names of the inputs to feed, in the order of the model's inputs.
    pub(super) inputs: Vec<String>,
}

/// Prepares `model` to compute `values` when samples give the values `feeds`.
pub(super) fn ort_graph(model: &ModelProto, values: &[String], feeds: &[Feed]) -> Result<OrtGraph, CalibError> {
    let Cut { model: mut proto, inputs } = cut(model, values, feeds)?;
    proto.graph.iter_mut().for_each(drop_empty);
    let (bytes, constants) = message(proto);
    Ok(OrtGraph { bytes, constants, inputs })
}

/// The message of a model without its large constants, and these. Those that nobody reads stay: the library drops them
/// first, and then misses them.
pub(super) fn message(mut model: ModelProto) -> (Vec<u8>, Vec<Constant>) {
    let Some(graph) = &mut model.graph else { return (model.encode_to_vec(), Vec::new()) };
    let outputs = graph.output.iter().map(ValueInfoProto::name);
    let read: HashSet<&str> = graph.node.iter().flat_map(reads).chain(outputs).collect();
    let tensors = graph.initializer.iter_mut().filter(|tensor| read.contains(tensor.name()));
    let constants = tensors.filter_map(take).collect();
    (model.encode_to_vec(), constants)
}

fn drop_empty(graph: &mut GraphProto) {
    for node in &mut graph.node {
        drop_trailing_empty(node);
        subgraphs_mut(node).for_each(drop_empty);
    }
}

/// Takes a large constant out of the message.
fn take(tensor: &mut TensorProto) -> Option<Constant> {
    let element_type = ElementType::from_onnx(tensor.data_type())?;
    let elements = tensor.dims.iter().try_fold(1, |n: usize, &dim| n.checked_mul(usize::try_from(dim).ok()?))?;
    let bytes = elements.checked_mul(element_type.bytes())?;
    let is_whole = |raw: &mut Bytes| raw.len() > INLINE_BYTES && raw.len() == bytes;
    let raw = tensor.raw_data.take_if(is_whole)?;
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
    tensor.data_location = Some(DataLocation::External.into());
    tensor.external_data = vec![
        entry("location", "constants".into()),
        entry("offset", "0".into()),
        entry("length", raw.len().to_string()),
    ];
    let name = tensor.name().to_owned();
    Some(Constant { name, element_type: tensor.data_type(), dims: tensor.dims.clone(), bytes: aligned(raw) })
}

/// The same bytes at an address at which elements may begin: those of a file are copied where they do not.
fn aligned(raw: Bytes) -> Bytes {
    if raw.as_ptr().align_offset(size_of::<u64>()) == 0 {
        return raw;
    }
    let mut copy: Vec<u8> = Vec::with_capacity(raw.len() + ALIGNMENT);
    let before = copy.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    copy.resize(before, 0);
    copy.extend_from_slice(&raw);
    Bytes::from(copy).slice(before..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    #[test]
    fn large_constants_stand_beside_the_message_at_even_addresses() {
        let raw = Bytes::from((0..=255).cycle().take(1025).collect::<Vec<u8>>()).slice(1..);
        let tensor = |name: &str, raw: Bytes| TensorProto {
            name: Some(name.into()),
            dims: vec![i64::try_from(raw.len() / 4).unwrap()],
            data_type: Some(1),
            raw_data: Some(raw),
            ..TensorProto::default()
        };
        let graph = GraphProto {
            node: vec![node("Add", &["x", "w"], "y"), node("Mul", &["y", "s"], "z")],
            initializer: vec![tensor("w", raw.clone()), tensor("s", raw.slice(..4))],
            input: vec![ValueInfoProto { name: Some("x".into()), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let made = ort_graph(&model, &["z".into()], &[Feed { name: "x".into(), element_type: None }]).unwrap();
        let [constant] = made.constants.as_slice() else { panic!("{:?}", made.constants) };
        assert_eq!((constant.name.as_str(), &constant.bytes), ("w", &raw));
        assert_eq!(constant.bytes.as_ptr().align_offset(8), 0);
        let message = ModelProto::decode(made.bytes.as_slice()).unwrap();
        let lengths = message.graph.unwrap().initializer.into_iter().map(|t| t.raw_data.map(|raw| raw.len()));
        assert_eq!(lengths.collect::<Vec<_>>(), [None, Some(4)]);
    }

    #[test]
    fn large_constants_that_nobody_reads_stay_in_the_message() {
        let tensor = |name: &str| TensorProto {
            name: Some(name.into()),
            dims: vec![256],
            data_type: Some(1),
            raw_data: Some(vec![0; 1024].into()),
            ..TensorProto::default()
        };
        let info = |name: &str| ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() };
        let graph = GraphProto {
            node: vec![node("Add", &["x", "read"], "y")],
            initializer: vec![tensor("unread"), tensor("read"), tensor("given")],
            output: vec![info("y"), info("given")],
            ..GraphProto::default()
        };
        let (_, constants) = message(ModelProto { graph: Some(graph), ..ModelProto::default() });
        let names: Vec<&str> = constants.iter().map(|constant| constant.name.as_str()).collect();
        assert_eq!(names, ["read", "given"]);
    }

    #[test]
    fn constants_whose_bytes_do_not_go_with_their_shape_stay_where_they_are() {
        let mut tensor = TensorProto {
            name: Some("w".into()),
            dims: vec![1000],
            data_type: Some(1),
            raw_data: Some(vec![0; 3000].into()),
            ..TensorProto::default()
        };
        assert!(take(&mut tensor).is_none() && tensor.raw_data.is_some());
        tensor.dims = vec![-1];
        assert!(take(&mut tensor).is_none() && tensor.raw_data.is_some());
    }
}
