//! Graph to graph rewrites and the search for layers to quantize.
//!
//! The folders are floors, from the top down; a file imports its own floor and those below:
//!
//! | floor | what it holds |
//! |---|---|
//! | [`integer`] | integer inference |
//! | `write` | the forms in which weights are written |
//! | `migrate` | scales move from activations into weights |
//! | `find` | the layers that can be quantized |
//! | `decode` | quantized weights become floats again |
//! | `prepare` | rewrites of a float model that leave its results |
//! | [`drop_activation_codes`] | activations that were rounded to codes and back are floats again |
//! | [`raise_opset`] | moves the model to a newer opset |
//! | [`layers`] | the operators whose weights can be codes |
//! | `graph` | what passes share |
//! | `runtime` | what ONNX Runtime does, by version and processor |
//!
//! | module | what it does |
//! |---|---|
//! | [`add_to_bias`] | adds a vector to a layer's bias |
//! | [`check_attributes`] | checks that attributes lie where their operators allow it |
//! | [`inline_layers`] | local functions that hold layers are expanded |
//! | [`lift_constants`] | `Constant` nodes become initializers |
//! | [`align_channels`] | channels of zeros bring a Conv on codes to the fast kernel |
//! | [`fold_affine`] | multiplications and additions of constants go into the layer beside them |
//! | [`fold_batchnorm`] | BatchNormalization goes into the Conv or Gemm before it |
//! | [`fold_integers`] | shapes and indices computed from constants become initializers |
//! | [`fold_weights`] | weights computed from constants become initializers |
//! | [`fold_pad`] | zero padding goes into the Conv that reads it |
//! | [`full_pads`] | Pad says its amounts for every dimension |
//! | [`raise_type`] | what is computed in f16 or bf16 is computed in f32 |
//! | [`plain_forms`] | products with a constant are written in the forms in which layers are found |
//! | [`hard_sigmoid`] | hard sigmoids become one operator in float, and are spelled out for codes |
//! | [`migrate_scale`] | a scale a channel moves from a layer's input into its weights |
//! | [`decode_weights`] | quantized weights become float constants again, for evaluation |
//! | [`unsigned_weights`] | signed weights of integer products become unsigned, which no processor saturates |
//! | [`integer_operators`] | operators on codes, as other tools write them, become float ones again |
//! | [`raise_opset`] | the model moves to a newer opset, operators rewritten where their meaning changed |
//! | [`cpu`] | classes of processors, and what their integer products do to codes |
//! | [`ort_version`] | from which version on ONNX Runtime does what |
//! | [`outer_constants`] | which constants bodies may read from the graph around |
//! | [`runs_as`] | predicts what ONNX Runtime makes of a quantized layer |
//! | [`integer`] | chooses the regions that run on 8-bit codes, and writes their conversions |
//! | [`layers`] | the operators whose weights can be codes, and what depends on which one it is |
//! | [`expose`] | hands values of bodies out, to observe them |
//! | [`float_weights`] | lists every constant that is stored as floats, and why |
//! | [`sites`] | finds the layers to quantize, and says why others stay in float |
//! | [`saturate_pairs`] | adds what saturating sums of products change, for evaluation |
//! | [`annotate`] | lists the scales of activations where other tools look for them |
//! | [`keep_fusible`] | changes what comes after a layer where it would keep the runtime from fusing |
//! | [`weight_form`] | the forms in which weights are written |
//! | [`write_codes`] | replaces a float weight by codes and the nodes that decode them |
//! | [`write_nbits`] | turns a MatMul or Gemm into the runtime's own operator for weights in blocks |
//! | [`byte_planes`] | stores codes of few bits in as many bits |
//! | [`fold_planes`] | puts them together again |
//! | [`store_half`] | stores floats that were f16 or bf16 in their type again |
//! | [`write_static`] | gives a layer inside a region the weight and bias that its integer kernel takes |
//! | [`write_dynamic`] | replaces a MatMul or Gemm by an integer product that quantizes its input as it runs |
//! | [`caches`] | finds the caches of keys and values that a decoder takes and returns |
//! | [`write_caches`] | keeps them as codes, and opens such a model for callers that have floats |
//! | [`tables`] | stores tables of embeddings, and weights of recurrent layers, as codes |
//! | [`fake_quantize`] | rounds an activation, with codes or with the same arithmetic in floats |

#![forbid(unsafe_code)]

mod decode;
mod find;
mod graph;
pub mod integer;
pub mod layers;
mod migrate;
mod prepare;
pub mod raise_opset;
mod runtime;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
#[cfg_attr(not(test), allow(dead_code))]
pub mod testing;
mod write;

pub use decode::{decode_weights, drop_activation_codes, fold_planes, integer_operators, unsigned_weights};
pub use find::{caches, float_weights, sites};
pub use graph::{constant_chain, expose};
pub use integer::{align_channels, fake_quantize, saturate_pairs, write_dynamic, write_static};
pub use migrate::migrate_scale;
pub use prepare::{
    check_attributes, fold_affine, fold_batchnorm, fold_integers, fold_pad, fold_weights, full_pads, hard_sigmoid,
    inline_layers, lift_constants, plain_forms, raise_type,
};
pub use runtime::{cpu, ort_version, outer_constants};
pub use write::{
    add_to_bias, annotate, byte_planes, keep_fusible, runs_as, share_constants, store_half, tables, weight_form,
    write_caches, write_codes, write_nbits,
};
