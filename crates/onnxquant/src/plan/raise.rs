//! Brings a model to the opset in which it is planned, solved and written: once, before anything is decided.
//!
//! A raised model numbers its nodes and values anew. All copies of the model that a run makes - in float, partly
//! quantized, written - come from the one that is returned here, so that an id found in one of them is good for all.

use onnxquant_ir::Model;
use onnxquant_passes::hard_sigmoid::expand_hard_sigmoids;
use onnxquant_passes::raise_opset::raise_opset;
use onnxquant_passes::raise_type::{RaisedType, raise_type};

use crate::config::{Activations, Config};
use crate::error::Error;
use crate::load::check;
use crate::plan::layers::Plan;

/// A model in the opset in which it is planned.
pub(crate) struct Raised {
    pub(crate) model: Model,
    /// Operators rewritten.
    pub(crate) changes: Vec<String>,
    /// What was asked for, as far as that opset has it.
    pub(crate) config: Config,
}

/// Lets a model of f16 or bf16 compute in f32, which processors do faster, unless `config` keeps the type.
pub(crate) fn raise_halves(model: &mut Model, config: &Config) -> Result<Option<RaisedType>, Error> {
    if config.keep_type {
        return Ok(None);
    }
    let raised = raise_type(model)?;
    check(model, "computing in f32")?;
    Ok(raised)
}

/// Raises a prepared model to the least opset in which all that `config` allows can be written.
///
/// Where activations may be codes, hard sigmoids are spelled out: only so they can run on codes. A model that cannot be
/// raised for these gets codes of weights alone, where `auto` decides.
pub(crate) fn raise_for_codes(model: Model, config: &Config) -> Result<Raised, Error> {
    let fallback = (config.activations == Activations::Auto).then(|| (model.clone(), config.with_float_activations()));
    let ((mut model, changes), mut config) = match (raise(model, config), fallback) {
        (Err(_), Some((model, config))) => (raise(model, &config)?, config),
        (raised, _) => (raised?, config.clone()),
    };
    if config.activations == Activations::Auto && model.opset("").unwrap_or(0) < config.activation_opset() {
        config = config.with_float_activations();
    }
    if config.activations != Activations::Float {
        expand_hard_sigmoids(&mut model)?;
        check(&model, "spelling out hard sigmoids")?;
    }
    Ok(Raised { model, changes, config })
}

fn raise(model: Model, config: &Config) -> Result<(Model, Vec<String>), Error> {
    let needed = Plan::new(&model, config)?.opset;
    let (model, changes) = match model.opset("").unwrap_or(0) < needed {
        true => raise_opset(model, needed)?,
        false => (model, Vec::new()),
    };
    check(&model, "raising the opset")?;
    Ok((model, changes.iter().map(ToString::to_string).collect()))
}
