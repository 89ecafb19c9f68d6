//! Graph to graph rewrites and the search for layers to quantize.
//!
//! | module | what it does |
//! |---|---|
//! | [`add_to_bias`] | adds a vector to a layer's bias |
//! | [`check_attributes`] | checks that attributes lie where their operators allow it |
//! | [`lift_constants`] | `Constant` nodes become initializers |
//! | [`align_channels`] | channels of zeros bring a Conv on codes to the fast kernel |
//! | [`fold_affine`] | multiplications and additions of constants go into the layer beside them |
//! | [`fold_batchnorm`] | BatchNormalization goes into the Conv or Gemm before it |
//! | [`fold_integers`] | shapes and indices computed from constants become initializers |
//! | [`fold_pad`] | zero padding goes into the Conv that reads it |
//! | [`hard_sigmoid`] | hard sigmoids become one operator in float, and are spelled out for codes |
//! | [`migrate_scale`] | a scale a channel moves from a layer's input into its weights |
//! | [`decode_weights`] | quantized weights become float constants again, for evaluation |
//! | [`raise_opset`] | the model moves to a newer opset, operators rewritten where their meaning changed |
//! | [`cpu`] | classes of processors, and what their integer products do to codes |
//! | [`ort_version`] | from which version on ONNX Runtime does what |
//! | [`runs_as`] | predicts what ONNX Runtime makes of a quantized layer |
//! | [`integer`] | chooses the regions that run on 8-bit codes, and writes their conversions |
//! | [`layers`] | the operators whose weights can be codes, and what depends on which one it is |
//! | [`sites`] | finds the layers to quantize, and says why others stay in float |
//! | [`saturate_pairs`] | adds what saturating sums of products change, for evaluation |
//! | [`keep_fusible`] | changes what comes after a layer where it would keep the runtime from fusing |
//! | [`weight_form`] | the forms in which weights are written |
//! | [`write_codes`] | replaces a float weight by codes and the nodes that decode them |
//! | [`write_nbits`] | turns a MatMul or Gemm into the runtime's own operator for weights in blocks |
//! | [`byte_planes`] | stores codes of few bits in as many bits |
//! | [`fold_planes`] | puts them together again |
//! | [`write_static`] | gives a layer inside a region the weight and bias that its integer kernel takes |
//! | [`write_dynamic`] | replaces a MatMul or Gemm by an integer product that quantizes its input as it runs |
//! | [`embeddings`] | stores tables of embeddings as codes |
//! | [`fake_quantize`] | rounds an activation, with codes or with the same arithmetic in floats |

#![forbid(unsafe_code)]

pub mod add_to_bias;
pub mod align_channels;
pub mod byte_planes;
pub mod check_attributes;
pub mod constant_chain;
pub mod cpu;
mod decode_nbits;
pub mod decode_weights;
pub mod embeddings;
pub mod fake_quantize;
pub mod fold_affine;
pub mod fold_batchnorm;
pub mod fold_integers;
pub mod fold_pad;
pub mod fold_planes;
pub mod hard_sigmoid;
mod insert;
pub mod integer;
pub mod keep_fusible;
pub mod layers;
pub mod lift_constants;
pub mod migrate_scale;
pub mod ort_version;
#[cfg(test)]
mod pair_rule_tests;
pub mod raise_opset;
pub mod runs_as;
pub mod saturate_pairs;
mod scaled_layer;
pub mod share_constants;
pub mod sites;
#[cfg(test)]
mod testing;
pub mod weight_form;
pub mod write_codes;
pub mod write_dynamic;
mod write_folded;
pub mod write_nbits;
pub mod write_static;
