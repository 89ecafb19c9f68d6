//! Says how good a model is.
//!
//! | file | what it does |
//! |---|---|
//! | `compare` | compares the outputs of two models on data |
//! | `tensors` | compares the tensors inside two models |
//! | `served` | how exact the written model is in ONNX Runtime |
//! | `held_out` | how exact the outputs of a quantized model are on held-out samples |
//! | `metered` | how good the written model is by a figure of the user's own |
//! | `expected` | how exact outputs can be expected to be on new data |
//! | `trial` | what may crash an engine, for a process that may crash |
//! | `verify_ort` | what ONNX Runtime makes of the layers of a written model |

pub(crate) mod compare;
pub(crate) mod expected;
pub(crate) mod held_out;
pub(crate) mod metered;
pub(crate) mod served;
pub(crate) mod tensors;
pub(crate) mod trial;
pub(crate) mod verify_ort;
