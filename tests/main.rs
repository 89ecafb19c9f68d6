//! End-to-end tests: the built command on fixtures, traps and hostile files, and what it wrote in ONNX Runtime.
//!
//! `cargo xtask test` sets up Python with ONNX Runtime and starts them. Without it the tests that need Python fail.

#![forbid(unsafe_code)]

mod anonymized;
mod bench;
mod bodies;
#[cfg(unix)]
mod book;
mod caches;
mod capture;
#[cfg(unix)]
mod clocks;
mod command;
mod configuration;
mod determinism;
mod estimates;
mod experts;
mod external;
#[cfg(unix)]
mod faults;
#[cfg(unix)]
mod files;
mod forms;
mod fuzz_regressions;
#[cfg(unix)]
mod guarded;
mod half;
#[cfg(unix)]
mod hostile;
#[cfg(target_os = "linux")]
mod image;
mod integers;
mod judged;
mod layer_rules;
mod layers;
mod left_in_float;
#[cfg(unix)]
mod limits;
mod links;
mod lossless;
mod matrix;
mod measured;
#[cfg(unix)]
mod memory;
mod messages;
mod mixed;
mod opset;
mod order;
mod other_forms;
mod package;
mod partly_run;
mod pictures;
mod refused;
#[cfg(unix)]
mod remote;
mod reports;
mod requantized;
mod runtime;
mod saturation;
mod selected;
mod served;
mod shards;
#[cfg(unix)]
mod signals;
#[cfg(target_os = "linux")]
mod slurm;
mod sounds;
mod support;
mod targets;
#[cfg(unix)]
mod terminal;
mod texts;
mod tied;
mod transposed;
mod traps;
