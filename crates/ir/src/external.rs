//! External data: tensors whose bytes lie in files beside the model.
//!
//! The files are memory-mapped and the tensors made slices of the mapping, so nothing is copied. A location
//! must lead to a file inside the model's own folder: absolute paths, `..` and symbolic links out of the
//! folder are refused, as ONNX Runtime does. Source: ONNX specification, *External Data*.

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use onnxquant_proto::onnx::tensor_proto::DataLocation;
use onnxquant_proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, StringStringEntryProto, TensorProto,
};

use crate::error::ReadModelError;
use crate::tensor;

/// Attaches the external data of every tensor in `model`; returns the files that were mapped.
pub(crate) fn attach(model: &mut ModelProto, folder: &Path) -> Result<Vec<PathBuf>, ReadModelError> {
    let mut files = Files { folder, mapped: HashMap::new() };
    let mut failure = Ok(());
    each_tensor(model, &mut |tensor| {
        if failure.is_ok() && is_external(tensor) {
            failure = files.attach(tensor);
        }
    });
    failure?;
    let mut paths = files.mapped.into_keys().collect::<Vec<_>>();
    paths.sort();
    Ok(paths)
}

/// The files beside a model in which tensors lie, as the model names them: paths from its folder on, which stay in it.
pub(crate) fn locations(model: &mut ModelProto) -> Result<BTreeSet<String>, ReadModelError> {
    let mut found = Ok(BTreeSet::new());
    each_tensor(model, &mut |tensor| {
        if let Ok(names) = found.as_mut()
            && is_external(tensor)
        {
            let location = location(tensor).to_owned();
            match plain(&location) {
                Ok(()) => drop(names.insert(location)),
                Err(problem) => {
                    let tensor = tensor.name().to_owned();
                    found = Err(ReadModelError::External { tensor, location, problem });
                }
            }
        }
    });
    found
}

/// Whether the tensor's bytes lie in another file.
fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location() == DataLocation::External
}

/// The file in which an external tensor lies.
fn location(tensor: &TensorProto) -> &str {
    let entry = tensor.external_data.iter().find(|entry| entry.key() == "location");
    entry.map_or("", StringStringEntryProto::value)
}

struct Files<'a> {
    folder: &'a Path,
    mapped: HashMap<PathBuf, Bytes>,
}

impl Files<'_> {
    fn attach(&mut self, tensor: &mut TensorProto) -> Result<(), ReadModelError> {
        let location = location(tensor).to_owned();
        let bytes = self.slice(tensor, &location).map_err(|problem| ReadModelError::External {
            tensor: tensor.name().to_owned(),
            location,
            problem,
        })?;
        tensor.raw_data = Some(bytes);
        tensor.data_location = None;
        tensor.external_data.clear();
        Ok(())
    }

    fn slice(&mut self, tensor: &TensorProto, location: &str) -> Result<Bytes, String> {
        let number = |key: &str| match tensor.external_data.iter().find(|entry| entry.key() == key) {
            Some(entry) => {
                let text = entry.value();
                text.parse::<usize>().map(Some).map_err(|_| format!("{key} is `{text}`, expected a number >= 0"))
            }
            None => Ok(None),
        };
        let needed = needed_bytes(tensor)?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(needed));
        if length != needed {
            return Err(format!("length is {length}, but shape {:?} needs {needed} bytes", tensor.dims));
        }
        let file = self.map(location)?;
        let end = offset.checked_add(length).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| {
            format!("bytes {offset} to {offset} + {length} are wanted, but the file has {} bytes", file.len())
        })?;
        Ok(file.slice(offset..end))
    }

    fn map(&mut self, location: &str) -> Result<Bytes, String> {
        let path = confine(self.folder, location)?;
        if let Some(bytes) = self.mapped.get(&path) {
            return Ok(bytes.clone());
        }
        let bytes = onnxquant_proto::map_file(&path).map_err(|error| error.to_string())?;
        self.mapped.insert(path, bytes.clone());
        Ok(bytes)
    }
}

fn needed_bytes(tensor: &TensorProto) -> Result<usize, String> {
    let dtype = tensor::data_type(tensor).map_err(|error| error.problem)?;
    let count = tensor::element_count(tensor).map_err(|error| error.problem)?;
    let bits = onnxquant_proto::data_type_bits(dtype).ok_or("strings cannot be external")?;
    tensor::packed_len(count, bits).ok_or_else(|| format!("shape {:?} overflows", tensor.dims))
}

/// Refuses a location that is no plain path from a folder on.
fn plain(location: &str) -> Result<(), String> {
    if location.is_empty() {
        return Err("no location is given".to_owned());
    }
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    match Path::new(location).components().all(is_plain) {
        true => Ok(()),
        false => Err("the location must be a plain path inside the model's folder".to_owned()),
    }
}

/// The real path of `location`, proven to lie inside `folder`.
fn confine(folder: &Path, location: &str) -> Result<PathBuf, String> {
    plain(location)?;
    let relative = Path::new(location);
    let folder = folder.canonicalize().map_err(|error| error.to_string())?;
    let path = folder.join(relative).canonicalize().map_err(|error| error.to_string())?;
    if !path.starts_with(&folder) {
        return Err("the location leads out of the model's folder".to_owned());
    }
    if !path.is_file() {
        return Err("the location is not a file".to_owned());
    }
    Ok(path)
}

/// Calls `visit` for every dense tensor of the message, wherever it is nested.
fn each_tensor(model: &mut ModelProto, visit: &mut impl FnMut(&mut TensorProto)) {
    model.graph.iter_mut().for_each(|graph| in_graph(graph, visit));
    for training in &mut model.training_info {
        training.initialization.iter_mut().chain(&mut training.algorithm).for_each(|graph| in_graph(graph, visit));
    }
    for function in &mut model.functions {
        function.node.iter_mut().for_each(|node| in_node(node, visit));
        function.attribute_proto.iter_mut().for_each(|attribute| in_attribute(attribute, visit));
    }
}

fn in_graph(graph: &mut GraphProto, visit: &mut impl FnMut(&mut TensorProto)) {
    graph.initializer.iter_mut().for_each(&mut *visit);
    graph.sparse_initializer.iter_mut().for_each(|sparse| in_sparse(sparse, visit));
    graph.node.iter_mut().for_each(|node| in_node(node, visit));
}

fn in_node(node: &mut NodeProto, visit: &mut impl FnMut(&mut TensorProto)) {
    node.attribute.iter_mut().for_each(|attribute| in_attribute(attribute, visit));
}

fn in_attribute(attribute: &mut AttributeProto, visit: &mut impl FnMut(&mut TensorProto)) {
    attribute.t.as_deref_mut().into_iter().chain(&mut attribute.tensors).for_each(&mut *visit);
    let sparse = attribute.sparse_tensor.as_deref_mut().into_iter().chain(&mut attribute.sparse_tensors);
    sparse.for_each(|sparse| in_sparse(sparse, visit));
    attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs).for_each(|graph| in_graph(graph, visit));
}

fn in_sparse(sparse: &mut SparseTensorProto, visit: &mut impl FnMut(&mut TensorProto)) {
    sparse.values.iter_mut().chain(&mut sparse.indices).for_each(&mut *visit);
}
