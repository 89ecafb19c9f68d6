//! Reads a model and brings it into the form in which layers are found and quantized.

use std::path::Path;

use onnxquant_calib::{CalibError, InputSpec, inline_functions};
use onnxquant_ir::onnx::ModelProto;
use onnxquant_ir::{GraphError, Model, verify};
use onnxquant_passes::check_attributes::check_attributes;
use onnxquant_passes::decode_weights::decode_weights;
use onnxquant_passes::drop_activation_codes::drop_activation_codes;
use onnxquant_passes::fold_affine::fold_affine;
use onnxquant_passes::fold_batchnorm::fold_batchnorm;
use onnxquant_passes::fold_integers::fold_integers;
use onnxquant_passes::fold_pad::fold_pads;
use onnxquant_passes::fold_weights::fold_weights;
use onnxquant_passes::full_pads::write_full_pads;
use onnxquant_passes::hard_sigmoid::fuse_hard_sigmoids;
use onnxquant_passes::inline_layers::inline_layers;
use onnxquant_passes::integer_operators::expand_integer_operators;
use onnxquant_passes::layers::holds_weights;
use onnxquant_passes::lift_constants::lift_constants;
use onnxquant_passes::outer_constants::stays_in_body;
use onnxquant_passes::plain_forms::write_plain_forms;
use onnxquant_passes::raise_opset::raise_functions;
use onnxquant_passes::unsigned_weights::unsigned_weights;
use onnxquant_proto::read_model;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Error;

/// What the passes before quantization did.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct Prepared {
    /// Nodes that stood behind one that reads them and were put before it.
    #[serde(skip_serializing_if = "is_none")]
    pub nodes_sorted: usize,
    /// Local functions that hold layers and were expanded.
    #[serde(skip_serializing_if = "is_none")]
    pub functions_expanded: usize,
    /// `Constant` nodes that became initializers.
    pub constants_lifted: usize,
    /// Weights that were computed from constants.
    #[serde(skip_serializing_if = "is_none")]
    pub weights_computed: usize,
    /// Products with a constant that became a plain Gemm, MatMul or Conv.
    #[serde(skip_serializing_if = "is_none")]
    pub products_rewritten: usize,
    /// BatchNormalization nodes folded into the layer before them.
    pub batchnorms_folded: usize,
    /// Pad nodes folded into the Conv behind them.
    pub pads_folded: usize,
    /// Multiplications and additions of constants folded into the layer beside them.
    pub affine_folded: usize,
    /// Hard sigmoids that were spelled out and became one operator.
    pub hard_sigmoids_fused: usize,
}

/// A change of a model that leaves its function as it is.
pub(crate) struct Pass {
    pub(crate) name: &'static str,
    /// What it counts, in words.
    counts: &'static str,
    /// Returns how many it changed.
    pub(crate) run: fn(&mut Model) -> Result<usize, GraphError>,
    /// Where the report has the count.
    record: fn(&mut Prepared, usize),
}

/// In the order in which they run.
pub(crate) const PASSES: [Pass; 10] = [
    Pass {
        name: "inline_layers",
        counts: "local functions that hold layers and were expanded",
        run: |model| Ok(inline_layers(model)),
        record: |prepared, count| prepared.functions_expanded = count,
    },
    Pass {
        name: "lift_constants",
        counts: "Constant nodes that became initializers",
        run: |model| Ok(lift_constants(model)),
        record: |prepared, count| prepared.constants_lifted = count,
    },
    Pass {
        name: "fold_integers",
        counts: "operators on integer constants that became constants",
        run: |model| Ok(fold_integers(model)),
        record: |_, _| (),
    },
    Pass {
        name: "fold_weights",
        counts: "weights computed from constants that became constants",
        run: |model| Ok(fold_weights(model)),
        record: |prepared, count| prepared.weights_computed = count,
    },
    Pass {
        name: "write_plain_forms",
        counts: "products with a constant that became a plain Gemm, MatMul or Conv",
        run: |model| Ok(write_plain_forms(model)),
        record: |prepared, count| prepared.products_rewritten = count,
    },
    Pass {
        name: "fold_batchnorm",
        counts: "BatchNormalization nodes folded into the layer before them",
        run: fold_batchnorm,
        record: |prepared, count| prepared.batchnorms_folded = count,
    },
    Pass {
        name: "fold_pads",
        counts: "Pad nodes folded into the Conv behind them",
        run: fold_pads,
        record: |prepared, count| prepared.pads_folded = count,
    },
    Pass {
        name: "write_full_pads",
        counts: "Pad nodes whose amounts are now those of all dimensions",
        run: |model| Ok(write_full_pads(model)),
        record: |_, _| (),
    },
    Pass {
        name: "fuse_hard_sigmoids",
        counts: "hard sigmoids that were spelled out and became one operator",
        run: fuse_hard_sigmoids,
        record: |prepared, count| prepared.hard_sigmoids_fused = count,
    },
    Pass {
        name: "fold_affine",
        counts: "multiplications and additions of constants folded into the layer beside them",
        run: fold_affine,
        record: |prepared, count| prepared.affine_folded = count,
    },
];

/// What one pass did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PassTrace {
    /// The pass.
    pub name: &'static str,
    /// What it counts, in words.
    pub counts: &'static str,
    /// How many it changed.
    pub changed: usize,
    /// Nodes of the graph before it.
    pub nodes_before: usize,
    /// And behind it.
    pub nodes_after: usize,
}

/// What the graph of the model in `path` declares about its inputs.
///
/// # Errors
/// The file is no model, or an input is of a type that samples cannot have.
pub fn inputs(path: &Path) -> Result<Vec<InputSpec>, Error> {
    inputs_of(&read_model(path)?, path)
}

/// The same of a model that was read from `path`.
pub(crate) fn inputs_of(model: &ModelProto, path: &Path) -> Result<Vec<InputSpec>, Error> {
    let no_graph = || Error::Run { path: path.to_owned(), problem: "it has no graph".to_owned() };
    Ok(InputSpec::from_graph(model.graph.as_ref().ok_or_else(no_graph)?, model.ir_version())?)
}

/// Reads the model and verifies it, the attributes of its nodes included.
pub fn read(path: &Path) -> Result<Model, Error> {
    let model = Model::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    match check_attributes(&model.to_proto()) {
        illegal if illegal.is_empty() => Ok(model),
        illegal => Err(Error::Attributes { path: path.to_owned(), illegal }),
    }
}

/// Refuses a model that is not there, in the words of [`read`].
pub(crate) fn check_is_there(path: &Path) -> Result<(), Error> {
    if path.exists() { Ok(()) } else { read(path).map(drop) }
}

/// Runs the passes that leave the function as it is, each verified.
pub fn prepare(model: &mut Model) -> Result<Prepared, Error> {
    let mut prepared = Prepared { nodes_sorted: model.nodes_sorted(), ..Prepared::default() };
    for (pass, trace) in PASSES.iter().zip(trace_passes(model)?) {
        (pass.record)(&mut prepared, trace.changed);
    }
    Ok(prepared)
}

/// Runs the same passes and tells what each did, in their order; bodies included.
pub fn trace_passes(model: &mut Model) -> Result<Vec<PassTrace>, Error> {
    let mut traces = PASSES.iter().map(|pass| pass.apply(model)).collect::<Result<Vec<PassTrace>, Error>>()?;
    check(model, "preparing the model")?;
    in_bodies(model, "preparing bodies", &mut |body| {
        let inner = trace_passes(body)?;
        for (trace, inner) in traces.iter_mut().zip(&inner) {
            trace.changed += inner.changed;
            trace.nodes_before += inner.nodes_before;
            trace.nodes_after += inner.nodes_after;
        }
        Ok(inner.iter().any(|trace| trace.changed > 0))
    })?;
    Ok(traces)
}

/// Opens every body in which something could be quantized, or is; those that `change` changes, as it says, are put back.
fn in_bodies(
    model: &mut Model,
    pass: &str,
    change: &mut dyn FnMut(&mut Model) -> Result<bool, Error>,
) -> Result<bool, Error> {
    let mut is_changed = false;
    for id in model.graph().bodies() {
        let opened = model.graph().body(&id).is_some_and(holds_weights).then(|| model.open_body(&id)).flatten();
        let Some(mut body) = opened else { continue };
        if change(&mut body)? {
            model.close_body(&id, body, &stays_in_body);
            check(model, pass)?;
            is_changed = true;
        }
    }
    Ok(is_changed)
}

impl Pass {
    /// Runs it and verifies what it leaves, if it says that it changed something.
    fn apply(&self, model: &mut Model) -> Result<PassTrace, Error> {
        let nodes_before = model.graph().order().len();
        let changed = (self.run)(model)?;
        if changed > 0 {
            check(model, self.name)?;
        }
        let nodes_after = model.graph().order().len();
        Ok(PassTrace { name: self.name, counts: self.counts, changed, nodes_before, nodes_after })
    }
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

/// The message for engines, which do not know local functions.
pub(crate) fn without_functions(model: &Model) -> Result<ModelProto, CalibError> {
    inline_functions(&raise_functions(model.to_proto()))
}

/// Gives the engine floats where the model has codes already, and integer products that no processor saturates.
pub(crate) fn decode(model: &mut Model) -> Result<(), Error> {
    decode_all(model).map(drop)
}

/// The same; returns whether there were some.
fn decode_all(model: &mut Model) -> Result<bool, Error> {
    let decoded = decode_weights(model)?;
    unsigned_weights(model.graph_mut())?;
    check(model, "decoding weights")?;
    let inside = in_bodies(model, "decoding weights", &mut decode_all)?;
    Ok(decoded > 0 || inside)
}

/// Makes floats of all that the model has on codes, activations too.
///
/// # Errors
/// It has nothing on codes.
pub(crate) fn forget_codes(model: &mut Model) -> Result<(), Error> {
    let operators = expand_integer_operators(model)?;
    let has_weights = decode_all(model)? || operators > 0;
    let activations = drop_activation_codes(model)?;
    check(model, "dropping codes of activations")?;
    if !has_weights && activations == 0 {
        let problem =
            "--requantize has no effect here: nothing in the model is quantized in a form that can be decoded";
        return Err(Error::Usage(problem.to_owned()));
    }
    Ok(())
}

/// The model with floats where it has codes.
pub(crate) fn decoded(model: &Model) -> Result<Model, Error> {
    let mut decoded = model.clone();
    decode(&mut decoded)?;
    Ok(decoded)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
