//! Says what a file that is not a model looks like instead.

use crate::check::check;
use crate::fields::TENSOR_PROTO;
use crate::wire::first_varint;

/// What begins with which bytes, at which position.
const SIGNATURES: [(usize, &[u8], &str); 11] = [
    (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (0, b"PK\x03\x04", "a zip archive, as PyTorch, NumPy and many others write"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes"),
    (0, b"\x80\x02", "a Python pickle, as older PyTorch writes"),
    (4, b"ORTM", "a model in the format of ONNX Runtime (.ort)"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (8, b"{\"", "a safetensors file"),
    (0, b"GGUF", "a GGUF model"),
];

/// Beginnings of texts, after white space.
const TEXTS: [(&str, &str); 5] = [
    ("<!", "a web page"),
    ("<html", "a web page"),
    ("{", "JSON text"),
    ("<", "ONNX text syntax: convert it to the binary format first"),
    ("ir_version:", "protobuf text: convert it to the binary format first"),
];

/// What the bytes look like, if they look like something known.
pub(crate) fn appearance(bytes: &[u8]) -> Option<&'static str> {
    let signature = SIGNATURES
        .iter()
        .find(|(position, signature, _)| bytes.get(*position..).is_some_and(|rest| rest.starts_with(signature)));
    if let Some((_, _, name)) = signature {
        return Some(name);
    }
    if bytes.iter().all(|&byte| byte == 0) {
        return Some("nothing but zeros");
    }
    text_appearance(bytes).or_else(|| is_tensor(bytes).then_some("a single ONNX tensor, such as test data"))
}

fn text_appearance(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.get(..bytes.len().min(512))?;
    let text = start.utf8_chunks().next()?.valid();
    let cut_letter = start.len() - text.len();
    let is_control = |letter: char| letter.is_control() && !letter.is_whitespace();
    if text.len() < 4 || cut_letter > 3 || text.chars().any(is_control) {
        return None;
    }
    let text = text.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    let known = TEXTS.iter().find(|(beginning, _)| text.starts_with(beginning));
    Some(known.map_or("text", |(_, name)| name))
}

/// Whether the bytes are a `TensorProto` with a `data_type`, which is its field 2.
fn is_tensor(bytes: &[u8]) -> bool {
    check(bytes, &TENSOR_PROTO).is_ok() && first_varint(bytes, 2).is_some()
}
