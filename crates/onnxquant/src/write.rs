//! Puts codes into the model, and the model into a file.

use std::collections::BTreeMap;
use std::path::Path;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{ExternalData, Graph, IR_WITH_PLAIN_INITIALIZERS, Model, NodeId, ValueId, write_model};
use onnxquant_passes::align_channels::align_channels;
use onnxquant_passes::constant_chain::source;
use onnxquant_passes::embeddings::CodedTable;
use onnxquant_passes::fake_quantize::{FAKE_QUANTIZE_OPSET, fake_quantize_dynamically, fake_quantize_in_blocks};
use onnxquant_passes::hard_sigmoid::fuse_hard_sigmoids;
use onnxquant_passes::integer::keep_float::keep_float;
use onnxquant_passes::integer::write_regions::{Conversion, write_regions};
use onnxquant_passes::layers::Decoding;
use onnxquant_passes::share_constants::{share_constants, stored_bytes};
use onnxquant_passes::sites::{LayerId, Site};
use onnxquant_passes::weight_form::{WeightForm, write_weight};
use onnxquant_passes::write_codes::{PackedWeight, write_codes};
use onnxquant_passes::write_dynamic::write_dynamic;
use onnxquant_passes::write_nbits::MICROSOFT;
use onnxquant_passes::write_static::write_static;
use onnxquant_quant::Granularity;

use crate::config::{Config, Target};
use crate::embeddings::{PlannedTable, TableReport, decode_tables, write_tables};
use crate::error::Error;
use crate::integer::{Form, IntegerPlan};
use crate::load::check;
use crate::plan::{Plan, PlannedLayer};
use crate::report::Report;

/// Metadata entries of a written model.
const SETTINGS_KEY: &str = "onnxquant.settings";
const CERTIFICATES_KEY: &str = "onnxquant.certificates";
const VERSION_KEY: &str = "onnxquant.version";
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

/// What stands in the file instead of float weights.
#[derive(Clone, Copy, Default)]
pub(crate) struct Codes<'a> {
    pub(crate) layers: &'a [(PlannedLayer, PackedWeight)],
    pub(crate) tables: &'a [(CodedTable, TableReport)],
    pub(crate) planned_tables: &'a [PlannedTable],
}

/// The model with codes instead of weights.
pub(crate) struct Written {
    pub(crate) model: Model,
    /// Every layer with the bytes of its codes, scales and zero points in the file; what several layers
    /// read counts for the first.
    pub(crate) layers: Vec<(LayerId, usize)>,
    /// The same bytes of every table.
    pub(crate) table_bytes: Vec<usize>,
}

/// A model for the engine that computes what the written model will: weights and activations take the values of
/// their codes.
pub(crate) fn evaluated(
    model: &Model,
    codes: Codes<'_>,
    integers: &IntegerPlan,
    arithmetic: Arithmetic,
) -> Result<Model, Error> {
    let mut evaluated = with_rounded_activations(model, integers);
    if arithmetic == Arithmetic::Runtime {
        round_inside(&mut evaluated, integers, codes.layers.iter().map(|(layer, _)| layer));
    }
    check(&evaluated, "converting activations")?;
    for (layer, weight) in codes.layers {
        write_codes(evaluated.graph_mut(), &layer.site, weight)?;
    }
    decode_tables(evaluated.graph_mut(), codes.tables, codes.planned_tables);
    Ok(evaluated)
}

/// A copy of `model` in which activations are rounded to the codes of `integers`, computed in floats.
pub(crate) fn with_rounded_activations(model: &Model, integers: &IntegerPlan) -> Model {
    let mut rounded = model.clone();
    write_regions(rounded.graph_mut(), &integers.regions, &integers.params, Conversion::Floats);
    let mut readers: BTreeMap<ValueId, Vec<(NodeId, usize)>> = BTreeMap::new();
    for layer in &integers.dynamic {
        if let Some(input) = rounded.graph().node(layer.node()).input(0) {
            readers.entry(input).or_default().push((layer.node(), 0));
        }
    }
    for (input, mut nodes) in readers {
        nodes.sort_unstable();
        fake_quantize_dynamically(rounded.graph_mut(), input, &nodes);
    }
    rounded
}

/// Lets `layers` whose weights alone are codes read their inputs as ONNX Runtime rounds them inside `MatMulNBits`.
pub(crate) fn round_inside<'a>(
    model: &mut Model,
    integers: &IntegerPlan,
    layers: impl Iterator<Item = &'a PlannedLayer>,
) {
    let opset = model.opset("").unwrap_or(0);
    let graph = model.graph_mut();
    let mut readers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for layer in layers.filter(|layer| integers.form(layer.site.id()) == Form::WeightOnly) {
        if let Some((input, block)) = graph.node(layer.site.node).input(0).zip(block_inside(layer)) {
            readers.entry((input, [layer.site.view.inputs(), block])).or_default().push((layer.site.node, 0));
        }
    }
    for ((input, sizes), nodes) in readers {
        fake_quantize_in_blocks(graph, opset, input, sizes, &nodes);
    }
}

/// Writes the codes of every layer into a copy of `model`, and the conversions of activations; tensors are shared,
/// not copied. The model has the opset of the plan already: raised here, its layers would have other ids.
pub(crate) fn written(model: &Model, plan: &Plan, codes: Codes<'_>, integers: &IntegerPlan) -> Result<Written, Error> {
    let present = model.opset("").unwrap_or(0);
    if present < plan.opset {
        return Err(Error::Internal(format!("codes that need opset {} in a model of opset {present}", plan.opset)));
    }
    let mut written = model.clone();
    if !codes.layers.is_empty() || !codes.tables.is_empty() {
        written.raise_ir_version(IR_WITH_PLAIN_INITIALIZERS);
        // Of several imports of one domain runtimes take this one or that: make them agree.
        written.set_opset("", plan.opset);
    }
    let decoded = write_regions(written.graph_mut(), &integers.regions, &integers.params, Conversion::Codes);
    check(&written, "converting activations")?;
    let mut uses_microsoft = false;
    let (mut dynamic, mut layers) = (Vec::new(), Vec::new());
    for (index, (layer, weight)) in codes.layers.iter().enumerate() {
        let (graph, site) = (written.graph_mut(), &layer.site);
        let stored = match integers.form(site.id()) {
            Form::WeightOnly => {
                if matches!(layer.form, WeightForm::NBits { .. }) {
                    uses_microsoft = true;
                }
                write_weight(graph, site, weight, layer.form)?
            }
            Form::Static { input_scale } => write_static(graph, site, weight, layer.integer_codes, input_scale)?,
            Form::Dynamic => {
                // It may read what a region decodes now.
                let input = graph.node(site.node).input(0).unwrap_or(site.input);
                dynamic.push((index, (Site { input, ..site.clone() }, weight.clone(), layer.integer_codes)));
                Vec::new()
            }
        };
        layers.push((site.id(), stored));
    }
    let (places, dynamic): (Vec<usize>, Vec<_>) = dynamic.into_iter().unzip();
    for (place, stored) in places.into_iter().zip(write_dynamic(written.graph_mut(), dynamic)?) {
        layers[place].1 = stored;
    }
    let coded = integers.regions.units.iter().map(|unit| unit.node).collect();
    keep_float(written.graph_mut(), &coded, &decoded);
    let table_bytes = write_tables(written.graph_mut(), codes.tables, codes.planned_tables)?;
    if uses_microsoft && written.opset(MICROSOFT).is_none() {
        written.set_opset(MICROSOFT, 1);
    }
    check(&written, "writing codes")?;
    if integers.aligns_channels() {
        align_channels(written.graph_mut(), integers.cpu())?;
    }
    share_tied(model.graph(), written.graph_mut(), codes.layers, integers, &mut layers)?;
    // What stayed in float.
    fuse_hard_sigmoids(&mut written)?;
    check(&written, "writing forms for the runtime")?;
    let layers = layers.iter().map(|(layer, stored)| (*layer, stored_bytes(written.graph(), stored))).collect();
    Ok(Written { model: written, layers, table_bytes })
}

/// Stores once what several layers have of one weight of `model`, where the runtime still fuses it.
fn share_tied(
    model: &Graph,
    written: &mut Graph,
    codes: &[(PlannedLayer, PackedWeight)],
    integers: &IntegerPlan,
    stored: &mut [(LayerId, Vec<ValueId>)],
) -> Result<(), Error> {
    let mut readers: BTreeMap<ValueId, Vec<&mut Vec<ValueId>>> = BTreeMap::new();
    for ((layer, _), (_, stored)) in codes.iter().zip(stored) {
        let of_its_own = layer.site.layer.decoding() == Decoding::Fused
            && matches!(layer.form, WeightForm::Dequantize(_))
            && integers.form(layer.site.id()) == Form::WeightOnly;
        if let Some(source) = source(model, layer.site.weight).filter(|_| !of_its_own) {
            readers.entry(source).or_default().push(stored);
        }
    }
    readers.into_values().try_for_each(|mut stored| Ok(share_constants(written, &mut stored)?))
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

/// Writes the model with its metadata; returns the bytes written.
pub(crate) fn write(model: &mut Model, path: &Path, report: &Report) -> Result<u64, Error> {
    if !report.layers.is_empty() || !report.embeddings.is_empty() {
        let json = |value: serde_json::Result<String>| value.map_err(|error| Error::Internal(error.to_string()));
        model.set_metadata(VERSION_KEY, report.version);
        model.set_metadata(SETTINGS_KEY, json(serde_json::to_string(&report.settings))?);
        model.set_metadata(CERTIFICATES_KEY, report.certificates_summary().to_string());
    }
    let external = if report.settings.external_data { ExternalData::Always } else { ExternalData::Auto };
    Ok(write_model(model, path, external)?)
}
