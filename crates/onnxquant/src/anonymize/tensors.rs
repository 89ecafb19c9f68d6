//! Zeros in place of weights.

use onnxquant_ir::onnx::tensor_proto::DataLocation;
use onnxquant_ir::onnx::{SparseTensorProto, StringStringEntryProto, TensorProto};
use onnxquant_proto::{Bytes, DataType, raw_data_bytes};

use super::names::Names;

/// Lists of floats up to this length are settings (scales, pads), longer ones weights (trees).
pub(super) const MOST_FLOATS: usize = 8;

/// Integer constants up to this length are shapes, axes and the like.
const MOST_INTEGERS: u64 = 64;

/// Up to so many bytes are in the model's own file.
const MOST_INLINE: u64 = 1024;

/// Tensors of zeros, the large ones in one external file.
pub(super) struct Zeros {
    file: String,
    bytes: u64,
}

impl Zeros {
    /// With an external file of this name.
    pub(super) fn new(file: String) -> Self {
        Self { file, bytes: 0 }
    }

    /// How long the external file must be: as the largest tensor.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A tensor of the type and shape of another; values are kept where they say what a model looks like.
    pub(super) fn tensor(&mut self, from: &TensorProto, names: &mut Names) -> TensorProto {
        let mut made = TensorProto {
            name: from.name.as_deref().map(|name| names.value(name)),
            dims: from.dims.clone(),
            data_type: from.data_type,
            ..TensorProto::default()
        };
        let elements = from.dims.iter().try_fold(1_u64, |n, &dim| n.checked_mul(u64::try_from(dim).ok()?));
        let (data_type, elements) = (DataType::try_from(from.data_type()), elements.unwrap_or(0));
        match data_type {
            Ok(DataType::Int64) if elements <= MOST_INTEGERS && from.external_data.is_empty() => {
                made.int64_data.clone_from(&from.int64_data);
                made.raw_data.clone_from(&from.raw_data);
            }
            Ok(DataType::Bool) if elements == 1 && from.external_data.is_empty() => {
                made.int32_data.clone_from(&from.int32_data);
                made.raw_data.clone_from(&from.raw_data);
            }
            Ok(DataType::String) => made.string_data = vec![Vec::new(); from.string_data.len()],
            Ok(data_type) => self.fill(&mut made, raw_data_bytes(data_type, elements).unwrap_or(0)),
            Err(_) => {}
        }
        made
    }

    fn fill(&mut self, tensor: &mut TensorProto, bytes: u64) {
        if bytes <= MOST_INLINE {
            tensor.raw_data = Some(Bytes::from(vec![0; usize::try_from(bytes).unwrap_or(0)]));
            return;
        }
        self.bytes = self.bytes.max(bytes);
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        tensor.data_location = Some(DataLocation::External as i32);
        tensor.external_data = vec![
            entry("location", self.file.clone()),
            entry("offset", "0".to_owned()),
            entry("length", bytes.to_string()),
        ];
    }

    /// A sparse tensor of as many values, the first ones.
    pub(super) fn sparse(&mut self, from: &SparseTensorProto, names: &mut Names) -> SparseTensorProto {
        let indices = from.indices.as_ref().map(|found| {
            // Not more than the file holds, whatever it declares.
            let held = found.int64_data.len().max(found.raw_data().len() / 8);
            let count = found.dims.first().copied().unwrap_or(0).min(i64::try_from(held).unwrap_or(i64::MAX));
            let (axes, is_flat) = (from.dims.as_slice(), found.dims.len() < 2);
            let places = (0..count).flat_map(|at| if is_flat { vec![at] } else { coordinates(at, axes) });
            TensorProto {
                name: found.name.as_deref().map(|name| names.value(name)),
                dims: found.dims.clone(),
                data_type: found.data_type,
                int64_data: places.collect(),
                ..TensorProto::default()
            }
        });
        let values = from.values.as_ref().map(|values| self.tensor(values, names));
        SparseTensorProto { values, indices, dims: from.dims.clone() }
    }
}

/// Where the element at a place in row-major order is.
fn coordinates(mut at: i64, axes: &[i64]) -> Vec<i64> {
    let mut found: Vec<i64> = axes
        .iter()
        .rev()
        .map(|&length| {
            let length = length.max(1);
            let here = at % length;
            at /= length;
            here
        })
        .collect();
    found.reverse();
    found
}
