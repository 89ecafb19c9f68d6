//! Graph to graph rewrites and the search for layers to quantize.
//!
//! | module | what it does |
//! |---|---|
//! | [`add_to_bias`] | adds a vector to a layer's bias |
//! | [`lift_constants`] | `Constant` nodes become initializers |
//! | [`fold_batchnorm`] | BatchNormalization goes into the Conv or Gemm before it |
//! | [`decode_weights`] | quantized weights become float constants again, for evaluation |
//! | [`raise_opset`] | the model moves to a newer opset, operators rewritten where their meaning changed |
//! | [`sites`] | finds the layers to quantize, and says why others stay in float |
//! | [`keep_fusible`] | changes what comes after a layer where it would keep the runtime from fusing |
//! | [`write_codes`] | replaces a float weight by codes and the nodes that decode them |

#![forbid(unsafe_code)]

pub mod add_to_bias;
pub mod constant_chain;
pub mod decode_weights;
pub mod fold_batchnorm;
pub mod keep_fusible;
pub mod lift_constants;
pub mod raise_opset;
pub mod sites;
#[cfg(test)]
mod testing;
pub mod write_codes;
