//! A model for the engine that computes in floats what the written model will compute.

use std::collections::BTreeMap;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, NodeId, ValueId};
use onnxquant_passes::fake_quantize::{FAKE_QUANTIZE_OPSET, fake_quantize_dynamically, fake_quantize_in_blocks};
use onnxquant_passes::integer::write_regions::{Conversion, write_regions};
use onnxquant_passes::weight_form::WeightForm;
use onnxquant_passes::write_caches::{InputTypes, ScaledCaches, open_caches, write_caches};
use onnxquant_passes::write_codes::write_codes;
use onnxquant_quant::Granularity;

use crate::config::{Config, Target};
use crate::error::Error;
use crate::load::{check, decode};
use crate::plan::assignment::{Assignment, Form};
use crate::plan::layers::{PlannedBody, PlannedLayer};
use crate::plan::tables::PlannedTable;
use crate::write::bodies::put_bodies;
use crate::write::codes::Codes;
use crate::write::tables::decode_tables;

/// Inputs that share a scale inside the runtime where weights have one scale a channel or tensor.
const RUNTIME_BLOCK: usize = 32;

/// Whose arithmetic an evaluated model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// That of the operators in the file.
    File,
    /// That of ONNX Runtime on a CPU, which by default rounds the inputs of layers whose weights alone are codes.
    Runtime,
}

impl Arithmetic {
    /// That of the target for which `config` writes `model`.
    pub(crate) fn of(config: &Config, model: &Model) -> Self {
        let can_round = model.opset("").is_some_and(|opset| opset >= FAKE_QUANTIZE_OPSET);
        if config.target == Target::OrtCpu && can_round { Self::Runtime } else { Self::File }
    }
}

/// A model for the engine that computes what the written model will: weights and activations take the values of
/// their codes.
pub(crate) fn evaluated(
    model: &Model,
    codes: Codes<'_>,
    assignment: &Assignment,
    arithmetic: Arithmetic,
) -> Result<Model, Error> {
    let mut evaluated = with_rounded_activations(&with_bodies(model, codes, arithmetic)?, assignment)?;
    if arithmetic == Arithmetic::Runtime {
        let rounded = codes.layers.iter().filter(|(_, weight)| weight.may_round_inputs());
        let layers = rounded.map(|(layer, _)| layer);
        round_inside(&mut evaluated, assignment, layers, codes.planned_tables);
    }
    check(&evaluated, "converting activations")?;
    for (layer, weight) in codes.layers {
        write_codes(evaluated.graph_mut(), &layer.site, weight)?;
    }
    decode_tables(evaluated.graph_mut(), codes.tables, codes.planned_tables)?;
    Ok(evaluated)
}

/// A copy of `model` whose bodies compute what those of the written one will.
pub(crate) fn with_bodies(model: &Model, codes: Codes<'_>, arithmetic: Arithmetic) -> Result<Model, Error> {
    let mut with_bodies = model.clone();
    let make = |float: &Model, _: &PlannedBody, codes: Codes<'_>| {
        let mut made = evaluated(float, codes, &Assignment::default(), arithmetic)?;
        // The opset may have no such codes: what engines get are floats.
        decode(&mut made)?;
        Ok(made)
    };
    put_bodies(&mut with_bodies, codes, &make)?;
    Ok(with_bodies)
}

/// A copy of `model` in which activations are rounded to the codes of `assignment`, computed in floats.
pub(crate) fn with_rounded_activations(model: &Model, assignment: &Assignment) -> Result<Model, Error> {
    let mut rounded = model.clone();
    write_regions(rounded.graph_mut(), assignment.regions(), assignment.params(), Conversion::Floats);
    let mut readers: BTreeMap<ValueId, Vec<(NodeId, usize)>> = BTreeMap::new();
    for layer in assignment.dynamic() {
        if let Some(input) = rounded.graph().node(layer.node()).input(0) {
            readers.entry(input).or_default().push((layer.node(), 0));
        }
    }
    for (input, mut nodes) in readers {
        nodes.sort_unstable();
        fake_quantize_dynamically(rounded.graph_mut(), input, &nodes);
    }
    keep_codes(&mut rounded, assignment.caches())?;
    Ok(rounded)
}

/// Lets attention keep codes, though samples have floats.
fn keep_codes(model: &mut Model, caches: &[ScaledCaches]) -> Result<(), Error> {
    if !caches.is_empty() {
        let types = InputTypes::of(model.graph());
        write_caches(model.graph_mut(), caches)?;
        open_caches(model.graph_mut(), &types);
    }
    Ok(())
}

/// Lets `layers` whose weights alone are codes, and those that read `tables`, read their inputs as ONNX Runtime rounds
/// them inside `MatMulNBits`.
pub(crate) fn round_inside<'a>(
    model: &mut Model,
    assignment: &Assignment,
    layers: impl Iterator<Item = &'a PlannedLayer>,
    tables: &'a [PlannedTable],
) {
    let opset = model.opset("").unwrap_or(0);
    let graph = model.graph_mut();
    let of_weights = layers.filter(|layer| assignment.form(layer.site.id()) == Form::WeightOnly);
    let of_weights = of_weights.filter_map(|layer| Some((&layer.site, block_inside(layer)?)));
    let heads = |planned: &'a PlannedTable| planned.table.heads.iter().filter_map(|site| Some((site, planned.block?)));
    let mut readers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (site, block) in of_weights.chain(tables.iter().flat_map(heads)) {
        if let Some(input) = graph.node(site.node).input(0) {
            readers.entry((input, [site.view.inputs(), block])).or_default().push((site.node, 0));
        }
    }
    for ((input, sizes), nodes) in readers {
        fake_quantize_in_blocks(graph, opset, input, sizes, &nodes);
    }
}

/// Inputs of the layer that share a scale inside the runtime, where it rounds them though its weights alone are codes.
fn block_inside(layer: &PlannedLayer) -> Option<usize> {
    let block = match (layer.form, layer.granularity) {
        (WeightForm::NBits { block, .. }, _) => block,
        (WeightForm::Dequantize(_), Granularity::Block(size)) => size,
        (WeightForm::Dequantize(_), _) => RUNTIME_BLOCK,
        (WeightForm::Folded(_), _) => return None,
    };
    (layer.site.dtype == DataType::Float).then_some(block)
}
