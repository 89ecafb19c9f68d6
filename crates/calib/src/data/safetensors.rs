//! Reads `.safetensors` files: the length of a header, the header in JSON, and the arrays one after the other.
//!
//! Nothing is taken from the header that the file does not hold. bfloat16 becomes float32, which holds every value of it.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use half::bf16;
use ndarray::{ArrayD, IxDyn};
use serde::Deserialize;

use super::npy::decode;
use super::npz::NamedTensors;
use crate::error::FormatError;
use crate::tensor::{ElementType, Tensor};

/// Longer headers are refused; that of a model of thousands of arrays is far shorter.
const MOST_HEADER_BYTES: u64 = 16 << 20;
/// Bytes of the header's length.
const LENGTH_BYTES: u64 = 8;
/// A key that names no array.
const METADATA: &str = "__metadata__";

/// What the header says of an array.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    /// That of the tensor that is read.
    pub(crate) element: ElementType,
    pub(crate) shape: Vec<usize>,
    is_bf16: bool,
    /// From the start of the file.
    start: u64,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// The arrays of a file of `length` bytes, by name.
pub(crate) fn read_header(reader: &mut impl Read, length: u64) -> Result<Vec<Stored>, FormatError> {
    let mut first = [0; 8];
    reader.read_exact(&mut first)?;
    let header_bytes = u64::from_le_bytes(first);
    if header_bytes > length.saturating_sub(LENGTH_BYTES) || header_bytes > MOST_HEADER_BYTES {
        let found = format!("its header claims {header_bytes} bytes, and the file has {length}");
        return Err(FormatError::Safetensors(found));
    }
    let mut header = Vec::new();
    reader.take(header_bytes).read_to_end(&mut header)?;
    let entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).map_err(FormatError::Json)?;
    let data = LENGTH_BYTES + header_bytes;
    let arrays = entries.into_iter().filter(|(name, _)| name != METADATA);
    arrays.map(|(name, value)| Stored::new(name, value, data, length)).collect()
}

impl Stored {
    /// One that lies in a file of `length` bytes behind `data`.
    fn new(name: String, value: serde_json::Value, data: u64, length: u64) -> Result<Self, FormatError> {
        let Entry { dtype, shape, data_offsets: [start, end] } =
            serde_json::from_value(value).map_err(FormatError::Json)?;
        let is_bf16 = dtype == "BF16";
        let element = element(&dtype).ok_or(FormatError::ElementType(dtype))?;
        let width = if is_bf16 { 2 } else { element.bytes() };
        let count = shape.iter().try_fold(width, |bytes, &dim| bytes.checked_mul(dim)).map(|bytes| bytes as u64);
        let lies_within = end.checked_add(data).is_some_and(|end| end <= length);
        match end.checked_sub(start) {
            Some(bytes) if lies_within && Some(bytes) == count => {
                Ok(Self { name, element, shape, is_bf16, start: data + start, bytes })
            }
            _ => Err(FormatError::Safetensors(format!(
                "array `{name}` of shape {shape:?} lies at {start}..{end} of {} bytes",
                length.saturating_sub(data)
            ))),
        }
    }

    fn read(&self, reader: &mut (impl Read + Seek)) -> Result<Tensor, FormatError> {
        reader.seek(SeekFrom::Start(self.start))?;
        let mut raw = Vec::new();
        reader.take(self.bytes).read_to_end(&mut raw)?;
        let tensor = match self.is_bf16 {
            true => widened(&raw, &self.shape),
            false => decode(&raw, self.element, &self.shape, false, false),
        };
        tensor.ok_or_else(|| FormatError::Safetensors(format!("array `{}` is not whole", self.name)))
    }
}

fn widened(raw: &[u8], shape: &[usize]) -> Option<Tensor> {
    let pairs = raw.chunks_exact(2).filter_map(|pair| pair.try_into().ok());
    let values = pairs.map(|pair| bf16::from_le_bytes(pair).to_f32()).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values).ok().map(Tensor::F32)
}

/// The arrays whose names `wanted` accepts, together at most `limit` bytes.
pub(crate) fn read_arrays(
    reader: &mut (impl Read + Seek),
    length: u64,
    limit: u64,
    wanted: impl Fn(&str) -> bool,
) -> Result<NamedTensors, FormatError> {
    let stored = read_header(reader, length)?;
    let mut left = limit;
    let mut arrays = Vec::new();
    for array in stored.into_iter().filter(|array| wanted(&array.name)) {
        left = left.checked_sub(array.bytes).ok_or(FormatError::TooLarge { needed: array.bytes, limit: left })?;
        let tensor = array.read(reader)?;
        arrays.push((array.name, tensor));
    }
    Ok(arrays)
}

/// The type of the tensor that is read.
fn element(dtype: &str) -> Option<ElementType> {
    Some(match dtype {
        "F32" | "BF16" => ElementType::F32,
        "F64" => ElementType::F64,
        "F16" => ElementType::F16,
        "I64" => ElementType::I64,
        "I32" => ElementType::I32,
        "I16" => ElementType::I16,
        "I8" => ElementType::I8,
        "U64" => ElementType::U64,
        "U32" => ElementType::U32,
        "U16" => ElementType::U16,
        "U8" => ElementType::U8,
        "BOOL" => ElementType::Bool,
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use super::*;

    /// A file with this header and these data.
    pub(crate) fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn read(bytes: &[u8], limit: u64) -> Result<NamedTensors, FormatError> {
        read_arrays(&mut Cursor::new(bytes), bytes.len() as u64, limit, |_| true)
    }

    #[test]
    fn arrays_of_all_floats_are_read() {
        let mut data: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        data.extend([1.5_f32, -2.0].iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
        let header = r#"{"__metadata__": {"format": "pt"}, "b": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [8, 12]},
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;
        let arrays = read(&file(header, &data), 100).unwrap();
        let found: Vec<_> = arrays.iter().map(|(name, tensor)| (name.as_str(), tensor.shape().to_vec())).collect();
        assert_eq!(found, [("a", vec![2]), ("b", vec![1, 2])]);
        for (_, tensor) in arrays {
            assert_eq!(tensor.to_f32().unwrap().iter().copied().collect::<Vec<_>>(), [1.5, -2.0]);
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let rows = [
            (r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 80]}}"#, "lies at 0..80 of 8 bytes"),
            (r#"{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}"#, "of shape [3]"),
            (r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}"#, "lies at 8..0"),
            (r#"{"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}"#, "F8_E4M3"),
            (
                r#"{"a": {"dtype": "F32", "shape": [4611686018427387904, 8], "data_offsets": [0, 8]}}"#,
                "of shape [4611686018427387904, 8]",
            ),
            (r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 18446744073709551615]}}"#, "lies at"),
            (r#"{"a": 3}"#, "JSON"),
            ("[", "JSON"),
        ];
        for (header, expected) in rows {
            let error = read(&file(header, &[0; 8]), 100).unwrap_err().to_string();
            assert!(error.contains(expected), "{header}: {error}");
        }
        let whole = file(r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#, &[0; 8]);
        assert!(matches!(read(&whole, 7), Err(FormatError::TooLarge { .. })));
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut], 100).is_err(), "cut at {cut}");
        }
        let mut long = whole.clone();
        long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(read(&long, 100).unwrap_err().to_string().contains("claims 18446744073709551615 bytes"));
    }
}
