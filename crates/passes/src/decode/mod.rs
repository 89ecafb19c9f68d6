//! Turns quantized weights and activations back into floats.
//!
//! | file | what it does |
//! |---|---|
//! | [`decode_weights`] | every form, by the rules of `DequantizeLinear` and of broadcasting |
//! | `decode_nbits` | the runtime's own operator for weights in blocks |
//! | [`integer_operators`] | operators that compute on codes |
//! | [`drop_activation_codes`] | activations that are rounded to codes and back |
//! | [`fold_planes`] | puts codes together that are stored in planes |
//! | [`unsigned_weights`] | signed weights of integer products become unsigned, whose sums no processor saturates |

mod decode_nbits;
pub mod decode_weights;
pub mod drop_activation_codes;
pub mod fold_planes;
pub mod integer_operators;
pub mod unsigned_weights;
