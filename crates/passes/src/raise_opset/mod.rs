//! Moves a model to a newer opset: operators whose meaning changed in between are rewritten.
//!
//! The pass works on the message: every body (main graph, subgraphs of If, Loop and Scan, local functions)
//! goes through the opsets one by one, and `steps.rs` says what a node becomes on entering each. Operators
//! that only gained types, optional attributes or optional inputs stay as they are.
//!
//! Names of values never change, so graph outputs and captures of subgraphs stay valid. Arguments that
//! became inputs are added as initializers, equal ones once a graph.
//!
//! Local functions are raised along with the graph: runtimes inline them, and then read them at the model's
//! opset. Imports of other domains stay.
//!
//! Refused, with the node and the reason: operators unknown to the default
//! domain at the model's opset; nodes in training mode; what needs a rank or an element type that the model
//! does not tell; and the few forms without a counterpart ([`Refusal`]).

mod arguments;
mod attributes;
mod bodies;
mod broadcasting;
mod change;
mod context;
mod error;
pub(crate) mod facts;
pub(crate) mod known;
mod message;
mod normalization;
mod resize;
mod softmax;
mod span;
mod steps;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use onnxquant_ir::Model;
use onnxquant_ir::onnx::{ModelProto, OperatorSetIdProto};

use bodies::Raise;
pub use change::Change;
pub use error::{RaiseError, Refusal};
pub use span::{HIGHEST_TARGET, LOWEST_TARGET, Span};
use table::IR_VERSIONS;

/// Raises the default domain of `model` to opset `target`; returns the raised model and the nodes that were rewritten.
///
/// A model that already is at `target` or above comes back as it is. The IR version rises to what the opset came
/// with. Ids of nodes and values are new in the raised model: that is why the model is taken and not changed in place.
pub fn raise_opset(model: Model, target: i64) -> Result<(Model, Vec<Change>), RaiseError> {
    if !(LOWEST_TARGET..=HIGHEST_TARGET).contains(&target) {
        return Err(RaiseError::UnknownTarget { target });
    }
    let from = model.opset("").unwrap_or(target);
    if model.opset("").is_some_and(|opset| opset >= target) {
        return Ok((model, Vec::new()));
    }
    let span = Span { from, to: target };
    let mut proto = model.to_proto();
    if !proto.training_info.is_empty() {
        return Err(RaiseError::TrainingInfo { span });
    }
    let changes = Raise::new(&proto).model(&mut proto, span)?;
    let mut raised = model.with_message(proto).map_err(RaiseError::Invalid)?;
    raised.raise_ir_version(ir_version(target));
    Ok((raised, changes))
}

/// Raises the local functions that are written for an older opset of the default domain than the model; those that cannot
/// be raised stay as they are.
pub fn raise_functions(mut proto: ModelProto) -> ModelProto {
    let opset = proto.opset_import.iter().filter(|import| matches!(import.domain(), "" | "ai.onnx"));
    let Some(opset) = opset.map(OperatorSetIdProto::version).max().filter(|_| !proto.functions.is_empty()) else {
        return proto;
    };
    let mut raise = Raise::new(&proto);
    for function in &mut proto.functions {
        let mut raised = function.clone();
        if raise.function(&mut raised, opset).is_ok() {
            *function = raised;
        }
    }
    proto
}

/// The IR version that came with `opset`.
fn ir_version(opset: i64) -> i64 {
    let known = IR_VERSIONS.iter().take_while(|&&(known, _)| known <= opset);
    known.map(|&(_, version)| version).max().unwrap_or(0)
}
