//! How large the written file will be.

use std::collections::HashSet;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Model, ValueId};
use onnxquant_passes::constant_chain;
use onnxquant_passes::weight_form::WeightForm;
use onnxquant_quant::{Granularity, Symmetry};

use crate::config::{Activations, Budget, Config};
use crate::plan::layers::{Plan, PlannedLayer};
use crate::plan::tables::PlannedTable;

/// Bytes of a scale.
const SCALE_BYTES: f64 = 4.0;
/// Bytes that the operators of a layer's codes take, their names among them.
const OPERATOR_BYTES: f64 = 500.0;

/// About so many bytes: those of the float file, less the weights that become codes, and the codes.
pub(super) fn expected(model: &Model, plan: &Plan, config: &Config, bytes_before: u64) -> u64 {
    let own = of_plan(model.graph(), plan, config);
    let bodies = plan.all_bodies().into_iter().map(|body| of_plan(body.model.graph(), &body.plan, config));
    let (gone, made) = bodies.fold(own, |(gone, made), (more_gone, more_made)| (gone + more_gone, made + more_made));
    let after = (bytes_before as f64 - gone + made).max(0.0);
    match config.budget {
        Some(Budget::TargetBytes(most)) => (after as u64).min(most),
        _ => after as u64,
    }
}

/// Bytes of a float of this type.
fn width(dtype: DataType) -> f64 {
    match dtype {
        DataType::Float16 | DataType::Bfloat16 => 2.0,
        DataType::Double => 8.0,
        _ => 4.0,
    }
}

/// Bytes of floats that go and bytes of codes that come, in one graph.
fn of_plan(graph: &Graph, plan: &Plan, config: &Config) -> (f64, f64) {
    let (mut known, mut gone, mut made): (HashSet<ValueId>, f64, f64) = (HashSet::new(), 0.0, 0.0);
    for layer in &plan.layers {
        let source = constant_chain::source(graph, layer.site.weight).unwrap_or(layer.site.weight);
        made += OPERATOR_BYTES;
        if known.insert(source) {
            // Halves are stored as they were, though they are computed as floats.
            let width = if plan.halves.is_some() { 2.0 } else { width(layer.site.dtype) };
            gone += layer.site.parameters() as f64 * width;
            made += of_layer(layer, config);
        }
    }
    let of_table = |planned: &PlannedTable| {
        let [rows, columns] = planned.table.dims.map(|length| length as f64);
        let scales = planned.block.map_or(rows, |block| rows * (columns / block as f64).ceil());
        let width = if plan.halves.is_some() { 2.0 } else { 4.0 };
        (rows * columns * width, rows * columns * f64::from(planned.bits) / 8.0 + scales * SCALE_BYTES + OPERATOR_BYTES)
    };
    plan.tables.iter().map(of_table).fold((gone, made), |(gone, made), (floats, codes)| (gone + floats, made + codes))
}

/// Bytes of a layer's codes and scales.
fn of_layer(layer: &PlannedLayer, config: &Config) -> f64 {
    let (parameters, outputs) = (layer.site.parameters() as f64, layer.site.view.outputs() as f64);
    let (groups, inputs) = (layer.site.view.groups() as f64, layer.site.view.inputs() as f64);
    let scales = match (layer.form, layer.granularity) {
        (WeightForm::NBits { block, .. }, _) => outputs * (inputs / block as f64).ceil(),
        (_, Granularity::Tensor) => 1.0,
        (_, Granularity::Channel) => outputs * groups,
        (_, Granularity::Block(size)) => outputs * (inputs / size as f64).ceil(),
    };
    let is_on_codes = matches!(config.activations, Activations::Static | Activations::Dynamic);
    let stored = if is_on_codes { layer.integer_codes.bits() } else { layer.form.stored_bits() };
    let bits = match config.budget {
        Some(Budget::AverageBits(bits)) => bits,
        _ => f64::from(stored),
    };
    let zero_points = if config.symmetry == Symmetry::Asymmetric { scales } else { 0.0 };
    parameters * bits / 8.0 + scales * SCALE_BYTES + zero_points
}
