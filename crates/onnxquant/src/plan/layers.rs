//! Decides what will be done with every layer, without doing it.

use std::collections::HashMap;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, NodeId};
use onnxquant_passes::layers::Decoding;
use onnxquant_passes::raise_opset::LOWEST_TARGET;
use onnxquant_passes::sites::{Site, SkipReason, find_sites};
use onnxquant_passes::weight_form::{Codes, WeightForm};
use onnxquant_quant::Granularity;
use serde::Serialize;

use crate::config::{Activations, Budget, Config, Selection};
use crate::error::Error;
use crate::plan::form::Wanted;
use crate::plan::tables::{PlannedTable, TablePlanner};

/// A layer that will be quantized.
#[derive(Clone, Debug)]
pub struct PlannedLayer {
    /// What people call it; no other layer is called so.
    pub label: String,
    /// Its operator.
    pub op_type: String,
    /// Where it is and how it is read.
    pub site: Site,
    /// Which weights share a scale: as configured, but never blocks in a convolution.
    pub granularity: Granularity,
    /// Bits a weight.
    pub bits: u32,
    /// `MatMulNBits` of 8 bits would be slower than floats for as many rows as the samples have.
    pub is_slow: bool,
    /// The form of the weight where activations are floats.
    pub form: WeightForm,
    /// How the codes are stored where activations are integers.
    pub integer_codes: Codes,
    /// The smallest type that holds the codes.
    pub packed_type: DataType,
}

/// A layer that stays in float.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedLayer {
    /// Its node, where that is one of the main graph.
    #[serde(skip)]
    pub node: Option<NodeId>,
    /// The node's name, or its first output's.
    pub label: String,
    /// Its operator.
    pub op_type: String,
    /// Shape of the weight, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_shape: Option<Vec<usize>>,
    /// Why.
    #[serde(flatten)]
    pub reason: SkipReason,
}

/// What will be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Layers to quantize, in topological order.
    pub layers: Vec<PlannedLayer>,
    /// Layers that stay in float, in the same order.
    pub skipped: Vec<SkippedLayer>,
    /// Options that select layers by name and match none: `--include GLOB`.
    pub unmatched: Vec<String>,
    /// Tables of embeddings and weights of recurrent layers to quantize.
    pub tables: Vec<PlannedTable>,
    /// Opset of the written model: the least one for all bits that layers may get.
    pub opset: i64,
}

impl Plan {
    /// The plan for `model` under `config`.
    pub fn new(model: &Model, config: &Config) -> Result<Self, Error> {
        let selection = Selection::new(&config.include, &config.exclude)?;
        let (mut layers, mut skipped) = (Vec::new(), Vec::new());
        let candidates = find_sites(model);
        let labels = candidates.iter().filter_map(|found| Some((found.node?, found.label.clone()))).collect();
        let unmatched = selection.unmatched(candidates.iter().map(|candidate| candidate.label.as_str()));
        for candidate in candidates {
            let outcome = candidate.outcome.and_then(|site| match selection.contains(&candidate.label) {
                true => Ok(site),
                false => Err(SkipReason::Excluded),
            });
            let (label, op_type, weight_shape) = (candidate.label, candidate.op_type, candidate.weight_shape);
            match outcome {
                Ok(site) => {
                    let bits = config.plan.as_ref().map_or(Ok(config.bits), |plan| plan.bits_of(&label))?;
                    layers.push(PlannedLayer::new(config, label, op_type, site, (bits, false))?);
                }
                Err(reason) => {
                    skipped.push(SkippedLayer { node: candidate.node, label, op_type, weight_shape, reason });
                }
            }
        }
        if let Some(plan) = &config.plan {
            plan.check_names(layers.iter().map(|layer| layer.label.as_str()))?;
        }
        let planner = TablePlanner { graph: model.graph(), config, selection: &selection, labels: &labels };
        let (tables, reasons) = planner.plan();
        let mut plan = Self { layers, skipped, unmatched, tables, opset: 0 };
        plan.leave_to_tables(&reasons);
        plan.opset = plan.needed_opset(model, config)?;
        Ok(plan)
    }

    /// Leaves the layers to the tables that hold their weights; those whose tables stay floats say why.
    fn leave_to_tables(&mut self, reasons: &HashMap<NodeId, SkipReason>) {
        let is_left = |node: NodeId| self.tables.iter().any(|planned| planned.has_head(node));
        self.layers.retain(|layer| !is_left(layer.site.node));
        self.skipped.retain(|layer| !layer.node.is_some_and(is_left));
        for layer in &mut self.skipped {
            if let Some(reason) = layer.node.and_then(|node| reasons.get(&node)) {
                layer.reason = reason.clone();
            }
        }
    }

    /// Gives every layer bits of its own, in the order of the layers.
    pub(crate) fn set_bits(&mut self, config: &Config, bits: &[u32]) -> Result<(), Error> {
        for (layer, &bits) in self.layers.iter_mut().zip(bits) {
            *layer = layer.with_bits(config, bits)?;
        }
        Ok(())
    }

    /// The opset of the written model, where what `model` has is not enough.
    fn needed_opset(&self, model: &Model, config: &Config) -> Result<i64, Error> {
        let of_tables = self.tables.iter().map(|planned| planned.table.needed_opset(planned.bits)).max();
        let of_layers = self.layers.iter().map(|layer| layer.highest_opset(config));
        let of_layers = of_layers.collect::<Result<Vec<i64>, Error>>()?.into_iter().max();
        let of_activations = of_layers.map_or(0, |_| config.activation_opset());
        let of_codes = of_tables.max(of_layers).unwrap_or(0);
        let present = model.opset("").unwrap_or(0);
        let needed = of_codes.max(of_activations);
        let opset = if needed > present { needed.max(LOWEST_TARGET) } else { present };
        if opset <= config.opset_max || opset <= present {
            return Ok(opset);
        }
        let most = config.opset_max;
        let coarser = if config.alphabet.is_integers() { "choose a coarser granularity, or " } else { "" };
        Err(Error::Usage(match of_activations > of_codes {
            true => format!("integer activations need opset {opset}, but at most {most} is allowed"),
            false => format!(
                "the codes need opset {opset}, but at most {most} is allowed: {coarser}allow a higher opset with \
                 --opset-max"
            ),
        }))
    }
}

impl PlannedLayer {
    fn new(
        config: &Config,
        label: String,
        op_type: String,
        site: Site,
        (bits, is_slow): (u32, bool),
    ) -> Result<Self, Error> {
        let granularity = granularity(&site, config.granularity);
        let wanted = Wanted { config, bits, granularity, is_slow };
        let form = wanted.form(&label, &site)?;
        let (integer_codes, packed_type) = (wanted.byte_codes(&site), wanted.packed_type());
        Ok(Self { label, op_type, site, granularity, bits, is_slow, form, integer_codes, packed_type })
    }

    /// The same layer with other bits.
    pub(crate) fn with_bits(&self, config: &Config, bits: u32) -> Result<Self, Error> {
        Self::new(config, self.label.clone(), self.op_type.clone(), self.site.clone(), (bits, self.is_slow))
    }

    /// The same layer, whose codes of 8 bits are to be slower than floats in `MatMulNBits`.
    pub(crate) fn slow(&self, config: &Config) -> Result<Self, Error> {
        Self { is_slow: true, ..self.clone() }.with_bits(config, self.bits)
    }

    /// What the written layer needs with any of the bits that it may get.
    fn highest_opset(&self, config: &Config) -> Result<i64, Error> {
        if config.budget.is_none() {
            return Ok(self.needed_opset(config.activations));
        }
        let needed = |bits| Ok(self.with_bits(config, bits)?.needed_opset(config.activations));
        let needed = Budget::WIDTHS.into_iter().map(needed).collect::<Result<Vec<i64>, Error>>()?;
        Ok(needed.into_iter().max().unwrap_or(0))
    }

    /// What the written layer needs with the bits that it has.
    fn needed_opset(&self, activations: Activations) -> i64 {
        let of_form = self.form.needed_opset(&self.site, self.granularity);
        match activations {
            Activations::Float => of_form,
            _ => of_form.max(self.integer_codes.needed_opset()),
        }
    }
}

/// Blocks along K mean nothing to a convolution, whose inputs are channels times kernel positions.
fn granularity(site: &Site, wanted: Granularity) -> Granularity {
    match (site.layer.decoding(), wanted) {
        (Decoding::Folded, Granularity::Block(_)) => Granularity::Channel,
        (Decoding::Fused, Granularity::Block(size)) if size >= site.view.inputs() => Granularity::Channel,
        _ => wanted,
    }
}
