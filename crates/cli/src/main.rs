//! The command `onnxquant`.
fn main() {}
