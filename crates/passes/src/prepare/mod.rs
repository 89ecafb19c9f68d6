//! Rewrites of a float model that leave its results: constants are computed, and operators go into the layers beside them.
//!
//! | file | what it does |
//! |---|---|
//! | [`check_attributes`] | attributes lie where their operators allow it |
//! | [`raise_type`] | what is computed in f16 or bf16 is computed in f32 |
//! | [`lift_constants`] | `Constant` nodes become initializers |
//! | [`fold_integers`] | shapes and indices computed from constants become initializers |
//! | [`fold_weights`] | weights computed from constants become initializers |
//! | [`fold_pad`] | zero padding goes into the Conv that reads it |
//! | [`full_pads`] | Pad says its amounts for every dimension |
//! | [`fold_batchnorm`], [`fold_affine`] | scales and shifts a channel go into the layer beside them (`scaled_layer`) |
//! | [`plain_forms`] | products with a constant are written in the forms in which layers are found |
//! | [`hard_sigmoid`] | hard sigmoids become one operator, or are spelled out |

pub mod check_attributes;
pub mod fold_affine;
pub mod fold_batchnorm;
pub mod fold_integers;
pub mod fold_pad;
pub mod fold_weights;
pub mod full_pads;
pub mod hard_sigmoid;
pub mod inline_layers;
pub mod lift_constants;
pub mod plain_forms;
pub mod raise_type;
mod scaled_layer;
