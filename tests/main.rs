//! End-to-end tests: the built command on fixtures, traps and hostile files, and what it wrote in ONNX Runtime.
//!
//! `cargo xtask test` sets up Python with ONNX Runtime and starts them. Without it the tests that need Python fail.

#![forbid(unsafe_code)]

mod bench;
mod bodies;
mod capture;
mod command;
mod determinism;
mod external;
#[cfg(unix)]
mod files;
mod forms;
#[cfg(unix)]
mod hostile;
mod integers;
mod judged;
mod left_in_float;
mod lossless;
mod matrix;
#[cfg(unix)]
mod memory;
mod mixed;
mod opset;
mod order;
mod other_forms;
mod package;
mod partly_run;
mod refused;
mod runtime;
mod saturation;
mod selected;
mod served;
mod support;
mod targets;
mod texts;
mod tied;
mod transposed;
mod traps;
