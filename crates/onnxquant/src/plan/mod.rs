//! What will be done, before anything is measured or solved: the values that the floors above fill in and hand on.
//!
//! | file | what it says |
//! |---|---|
//! | `layers` | which layers are quantized, and why others are not |
//! | `form` | how the weight of each is written |
//! | `tables` | which tables of embeddings are |
//! | `outside` | where a body stands, and who outside reads what its layers read |
//! | `float_weights` | which weights stay floats, of all operators, and why |
//! | `raise` | the opset in which all that can be written |
//! | `candidates` | which operators could run on codes |
//! | `assignment` | which do, and on which scales |
//! | `why_float` | why activations stay floats where integers were asked for |
//! | `scales` | scales and zero points of tensors, from the distributions of their values |
//! | `exposed` | tensors that make outputs without a layer in between |

pub(crate) mod assignment;
pub(crate) mod candidates;
pub(crate) mod exposed;
pub(crate) mod float_weights;
pub(crate) mod form;
pub(crate) mod layers;
mod outside;
pub(crate) mod raise;
pub(crate) mod scales;
pub(crate) mod tables;
pub(crate) mod why_float;
