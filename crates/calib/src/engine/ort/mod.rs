//! ONNX Runtime: a library that is found and loaded while the program runs, and not needed to build it.

mod elf;
mod error;
mod ffi;
mod find;
mod model;
mod session;
mod strings;

pub use error::OrtError;
pub use ffi::OrtLevel;
pub use find::OrtPlaces;
pub use session::{OrtEngine, OrtModel, OrtOptions};
