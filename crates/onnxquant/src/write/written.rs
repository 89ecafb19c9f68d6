//! The model as it is written: with codes instead of weights, and the conversions of activations.

use std::collections::BTreeMap;

use onnxquant_ir::{Graph, IR_WITH_PLAIN_INITIALIZERS, Model, ValueId};
use onnxquant_passes::align_channels::align_channels;
use onnxquant_passes::annotate::annotate;
use onnxquant_passes::constant_chain::source;
use onnxquant_passes::hard_sigmoid::fuse_hard_sigmoids;
use onnxquant_passes::integer::keep_float::keep_float;
use onnxquant_passes::integer::write_regions::{Conversion, write_regions};
use onnxquant_passes::layers::Decoding;
use onnxquant_passes::share_constants::{share_constants, stored_bytes};
use onnxquant_passes::sites::{LayerId, Site};
use onnxquant_passes::store_half::store_half;
use onnxquant_passes::weight_form::{WeightForm, write_weight};
use onnxquant_passes::write_caches::write_caches;
use onnxquant_passes::write_codes::PackedWeight;
use onnxquant_passes::write_dynamic::write_dynamic;
use onnxquant_passes::write_nbits::MICROSOFT;
use onnxquant_passes::write_static::write_static;

use crate::error::Error;
use crate::load::check;
use crate::plan::assignment::{Assignment, Form};
use crate::plan::layers::{Plan, PlannedLayer};
use crate::write::bodies::put_bodies;
use crate::write::codes::Codes;
use crate::write::tables::write_tables;

/// The model with codes instead of weights.
pub(crate) struct Written {
    pub(crate) model: Model,
    /// Every layer with the bytes of its codes, scales and zero points in the file; what several layers
    /// read counts for the first.
    pub(crate) layers: Vec<(LayerId, usize)>,
    /// The same bytes of every table.
    pub(crate) table_bytes: Vec<usize>,
}

/// Writes the codes of every layer into a copy of `model`, and the conversions of activations; tensors are shared,
/// not copied. The model has the opset of the plan already: raised here, its layers would have other ids.
pub(crate) fn written(model: &Model, plan: &Plan, codes: Codes<'_>, assignment: &Assignment) -> Result<Written, Error> {
    let present = model.opset("").unwrap_or(0);
    if present < plan.opset {
        return Err(Error::Internal(format!("codes that need opset {} in a model of opset {present}", plan.opset)));
    }
    let mut written = model.clone();
    if !codes.is_empty() {
        written.raise_ir_version(IR_WITH_PLAIN_INITIALIZERS);
        // Of several imports of one domain runtimes take this one or that: make them agree.
        written.set_opset("", plan.opset);
    }
    put_bodies(&mut written, codes, &|float, planned, codes| {
        Ok(self::written(float, &planned.plan, codes, &Assignment::default())?.model)
    })?;
    let decoded = write_regions(written.graph_mut(), assignment.regions(), assignment.params(), Conversion::Codes);
    check(&written, "converting activations")?;
    let mut uses_microsoft = codes.planned_tables.iter().any(|planned| !planned.heads.is_empty());
    let (mut dynamic, mut layers) = (Vec::new(), Vec::new());
    for (index, (layer, weight)) in codes.layers.iter().enumerate() {
        let (graph, site) = (written.graph_mut(), &layer.site);
        let stored = match assignment.form(site.id()) {
            Form::WeightOnly => {
                if matches!(layer.form, WeightForm::NBits { .. }) {
                    uses_microsoft = true;
                }
                write_weight(graph, site, weight, layer.form)?
            }
            Form::Static { input_scale } => {
                let of_bias = assignment.has_int32_biases().then_some(input_scale);
                write_static(graph, site, weight, layer.integer_codes, of_bias)?
            }
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
    let coded = assignment.regions().units.iter().map(|unit| unit.node).collect();
    keep_float(written.graph_mut(), &coded, &decoded);
    write_caches(written.graph_mut(), assignment.caches())?;
    let table_bytes = write_tables(written.graph_mut(), codes.tables, codes.planned_tables)?;
    if let Some(halves) = &plan.halves {
        store_half(written.graph_mut(), halves)?;
    }
    if uses_microsoft && written.opset(MICROSOFT).is_none() {
        written.set_opset(MICROSOFT, 1);
    }
    check(&written, "writing codes")?;
    if assignment.aligns_channels() {
        align_channels(written.graph_mut(), assignment.cpu())?;
    }
    share_tied(model.graph(), written.graph_mut(), codes.layers, assignment, &mut layers)?;
    // What stayed in float.
    fuse_hard_sigmoids(&mut written)?;
    check(&written, "writing forms for the runtime")?;
    if !assignment.regions().units.is_empty() {
        annotate(written.graph_mut());
    }
    let layers = layers.iter().map(|(layer, stored)| (*layer, stored_bytes(written.graph(), stored))).collect();
    Ok(Written { model: written, layers, table_bytes })
}

/// The bodies with codes instead of weights, each before those inside it.
pub(crate) fn written_bodies(codes: Codes<'_>) -> Result<Vec<Written>, Error> {
    let mut found = Vec::new();
    for (planned, body) in codes.planned_bodies.iter().zip(codes.bodies) {
        let codes = body.codes(planned);
        found.push(written(&planned.model, &planned.plan, codes, &Assignment::default())?);
        found.extend(written_bodies(codes)?);
    }
    Ok(found)
}

/// Stores once what several layers have of one weight of `model`, where the runtime still fuses it.
fn share_tied(
    model: &Graph,
    written: &mut Graph,
    codes: &[(PlannedLayer, PackedWeight)],
    assignment: &Assignment,
    stored: &mut [(LayerId, Vec<ValueId>)],
) -> Result<(), Error> {
    let mut readers: BTreeMap<ValueId, Vec<&mut Vec<ValueId>>> = BTreeMap::new();
    for ((layer, _), (_, stored)) in codes.iter().zip(stored) {
        let of_its_own = layer.site.layer.decoding() == Decoding::Fused
            && matches!(layer.form, WeightForm::Dequantize(_))
            && assignment.form(layer.site.id()) == Form::WeightOnly;
        if let Some(source) = source(model, layer.site.weight).filter(|_| !of_its_own) {
            readers.entry(source).or_default().push(stored);
        }
    }
    readers.into_values().try_for_each(|mut stored| Ok(share_constants(written, &mut stored)?))
}
