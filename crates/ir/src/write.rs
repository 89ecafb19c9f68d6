//! Reading a model from a file and writing it, whole or not at all.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use onnxquant_proto::onnx::tensor_proto::{DataLocation, DataType};
use onnxquant_proto::onnx::{ModelProto, StringStringEntryProto, TensorProto};
use onnxquant_proto::{Message as _, WriteError, give_back};

use crate::atomic::{PendingFile, folder_of};
use crate::error::{ReadModelError, WriteModelError};
use crate::external;
use crate::model::Model;
use crate::tensor;
use crate::verify::verify;

/// Whether weights go into a file beside the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExternalData {
    /// As the model was read; always when one file would be too large for protobuf (2 GiB).
    #[default]
    Auto,
    /// Always.
    Always,
}

/// Tensors below this stay in the model file, so that shape inference needs no other file.
const SMALLEST_EXTERNAL_BYTES: usize = 1024;
/// Large tensors start at a memory page, so that readers can map them.
const PAGE_BYTES: u64 = 4096;
const BUFFER_BYTES: usize = 1 << 20;
/// A margin below protobuf's limit of 2^31 - 1 bytes a message.
const LARGEST_MODEL_BYTES: usize = (1 << 31) - (1 << 24);

impl Model {
    /// Maps the file, attaches external data, imports and verifies.
    ///
    /// The files stay mapped while the model or one of its tensors lives; they must not be changed meanwhile.
    pub fn read(path: &Path) -> Result<Self, ReadModelError> {
        let mut proto = onnxquant_proto::read_model(path)?;
        let files = external::attach(&mut proto, folder_of(path))?;
        let mut model = Self::from_proto(proto).map_err(ReadModelError::Invalid)?;
        model.external_files = files;
        Ok(model)
    }
}

/// The files beside the model at `path` that hold some of its tensors; the model is not verified.
pub fn external_files_of(path: &Path) -> Result<Vec<PathBuf>, ReadModelError> {
    external::attach(&mut onnxquant_proto::read_model(path)?, folder_of(path))
}

/// The files beside the model at `path` in which it says that tensors lie, there or not: paths from its folder on.
///
/// # Errors
/// The model cannot be read, or names a place outside its folder.
pub fn external_locations(path: &Path) -> Result<BTreeSet<String>, ReadModelError> {
    external::locations(&mut onnxquant_proto::read_model(path)?)
}

/// The file for the weights of a model that is written to `path`.
pub fn external_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".data");
    name.into()
}

/// A model that is in a file, complete and compared, which has no name yet.
#[derive(Debug)]
pub struct UnnamedModel {
    model: PendingFile,
    /// The file beside it that holds its weights.
    weights: Option<PendingFile>,
}

impl UnnamedModel {
    /// The open file of the model.
    pub fn model(&mut self) -> &mut File {
        self.model.file()
    }

    /// The open file beside it that holds its weights, where there is one; it will be called [`external_path`].
    pub fn weights(&mut self) -> Option<&mut File> {
        self.weights.as_mut().map(PendingFile::file)
    }

    /// Gives the files their names, the model's last. Where that fails the other one goes, unless it replaced a file.
    pub fn name(self) -> Result<(), WriteModelError> {
        let io_error = |path: PathBuf| |source| WriteModelError::Io { path, source };
        let path = self.model.target().to_owned();
        let mut made = None;
        if let Some(weights) = self.weights {
            let path = weights.target().to_owned();
            let is_new = !path.exists();
            weights.commit().map_err(io_error(path.clone()))?;
            made = is_new.then_some(path);
        }
        let named = self.model.commit().map_err(io_error(path));
        named.inspect_err(|_| made.iter().for_each(|path| drop(std::fs::remove_file(path))))
    }
}

/// Writes `model` to `path`; returns the number of bytes written, external data included.
///
/// The model is verified, encoded, decoded again from the file and compared before the file gets its name.
pub fn write_model(model: &Model, path: &Path, external: ExternalData) -> Result<u64, WriteModelError> {
    let io_error = |source| WriteModelError::Io { path: path.to_owned(), source };
    let mut unnamed = write_unnamed(model, path, external)?;
    let beside = unnamed.weights().map_or(Ok(0), |file| length(file));
    let written = length(unnamed.model()).and_then(|bytes| Ok(bytes + beside?)).map_err(io_error)?;
    unnamed.name()?;
    Ok(written)
}

/// The same, but the files get their names later.
pub fn write_unnamed(model: &Model, path: &Path, external: ExternalData) -> Result<UnnamedModel, WriteModelError> {
    let violations = verify(model);
    if !violations.is_empty() {
        return Err(WriteModelError::Check(ReadModelError::Invalid(violations).to_string()));
    }
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| WriteModelError::Io { path, source }
    };
    let mut proto = model.to_proto();
    let split = external == ExternalData::Always
        || !model.external_files.is_empty()
        || proto.encoded_len() > LARGEST_MODEL_BYTES;
    let data_path = external_path(path);
    let mut pending = PendingFile::create(path).map_err(io_error(path))?;
    let weights = if split { move_out(&mut proto, &data_path).map_err(io_error(&data_path))? } else { None };

    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, pending.file());
    onnxquant_proto::encode_to_writer(&proto, &mut writer).map_err(|error| match error {
        WriteError::Io(source) => WriteModelError::Io { path: path.to_owned(), source },
        error => error.into(),
    })?;
    writer.flush().map_err(io_error(path))?;
    drop(writer);
    check_written(pending.file(), &proto)?;
    Ok(UnnamedModel { model: pending, weights })
}

fn length(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

/// Moves the payload of large initializers into a pending file; `None` where there are none.
fn move_out(proto: &mut ModelProto, path: &Path) -> io::Result<Option<PendingFile>> {
    let location = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let unnameable = || io::Error::new(io::ErrorKind::InvalidInput, "the model can refer to UTF-8 file names only");
    let location = location.ok_or_else(unnameable)?;
    let mut pending = PendingFile::create(path)?;
    let mut moved = Vec::new();
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, pending.file());
    let mut offset = 0u64;
    for tensor in proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        let Some(payload) = large_payload(tensor) else { continue };
        let start = if payload.len() as u64 >= PAGE_BYTES { offset.next_multiple_of(PAGE_BYTES) } else { offset };
        io::copy(&mut io::Read::take(io::repeat(0), start - offset), &mut writer)?;
        writer.write_all(&payload)?;
        offset = start + payload.len() as u64;
        point_to(tensor, &location, start, payload.len());
        moved.push((start, payload));
    }
    writer.flush()?;
    drop(writer);
    if moved.is_empty() {
        return Ok(None);
    }
    let written = onnxquant_proto::map(pending.file())?;
    let same = |(start, payload): &(u64, Bytes)| {
        let found = written.get(*start as usize..*start as usize + payload.len());
        let is_same = found == Some(payload);
        found.into_iter().chain([&payload[..]]).for_each(give_back);
        is_same
    };
    if !moved.iter().all(same) {
        return Err(io::Error::other("external data read back differ from what was written"));
    }
    Ok(Some(pending))
}

fn large_payload(tensor: &TensorProto) -> Option<Bytes> {
    let fixed_width = tensor::data_type(tensor).is_ok_and(|dtype| dtype != DataType::String);
    let payload = tensor::to_raw(tensor).ok().filter(|_| fixed_width)?;
    (payload.len() >= SMALLEST_EXTERNAL_BYTES).then_some(payload)
}

fn point_to(tensor: &mut TensorProto, location: &str, offset: u64, length: usize) {
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    *tensor = TensorProto {
        name: tensor.name.take(),
        dims: std::mem::take(&mut tensor.dims),
        data_type: tensor.data_type,
        doc_string: tensor.doc_string.take(),
        metadata_props: std::mem::take(&mut tensor.metadata_props),
        data_location: Some(DataLocation::External as i32),
        external_data: vec![
            entry("location", location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ],
        ..TensorProto::default()
    };
}

/// Decodes what is on disk and compares it with what was to be written.
fn check_written(file: &mut File, expected: &ModelProto) -> Result<(), WriteModelError> {
    let check = |error: &dyn std::fmt::Display| WriteModelError::Check(error.to_string());
    file.seek(SeekFrom::Start(0)).map_err(|error| check(&error))?;
    let bytes = onnxquant_proto::map(file).map_err(|error| check(&error))?;
    let decoded = onnxquant_proto::decode_model(bytes).map_err(|error| check(&error))?;
    // NaN in a typed field differs from itself: then the bytes decide.
    if decoded != *expected && decoded.encode_to_vec() != expected.encode_to_vec() {
        return Err(WriteModelError::Check("the decoded model differs from the encoded one".to_owned()));
    }
    Ok(())
}
