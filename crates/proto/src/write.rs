//! Writes a model.

use std::io::{self, Write};

use crate::onnx::{GraphProto, ModelProto};
use prost::{EncodeError, Message, encode_length_delimiter};

/// What a model may have at most: other readers refuse files of 2 GiB and more.
pub const MAX_MODEL_BYTES: usize = i32::MAX as usize;

/// A model that could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The encoded model is too large for one protobuf file.
    #[error(
        "cannot encode the model: it takes {n_bytes} bytes, one file holds at most \
         {MAX_MODEL_BYTES}; store its weights as external data"
    )]
    TooLarge {
        /// Length of the encoded model.
        n_bytes: usize,
    },
    /// The writer failed.
    #[error("cannot write the model")]
    Io(#[from] io::Error),
}

/// Encodes a model, fields in the order of their numbers.
///
/// # Errors
/// A model over [`MAX_MODEL_BYTES`].
pub fn encode_model(model: &ModelProto) -> Result<Vec<u8>, WriteError> {
    check_length(model)?;
    Ok(model.encode_to_vec())
}

/// Encodes a model as [`encode_model`] does, node by node and tensor by tensor, so that
/// the whole of it is never in memory twice.
///
/// # Errors
/// A model over [`MAX_MODEL_BYTES`], of which nothing is written; a writer that fails.
pub fn encode_to_writer(model: &ModelProto, writer: &mut dyn Write) -> Result<(), WriteError> {
    check_length(model)?;
    let mut stream = Stream { writer, buffer: Vec::new() };
    let (head, tail) = split_model(model);
    stream.write(&head)?;
    if let Some(graph) = &model.graph {
        stream.start_field(key(7), graph.encoded_len())?;
        write_graph(&mut stream, graph)?;
    }
    stream.write(&tail)?;
    Ok(())
}

fn check_length(model: &ModelProto) -> Result<(), WriteError> {
    let n_bytes = model.encoded_len();
    if n_bytes > MAX_MODEL_BYTES {
        return Err(WriteError::TooLarge { n_bytes });
    }
    Ok(())
}

/// The key of a submessage: its field number (below 16) and wire type 2.
const fn key(number: u8) -> u8 {
    number << 3 | 2
}

fn write_graph(stream: &mut Stream<'_>, graph: &GraphProto) -> io::Result<()> {
    for node in &graph.node {
        stream.field(key(1), node)?;
    }
    stream.write(&GraphProto { name: graph.name.clone(), ..Default::default() })?;
    for tensor in &graph.initializer {
        stream.field(key(5), tensor)?;
    }
    stream.write(&graph_tail(graph))
}

/// The fields before the graph (numbers 1 to 6) and those after it.
///
/// Neither this nor [`graph_tail`] uses `..`, so that a new field cannot be forgotten.
fn split_model(model: &ModelProto) -> (ModelProto, ModelProto) {
    let ModelProto {
        ir_version,
        producer_name,
        producer_version,
        domain,
        model_version,
        doc_string,
        graph: _,
        opset_import,
        metadata_props,
        training_info,
        functions,
        configuration,
    } = model;
    let head = ModelProto {
        ir_version: *ir_version,
        producer_name: producer_name.clone(),
        producer_version: producer_version.clone(),
        domain: domain.clone(),
        model_version: *model_version,
        doc_string: doc_string.clone(),
        ..Default::default()
    };
    let tail = ModelProto {
        opset_import: opset_import.clone(),
        metadata_props: metadata_props.clone(),
        training_info: training_info.clone(),
        functions: functions.clone(),
        configuration: configuration.clone(),
        ..Default::default()
    };
    (head, tail)
}

/// The fields after the initializers (numbers 10 and up).
fn graph_tail(graph: &GraphProto) -> GraphProto {
    let GraphProto {
        node: _,
        name: _,
        initializer: _,
        sparse_initializer,
        doc_string,
        input,
        output,
        value_info,
        quantization_annotation,
        metadata_props,
    } = graph;
    GraphProto {
        sparse_initializer: sparse_initializer.clone(),
        doc_string: doc_string.clone(),
        input: input.clone(),
        output: output.clone(),
        value_info: value_info.clone(),
        quantization_annotation: quantization_annotation.clone(),
        metadata_props: metadata_props.clone(),
        ..Default::default()
    }
}

/// Writes messages one after another through one buffer.
struct Stream<'a> {
    writer: &'a mut dyn Write,
    buffer: Vec<u8>,
}

impl Stream<'_> {
    /// The fields of a message, without key and length.
    fn write(&mut self, message: &impl Message) -> io::Result<()> {
        self.append(|buffer| message.encode(buffer))
    }

    /// A message as a field of the one being written.
    fn field(&mut self, key: u8, message: &impl Message) -> io::Result<()> {
        self.append(|buffer| {
            buffer.push(key);
            message.encode_length_delimited(buffer)
        })
    }

    /// Only key and length of a submessage.
    fn start_field(&mut self, key: u8, n_bytes: usize) -> io::Result<()> {
        self.append(|buffer| {
            buffer.push(key);
            encode_length_delimiter(n_bytes, buffer)
        })
    }

    fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> io::Result<()> {
        self.buffer.clear();
        encode(&mut self.buffer).map_err(io::Error::other)?;
        self.writer.write_all(&self.buffer)
    }
}
