//! ONNX protobuf messages: generated types, decoding, encoding.
//!
//! [`read_model`] maps a file into memory and decodes it; weights stay slices of the
//! mapping. Nothing that a file holds is lost between [`read_model`] and
//! [`encode_to_writer`]: a file with content that the schema does not know is refused.
//!
//! ```
//! use onnxquant_proto::{IR_VERSION, decode_model, encode_model, onnx};
//!
//! let model = onnx::ModelProto {
//!     ir_version: Some(IR_VERSION),
//!     graph: Some(onnx::GraphProto { name: Some("empty".into()), ..Default::default() }),
//!     ..Default::default()
//! };
//! let bytes = encode_model(&model)?;
//! assert_eq!(decode_model(bytes.into())?, model);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod appearance;
mod check;
mod data_type;
mod fields;
mod inline;
mod map_file;
/// The generated messages; names, numbers and types are those of the ONNX schema.
#[allow(missing_docs, clippy::all)]
pub mod onnx;
mod read;
mod schema;
mod subgraph;
mod wire;
mod write;

pub use bytes::Bytes;
pub use check::WireError;
pub use data_type::{DataType, data_type_bits, data_type_name, raw_data_bytes};
pub use inline::{InlineError, inline_functions};
pub use map_file::{give_back, map, map_file};
pub use prost::Message;
pub use read::{ReadError, ReadProblem, decode_model, read_model};
pub use subgraph::{all_nodes, bodies, captured_names, given_names, made_names, rename};
pub use wire::WireProblem;
pub use write::{MAX_MODEL_BYTES, WriteError, encode_model, encode_to_writer};

/// The newest IR version (`ModelProto.ir_version`) the schema describes.
pub const IR_VERSION: i64 = onnx::Version::IrVersion as i64;

/// The newest version of the default operator set that IR version was published with.
pub const MAX_OPSET: i64 = 28;
