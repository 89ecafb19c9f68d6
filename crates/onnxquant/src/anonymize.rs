//! A model without its weights and names: what a report of a defect may hold.
//!
//! Every message is made anew and only what is listed here is taken over, so that nothing comes along unseen:
//!
//! | kept | changed | left out |
//! |---|---|---|
//! | operators and domains that ONNX and ONNX Runtime publish, opsets, types, lengths of axes | names, by which values are told apart: `v1`, `v2`, ...; domains, operators, attributes and functions of others likewise | texts that describe, metadata, producer, training, devices |
//! | attributes: numbers, lists of integers, texts of published operators; lists of up to 8 floats | longer lists of floats and all tensors: zeros; texts of operators of others, and lists of texts: `s1`, ... | |
//! | `int64` constants of up to 64 elements (shapes, axes), one truth value | all other weights: zeros | |
//!
//! Weights of more than a kilobyte lie in one external file of zeros, all of them at its beginning; it takes no room on
//! the disk where files can have holes.

mod names;
mod tensors;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use onnxquant_ir::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
};
use onnxquant_ir::{PendingFile, external_files_of, external_path};
use onnxquant_proto::{encode_to_writer, read_model};

use crate::error::Error;
use crate::files::Files;
use names::{Names, is_published};
use tensors::{MOST_FLOATS, Zeros};

/// What was made.
#[derive(Debug)]
pub struct Anonymized {
    /// Nodes, those of bodies and functions included.
    pub nodes: usize,
    /// The file of zeros and how long it is, where there is one.
    pub zeros: Option<(PathBuf, u64)>,
}

/// Reads the model in `input` and writes it without weights and names into `output`.
///
/// # Errors
/// The input is no model, or the output cannot be written or is the input.
pub fn anonymize(input: &Path, output: &Path) -> Result<Anonymized, Error> {
    let failed = |problem: String| Error::Output { path: output.to_owned(), problem };
    let data = external_path(output);
    let files = Files::default().reads("the input model", input).writes("the output model", output);
    let files = files.writes("the file for the weights of the output model", &data);
    let weights = external_files_of(input).unwrap_or_default();
    weights.iter().fold(files, |files, path| files.reads("a file with weights of the input model", path)).check()?;
    let model = read_model(input)?;
    let name = data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut work =
        Work { names: Names::default(), zeros: Zeros::new(name), functions: own_functions(&model), nodes: 0 };
    let model = work.model(&model);
    let bytes = work.zeros.bytes();
    let write = || -> io::Result<()> {
        if bytes > 0 {
            let mut file = PendingFile::create(&data)?;
            file.file().set_len(bytes)?;
            file.commit()?;
        }
        let mut file = PendingFile::create(output)?;
        encode_to_writer(&model, file.file()).map_err(io::Error::other)?;
        file.commit()
    };
    write().map_err(|error| failed(error.to_string()))?;
    Ok(Anonymized { nodes: work.nodes, zeros: (bytes > 0).then_some((data, bytes)) })
}

/// Domain and name of the functions that the model brings along.
fn own_functions(model: &ModelProto) -> HashSet<(String, String)> {
    model.functions.iter().map(|function| (function.domain().to_owned(), function.name().to_owned())).collect()
}

/// One model's way from message to message.
struct Work {
    names: Names,
    zeros: Zeros,
    functions: HashSet<(String, String)>,
    nodes: usize,
}

impl Work {
    fn model(&mut self, model: &ModelProto) -> ModelProto {
        ModelProto {
            ir_version: model.ir_version,
            opset_import: self.opsets(&model.opset_import),
            graph: model.graph.as_ref().map(|graph| self.graph(graph)),
            functions: model.functions.iter().map(|function| self.function(function)).collect(),
            ..ModelProto::default()
        }
    }

    fn opsets(&mut self, opsets: &[OperatorSetIdProto]) -> Vec<OperatorSetIdProto> {
        let of_set = |set: &OperatorSetIdProto| OperatorSetIdProto {
            domain: set.domain.as_deref().map(|domain| self.names.domain(domain)),
            version: set.version,
        };
        opsets.iter().map(of_set).collect()
    }

    fn graph(&mut self, graph: &GraphProto) -> GraphProto {
        GraphProto {
            name: graph.name.as_deref().map(|name| self.names.other("g", name)),
            node: graph.node.iter().map(|node| self.node(node)).collect(),
            initializer: graph.initializer.iter().map(|tensor| self.zeros.tensor(tensor, &mut self.names)).collect(),
            sparse_initializer: graph
                .sparse_initializer
                .iter()
                .map(|sparse| self.zeros.sparse(sparse, &mut self.names))
                .collect(),
            input: self.values(&graph.input),
            output: self.values(&graph.output),
            value_info: self.values(&graph.value_info),
            ..GraphProto::default()
        }
    }

    fn values(&mut self, values: &[ValueInfoProto]) -> Vec<ValueInfoProto> {
        let of_value = |value: &ValueInfoProto| ValueInfoProto {
            name: value.name.as_deref().map(|name| self.names.value(name)),
            r#type: value.r#type.as_ref().map(|found| self.names.type_of(found)),
            ..ValueInfoProto::default()
        };
        values.iter().map(of_value).collect()
    }

    fn function(&mut self, function: &FunctionProto) -> FunctionProto {
        FunctionProto {
            name: function.name.as_deref().map(|name| self.names.operator(function.domain(), name)),
            domain: function.domain.as_deref().map(|domain| self.names.domain(domain)),
            overload: function.overload.as_deref().map(|name| self.names.other("o", name)),
            input: function.input.iter().map(|name| self.names.value(name)).collect(),
            output: function.output.iter().map(|name| self.names.value(name)).collect(),
            attribute: function.attribute.iter().map(|name| self.names.other("a", name)).collect(),
            attribute_proto: function.attribute_proto.iter().map(|given| self.attribute(given, false)).collect(),
            node: function.node.iter().map(|node| self.node(node)).collect(),
            opset_import: self.opsets(&function.opset_import),
            value_info: self.values(&function.value_info),
            ..FunctionProto::default()
        }
    }

    fn node(&mut self, node: &NodeProto) -> NodeProto {
        self.nodes += 1;
        let is_own = self.functions.contains(&(node.domain().to_owned(), node.op_type().to_owned()));
        let is_published = is_published(node.domain()) && !is_own;
        NodeProto {
            input: node.input.iter().map(|name| self.names.value(name)).collect(),
            output: node.output.iter().map(|name| self.names.value(name)).collect(),
            name: node.name.as_deref().map(|name| self.names.other("n", name)),
            op_type: node.op_type.as_deref().map(|name| match is_published {
                true => name.to_owned(),
                false => self.names.operator(node.domain(), name),
            }),
            domain: node.domain.as_deref().map(|domain| self.names.domain(domain)),
            overload: node.overload.as_deref().map(|name| self.names.other("o", name)),
            attribute: node.attribute.iter().map(|attribute| self.attribute(attribute, is_published)).collect(),
            ..NodeProto::default()
        }
    }

    fn attribute(&mut self, from: &AttributeProto, is_published: bool) -> AttributeProto {
        let text = |names: &mut Names, bytes: &[u8]| match is_published && std::str::from_utf8(bytes).is_ok() {
            true => bytes.to_vec(),
            false => names.other("s", &String::from_utf8_lossy(bytes)).into_bytes(),
        };
        let hidden =
            |names: &mut Names, bytes: &Vec<u8>| names.other("s", &String::from_utf8_lossy(bytes)).into_bytes();
        let floats = if from.floats.len() > MOST_FLOATS { vec![0.0; from.floats.len()] } else { from.floats.clone() };
        AttributeProto {
            name: from.name.as_deref().map(|name| match is_published {
                true => name.to_owned(),
                false => self.names.other("a", name),
            }),
            ref_attr_name: from.ref_attr_name.as_deref().map(|name| self.names.other("a", name)),
            r#type: from.r#type,
            f: from.f,
            i: from.i,
            s: from.s.as_deref().map(|bytes| text(&mut self.names, bytes)),
            t: from.t.as_deref().map(|tensor| Box::new(self.zeros.tensor(tensor, &mut self.names))),
            g: from.g.as_deref().map(|graph| Box::new(self.graph(graph))),
            sparse_tensor: from
                .sparse_tensor
                .as_deref()
                .map(|found| Box::new(self.zeros.sparse(found, &mut self.names))),
            tp: from.tp.as_deref().map(|found| Box::new(self.names.type_of(found))),
            floats,
            ints: from.ints.clone(),
            strings: from.strings.iter().map(|bytes| hidden(&mut self.names, bytes)).collect(),
            tensors: from.tensors.iter().map(|tensor| self.zeros.tensor(tensor, &mut self.names)).collect(),
            graphs: from.graphs.iter().map(|graph| self.graph(graph)).collect(),
            sparse_tensors: from.sparse_tensors.iter().map(|found| self.zeros.sparse(found, &mut self.names)).collect(),
            type_protos: from.type_protos.iter().map(|found| self.names.type_of(found)).collect(),
            doc_string: None,
        }
    }
}

#[cfg(test)]
#[path = "anonymize_tests.rs"]
mod tests;
