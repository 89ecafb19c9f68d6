//! Building tract's plans.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use onnxquant_proto::give_back;
use onnxquant_proto::onnx::NodeProto;
use prost::Message;
use tract_onnx::Onnx;
use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::model::ParsingContext;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, TractResult, TypedModel,
    TypedRunnableModel,
};
use tract_onnx::tract_core::internal::{TDim, bail};
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::infer::InferenceOp;

use super::least_rank::check_ranks;
use super::lower::REVERSE;
use super::mend::mend;
use super::model::EngineModel;
use super::{attention, round_to_grid, saturate_pairs, squeeze_all};
use crate::engine::blocked::{BlockedNode, Fault, PANICKED, shorten};
use crate::engine::contract::Shapes;
use crate::error::CalibError;
use crate::graph::all_nodes;

/// An optimised model for certain shapes.
pub(crate) type Plan = Arc<TypedRunnableModel>;

/// Hands out tensors by their number in the table, which takes the place of a file offset.
struct Table(Vec<Bytes>);

impl ModelDataResolver for Table {
    fn read_bytes_from_path(&self, buf: &mut Vec<u8>, _: &Path, offset: usize, _: Option<usize>) -> TractResult<()> {
        let Some(bytes) = self.0.get(offset) else { bail!("no tensor number {offset}") };
        buf.extend_from_slice(bytes);
        give_back(bytes);
        Ok(())
    }
}

/// Parses a model; no shapes are known yet.
pub(crate) fn parse(model: &EngineModel) -> Result<InferenceModel, CalibError> {
    let operators = operators();
    let nodes = model.proto.graph.as_ref().map(all_nodes).unwrap_or_default();
    let unknown = |node: &NodeProto| Some(BlockedNode::new(node, operators.unknown(node)?, Fault::Unknown));
    if let Some(blocked) = nodes.into_iter().find_map(unknown) {
        return Err(CalibError::from(&blocked));
    }
    let Operators(mut onnx) = operators;
    onnx.provider = Arc::new(Table(model.tensors.clone()));
    let bytes = model.proto.encode_to_vec();
    guarded(|| {
        let proto = onnx.proto_model_for_read(&mut bytes.as_slice())?;
        // The folder is not read, but the engine wants one that exists.
        let parsed = onnx.parse(&proto, Some("."))?;
        if !parsed.unresolved_inputs.is_empty() {
            bail!("nothing computes {:?}", parsed.unresolved_inputs);
        }
        Ok(parsed.model)
    })
    .map_err(|detail| CalibError::Load { place: "reading the graph".into(), detail })
}

/// The operators that the engine has.
pub(super) struct Operators(Onnx);

impl Operators {
    /// Why the node cannot be run, where its operator is none of these.
    pub(super) fn unknown(&self, node: &NodeProto) -> Option<&'static str> {
        (!self.0.op_register.0.contains_key(node.op_type())).then_some("it does not know this operator")
    }
}

pub(super) fn operators() -> Operators {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    onnx.op_register.insert("Upsample", upsample);
    onnx.op_register.insert(REVERSE, reverse);
    mend(&mut onnx);
    attention::register(&mut onnx);
    check_ranks(&mut onnx);
    round_to_grid::register(&mut onnx);
    saturate_pairs::register(&mut onnx);
    squeeze_all::register(&mut onnx);
    Operators(onnx)
}

/// Upsample is Resize as it was in opset 10.
fn upsample(
    context: &ParsingContext<'_>,
    node: &tract_onnx::pb::NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    as_of("Resize", 10, context, node)
}

/// Reversing is Slice with a step of -1, which it has since opset 10.
fn reverse(
    context: &ParsingContext<'_>,
    node: &tract_onnx::pb::NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    as_of("Slice", 10, context, node)
}

/// Builds another operator, as it was in an opset.
fn as_of(
    op_type: &str,
    opset: i64,
    context: &ParsingContext<'_>,
    node: &tract_onnx::pb::NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let Some(builder) = context.framework.op_register.0.get(op_type) else { bail!("there is no {op_type}") };
    let mut context = context.clone();
    context.onnx_operator_set_version = opset;
    builder(&context, node)
}

/// Shapes for a plan: lengths, or the numbers of symbols.
pub(crate) enum PlanShapes<'a> {
    /// All lengths are known.
    Concrete(&'a Shapes),
    /// Lengths of one sample, and where symbols take their place.
    Symbolic(&'a Shapes, &'a [Vec<Option<usize>>]),
}

/// Optimises a copy of the model for the shapes given.
///
/// A model that quantizes activations is run as it is: optimising replaces, for one, a Softmax
/// between DequantizeLinear and QuantizeLinear by an approximation that can be off by its range.
pub(crate) fn prepare(parsed: &InferenceModel, shapes: &PlanShapes<'_>, quantizes: bool) -> Result<Plan, String> {
    guarded(|| {
        let mut model = parsed.clone();
        for index in 0..model.inputs.len() {
            let shape = input_shape(&mut model, index, shapes);
            let datum_type = model.input_fact(index)?.datum_type.concretize();
            let Some(datum_type) = datum_type else { bail!("input {index} has no element type") };
            model.set_input_fact(index, InferenceFact::dt_shape(datum_type, shape))?;
        }
        let typed = in_single_precision(model.into_typed()?)?;
        if quantizes { typed.into_runnable() } else { typed.into_optimized()?.into_runnable() }
    })
}

fn input_shape(model: &mut InferenceModel, index: usize, shapes: &PlanShapes<'_>) -> Vec<TDim> {
    let length = |&n: &usize| TDim::Val(i64::try_from(n).expect("lengths of arrays in memory fit in 63 bits"));
    match shapes {
        PlanShapes::Concrete(shapes) => shapes[index].iter().map(length).collect(),
        PlanShapes::Symbolic(shapes, symbols) => {
            let axes = shapes[index].iter().zip(&symbols[index]);
            let dim = |(n, symbol): (&usize, &Option<usize>)| match symbol {
                Some(s) => TDim::from(model.symbols.sym(&format!("S{s}"))),
                None => length(n),
            };
            axes.map(dim).collect()
        }
    }
}

/// Half precision is emulated and 40 times slower than single precision.
fn in_single_precision(mut model: TypedModel) -> TractResult<TypedModel> {
    let mut outlets = model.nodes.iter().flat_map(|n| &n.outputs);
    if outlets.any(|o| o.fact.datum_type == DatumType::F16) {
        let transform = tract_onnx::tract_core::transform::get_transform("f16_to_f32")?;
        let Some(transform) = transform else { bail!("the transform f16_to_f32 is missing") };
        transform.transform(&mut model)?;
    }
    Ok(model)
}

/// Runs engine code; its errors and panics become messages.
pub(crate) fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(shorten(&format!("{error:#}"))),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(shorten(&format!("{PANICKED}{text}")))
        }
    }
}
