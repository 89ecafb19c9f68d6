//! Says how good a model is.
//!
//! | file | what it does |
//! |---|---|
//! | `compare` | compares the outputs of two models on data |
//! | `held_out` | how exact the outputs of a quantized model are on held-out samples |
//! | `verify_ort` | loads a written model in ONNX Runtime |

pub(crate) mod compare;
pub(crate) mod held_out;
pub(crate) mod verify_ort;
