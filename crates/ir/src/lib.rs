//! An ONNX model as a checked, editable graph.
//!
//! [`Model::read`] maps a file, attaches external data, imports and verifies; passes edit the [`Graph`]
//! through methods that keep it consistent; [`write_model`] writes it atomically. Topology lives in
//! arenas, payload stays protobuf: attributes, doc strings, metadata and untouched tensors are written back as
//! they were read.
//!
//! The crate knows no quantization mathematics and no inference engine.

#![forbid(unsafe_code)]

pub mod atomic;
mod attribute;
mod body;
mod domain;
mod dump;
mod edit;
mod error;
mod external;
mod graph;
mod ids;
mod import;
mod model;
mod sort;
mod subgraph;
pub mod tensor;
#[cfg(test)]
mod testing;
mod verify;
mod violation;
mod write;

pub use atomic::{PendingFile, ScratchFolder, scratch_file, sweep};
pub use attribute::{float_attribute, int_attribute, ints_attribute, text_attribute};
pub use body::BodyId;
pub use dump::dump;
pub use edit::NewNode;
pub use error::{GraphError, ReadModelError, WriteModelError};
pub use graph::{Graph, Node, Origin, Port, Use, Value};
pub use ids::{NodeId, ValueId};
pub use model::{IR_WITH_PLAIN_INITIALIZERS, Model};
pub use onnxquant_proto::onnx;
pub use tensor::TensorError;
pub use verify::verify;
pub use violation::Violation;
pub use write::{
    ExternalData, UnnamedModel, external_files_of, external_locations, external_path, write_model, write_unnamed,
};
