//! ONNX protobuf messages: generated types, decoding, encoding.

mod fields;
mod schema;

/// The generated messages; names, numbers and types are those of the ONNX schema.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod onnx;

/// The newest IR version (`ModelProto.ir_version`) the schema describes.
pub const IR_VERSION: i64 = onnx::Version::IrVersion as i64;

/// The newest version of the default operator set that IR version was published with.
pub const MAX_OPSET: i64 = 28;
