//! What ONNX Runtime does, by version and processor.
//!
//! | file | what it says |
//! |---|---|
//! | [`ort_version`] | from which version on it does what |
//! | [`cpu`] | classes of processors, and what their integer products do to codes |
//! | `kernel` | what it computes layers with |
//! | `convolution` | which kernel a Conv without groups gets |
//! | `nbits` | its operator for weights in blocks |
//! | [`outer_constants`] | what bodies may read from outside |

pub(crate) mod convolution;
pub mod cpu;
pub(crate) mod kernel;
pub(crate) mod nbits;
pub mod ort_version;
pub mod outer_constants;
