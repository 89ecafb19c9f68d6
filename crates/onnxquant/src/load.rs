//! Reads a model and brings it into the form in which layers are found and quantized.

use std::path::Path;

use onnxquant_ir::{Model, verify};
use onnxquant_passes::fold_affine::fold_affine;
use onnxquant_passes::fold_batchnorm::fold_batchnorm;
use onnxquant_passes::fold_integers::fold_integers;
use onnxquant_passes::fold_pad::fold_pads;
use onnxquant_passes::hard_sigmoid::{expand_hard_sigmoids, fuse_hard_sigmoids};
use onnxquant_passes::lift_constants::lift_constants;
use onnxquant_passes::raise_opset::raise_opset;
use serde::Serialize;

use crate::config::{Activations, Config};
use crate::error::Error;
use crate::plan::Plan;

/// What the passes before quantization did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Prepared {
    /// Nodes that stood behind one that reads them and were put before it.
    #[serde(skip_serializing_if = "is_none")]
    pub nodes_sorted: usize,
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

/// Brings a model to the least opset that codes of activations and their weights need; returns the operators rewritten.
///
/// Hard sigmoids are spelled out there: only so they can run on codes.
pub(crate) fn raise_for_integers(model: &mut Model, config: &Config) -> Result<Vec<String>, Error> {
    let present = model.opset("").unwrap_or(0);
    if config.activations == Activations::Float {
        return Ok(Vec::new());
    }
    let needed = Plan::new(model, config)?.opset.max(config.activation_opset());
    let changes = if present < needed { raise(model, config, needed)? } else { Vec::new() };
    expand_hard_sigmoids(model)?;
    check(model, "spelling out hard sigmoids")?;
    Ok(changes)
}

fn raise(model: &mut Model, config: &Config, needed: i64) -> Result<Vec<String>, Error> {
    if config.opset_max < needed {
        let problem = format!("integer activations need opset {needed}, but at most {} is allowed", config.opset_max);
        return Err(Error::Usage(problem));
    }
    let changes = raise_opset(model, needed)?;
    check(model, "raising the opset")?;
    Ok(changes.iter().map(ToString::to_string).collect())
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
    let nodes_sorted = model.nodes_sorted();
    Ok(Prepared { nodes_sorted, constants_lifted, batchnorms_folded, pads_folded, affine_folded, hard_sigmoids_fused })
}

/// Most models are in order.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// An invalid graph after a pass is a defect of the pass.
pub(crate) fn check(model: &Model, pass: &str) -> Result<(), Error> {
    match verify(model).as_slice() {
        [] => Ok(()),
        violations => Err(Error::broken(pass, violations)),
    }
}
