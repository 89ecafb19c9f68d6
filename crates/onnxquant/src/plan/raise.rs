//! Brings a model to the opset in which it is planned, solved and written: once, before anything is decided.
//!
//! A raised model numbers its nodes and values anew. All copies of the model that a run makes - in float, partly
//! quantized, written - come from the one that is returned here, so that an id found in one of them is good for all.

use onnxquant_ir::Model;
use onnxquant_passes::hard_sigmoid::expand_hard_sigmoids;
use onnxquant_passes::raise_opset::raise_opset;

use crate::config::{Activations, Config};
use crate::error::Error;
use crate::load::check;
use crate::plan::layers::Plan;

/// Raises a prepared model to the least opset in which all that `config` allows can be written; returns the operators
/// rewritten.
///
/// Where activations may be codes, hard sigmoids are spelled out: only so they can run on codes.
pub(crate) fn raise_for_codes(model: Model, config: &Config) -> Result<(Model, Vec<String>), Error> {
    let needed = Plan::new(&model, config)?.opset;
    let (mut model, changes) = match model.opset("").unwrap_or(0) < needed {
        true => raise_opset(model, needed)?,
        false => (model, Vec::new()),
    };
    check(&model, "raising the opset")?;
    if config.activations != Activations::Float {
        expand_hard_sigmoids(&mut model)?;
        check(&model, "spelling out hard sigmoids")?;
    }
    Ok((model, changes.iter().map(ToString::to_string).collect()))
}
