//! Writes what was quantized: weights as codes, and the nodes that decode them.
//!
//! | file | what it does |
//! |---|---|
//! | [`weight_form`] | the forms in which weights are written |
//! | [`write_codes`], `write_dequantize` | codes before a `DequantizeLinear`, or in the folded form |
//! | `write_folded` | `Cast -> Mul`, computed when the model loads |
//! | [`write_nbits`] | the runtime's own operator for weights in blocks |
//! | `accuracy_level` | whether weights leave room for its integers |
//! | [`byte_planes`] | codes of few bits in as many bits |
//! | [`tables`] | tables of embeddings, and weights of recurrent layers |
//! | [`add_to_bias`], [`keep_fusible`] | what stands behind a layer |
//! | [`annotate`] | the scales of activations, where other tools look for them |
//! | [`write_caches`] | caches of attention as codes |
//! | [`share_constants`] | equal constants once |
//! | [`store_half`] | floats that were f16 or bf16, in their type again |
//! | [`runs_as`] | what the runtime makes of it |

mod accuracy_level;
pub mod add_to_bias;
pub mod annotate;
pub mod byte_planes;
pub(crate) mod codes;

pub mod keep_fusible;
pub(crate) mod packed_weight;
pub mod runs_as;
pub mod share_constants;
pub mod store_half;
pub mod tables;
pub mod weight_form;
pub mod write_caches;
pub mod write_codes;
pub(crate) mod write_dequantize;
mod write_folded;
pub mod write_nbits;
