//! Reads a model and brings it into the form in which layers are found and quantized.

use std::path::Path;

use onnxquant_ir::{Model, verify};
use onnxquant_passes::fold_affine::fold_affine;
use onnxquant_passes::fold_batchnorm::fold_batchnorm;
use onnxquant_passes::fold_integers::fold_integers;
use onnxquant_passes::fold_pad::fold_pads;
use onnxquant_passes::hard_sigmoid::fuse_hard_sigmoids;
use onnxquant_passes::lift_constants::lift_constants;
use serde::Serialize;

use crate::error::Error;

/// What the passes before quantization did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Prepared {
    /// `Constant` nodes that became initializers.
    pub constants_lifted: usize,
    /// BatchNormalization nodes folded into the layer before them.
    pub batchnorms_folded: usize,
    /// Pad nodes folded into the Conv behind them.
    pub pads_folded: usize,
    /// Multiplications and additions of constants folded into the layer beside them.
    pub affine_folded: usize,
    /// Hard sigmoids that were spelled out and became one operator.
    pub hard_sigmoids_fused: usize,
}

/// Reads the model and verifies it.
pub fn read(path: &Path) -> Result<Model, Error> {
    Model::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Runs the passes that leave the function as it is, each verified.
pub fn prepare(model: &mut Model) -> Result<Prepared, Error> {
    let constants_lifted = lift_constants(model);
    check(model, "lifting constants")?;
    let batchnorms_folded = fold_batchnorm(model)?;
    check(model, "folding BatchNormalization")?;
    fold_integers(model);
    check(model, "folding integers")?;
    let pads_folded = fold_pads(model)?;
    check(model, "folding pads")?;
    let hard_sigmoids_fused = fuse_hard_sigmoids(model)?;
    check(model, "fusing hard sigmoids")?;
    let affine_folded = fold_affine(model)?;
    check(model, "folding multiplications and additions")?;
    Ok(Prepared { constants_lifted, batchnorms_folded, pads_folded, affine_folded, hard_sigmoids_fused })
}

/// An invalid graph after a pass is a defect of the pass.
pub(crate) fn check(model: &Model, pass: &str) -> Result<(), Error> {
    match verify(model).as_slice() {
        [] => Ok(()),
        violations => Err(Error::broken(pass, violations)),
    }
}
