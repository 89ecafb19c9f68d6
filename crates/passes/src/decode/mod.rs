//! Turns quantized weights back into floats.
//!
//! | file | what it does |
//! |---|---|
//! | [`decode_weights`] | every form, by the rules of `DequantizeLinear` and of broadcasting |
//! | `decode_nbits` | the runtime's own operator for weights in blocks |
//! | [`fold_planes`] | puts codes together that are stored in planes |

mod decode_nbits;
pub mod decode_weights;
pub mod fold_planes;
