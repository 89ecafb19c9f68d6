//! Decides what will be done with every layer, without doing it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{BodyId, Model, NodeId};
use onnxquant_passes::expose::BodyStep;
use onnxquant_passes::layers::{Decoding, holds_weights};
use onnxquant_passes::raise_opset::LOWEST_TARGET;
use onnxquant_passes::raise_type::RaisedType;
use onnxquant_passes::sites::{Candidate, Site, SkipReason, closed_sites, find_sites};
use onnxquant_passes::weight_form::{Codes, WeightForm};
use onnxquant_quant::Granularity;
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::{Activations, Budget, Config, NamedLayer, OwnCodes, Ruled, Selection};
use crate::error::Error;
use crate::plan::form::Wanted;
use crate::plan::outside::Around;
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
    /// What a rule says about the codes of this layer.
    pub(crate) own: OwnCodes,
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
#[derive(Clone, Debug, Serialize, JsonSchema)]
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
    /// Options that select single layers and match none: `--include GLOB`.
    pub unmatched: Vec<String>,
    /// Tables of embeddings, and weights that are decoded as a whole, to quantize.
    pub tables: Vec<PlannedTable>,
    /// Bodies that hold weights, in topological order.
    pub bodies: Vec<PlannedBody>,
    /// Opset of the written model: the least one for all bits that layers may get.
    pub opset: i64,
    /// Tensors that had another type before they became f32; what is left of them in float is stored in it.
    pub halves: Option<Arc<RaisedType>>,
}

/// A body of an If, Loop or Scan, as a model of its own.
#[derive(Clone, Debug)]
pub struct PlannedBody {
    /// Where it stands in the graph around it.
    pub(crate) place: BodyId,
    /// The same by names.
    pub(crate) step: BodyStep,
    /// What it computes, in float.
    pub(crate) model: Arc<Model>,
    /// What will be done in it.
    pub plan: Plan,
}

impl Plan {
    /// The plan for `model` under `config`.
    pub fn new(model: &Model, config: &Config) -> Result<Self, Error> {
        let mut selection = Selection::new(&config.include, &config.exclude)?;
        if !config.layer_rules.is_empty() {
            // A plan of bits need not list the layers that rules leave in float.
            let planless = Config { plan: None, ..config.clone() };
            let unruled = Self::of_graph(model, &planless, &selection, &Around::nothing())?;
            selection = selection.with_rules(Ruled::new(&config.layer_rules, &unruled.named(model)));
        }
        let mut plan = Self::of_graph(model, config, &selection, &Around::nothing())?;
        let skipped = plan.all_skipped().into_iter().map(|layer| layer.label.as_str());
        plan.unmatched = selection.unmatched(plan.labels().chain(skipped));
        plan.unmatched.extend(selection.unmatched_rules(plan.labels()));
        if let Some(file) = &config.plan {
            file.check_names(plan.labels())?;
        }
        plan.opset = plan.needed_opset(model, config)?;
        Ok(plan)
    }

    /// What will be done in one graph, and in its bodies.
    fn of_graph(model: &Model, config: &Config, selection: &Selection<'_>, around: &Around<'_>) -> Result<Self, Error> {
        let mut plan = Self {
            layers: Vec::new(),
            skipped: Vec::new(),
            unmatched: Vec::new(),
            tables: Vec::new(),
            bodies: Vec::new(),
            opset: model.opset("").unwrap_or(0),
            halves: None,
        };
        let candidates = find_sites(model);
        let labels = candidates.iter().filter_map(|found| Some((found.node?, found.label.clone()))).collect();
        for candidate in candidates {
            let outcome = candidate.outcome.and_then(|site| around.may_share(model.graph(), &site).map(|()| site));
            plan.add(config, selection, around, Candidate { outcome, ..candidate })?;
        }
        let planner = TablePlanner { graph: model.graph(), config, selection, labels: &labels };
        let (mut tables, reasons) = planner.plan();
        tables.retain(|planned| around.lets_go(model.graph(), planned.table.value));
        plan.tables = tables;
        plan.leave_to_tables(&reasons);
        for id in model.graph().bodies() {
            if !model.graph().body(&id).is_some_and(holds_weights) {
                continue;
            }
            let inside = around.inside(model, &id);
            let Some(body) = model.open_body(&id) else {
                for candidate in closed_sites(model.graph(), &id) {
                    plan.add(config, selection, &inside, Candidate { node: None, ..candidate })?;
                }
                continue;
            };
            let inner = Self::of_graph(&body, config, selection, &inside)?;
            let step = inside.step();
            plan.bodies.push(PlannedBody { place: id, step, model: Arc::new(body), plan: inner });
        }
        Ok(plan)
    }

    /// Adds a layer to those to quantize, or to those that stay in float.
    fn add(
        &mut self,
        config: &Config,
        selection: &Selection<'_>,
        around: &Around<'_>,
        candidate: Candidate,
    ) -> Result<(), Error> {
        let Candidate { node, label, op_type, weight_shape, outcome } = candidate;
        let label = around.label(label);
        let outcome = outcome.and_then(|site| match () {
            () if !selection.contains(&label) => Err(SkipReason::Excluded),
            () if !has_axis(&site, config) => Err(SkipReason::NoAxis),
            () => Ok(site),
        });
        match outcome {
            Ok(site) => {
                let own = selection.own_codes(&label);
                let of_all = config.plan.as_ref().map_or(Ok(config.bits), |plan| plan.bits_of(&label))?;
                self.layers.push(PlannedLayer::new(config, label, op_type, site, (of_all, false), own)?);
            }
            Err(reason) => self.skipped.push(SkippedLayer { node, label, op_type, weight_shape, reason }),
        }
        Ok(())
    }

    /// All layers to quantize: those of the main graph, then those of bodies.
    pub fn all_layers(&self) -> Vec<&PlannedLayer> {
        self.layers.iter().chain(self.all_bodies().into_iter().flat_map(|body| &body.plan.layers)).collect()
    }

    /// All layers that stay in float, in the same order.
    pub fn all_skipped(&self) -> Vec<&SkippedLayer> {
        self.skipped.iter().chain(self.all_bodies().into_iter().flat_map(|body| &body.plan.skipped)).collect()
    }

    /// All tables to quantize, in the same order.
    pub fn all_tables(&self) -> Vec<&PlannedTable> {
        self.tables.iter().chain(self.all_bodies().into_iter().flat_map(|body| &body.plan.tables)).collect()
    }

    /// All bodies, each before those inside it.
    pub(crate) fn all_bodies(&self) -> Vec<&PlannedBody> {
        self.bodies.iter().flat_map(|body| std::iter::once(body).chain(body.plan.all_bodies())).collect()
    }

    fn labels(&self) -> impl Iterator<Item = &str> {
        self.all_layers().into_iter().map(|layer| layer.label.as_str())
    }

    /// The layers to quantize, those whose weights tables hold among them: of the main graph in topological order, then
    /// of bodies.
    fn named(&self, model: &Model) -> Vec<NamedLayer> {
        let of_tables = self.tables.iter().flat_map(|planned| &planned.heads).map(String::as_str);
        let of_graph: HashSet<&str> = self.layers.iter().map(|layer| layer.label.as_str()).chain(of_tables).collect();
        let named = |label: &str, op_type: &str| NamedLayer { label: label.to_owned(), op_type: op_type.to_owned() };
        let candidates = find_sites(model);
        let candidates = candidates.iter().filter(|candidate| of_graph.contains(candidate.label.as_str()));
        let of_bodies = self.all_bodies().into_iter().flat_map(|body| &body.plan.layers);
        let of_graph = candidates.map(|candidate| named(&candidate.label, &candidate.op_type));
        of_graph.chain(of_bodies.map(|layer| named(&layer.label, &layer.op_type))).collect()
    }

    /// Leaves the layers to the tables that hold their weights; those whose tables stay floats say why.
    fn leave_to_tables(&mut self, reasons: &HashMap<NodeId, SkipReason>) {
        let is_left = |node: NodeId| self.tables.iter().any(|planned| planned.is_weight_of(node));
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

    /// The opset of the written model, where what `model` has is not enough. Only codes of weights need one where
    /// `auto` may not have that of activations.
    fn needed_opset(&self, model: &Model, config: &Config) -> Result<i64, Error> {
        match (self.least_opset(model, config), config.activations) {
            (Err(_), Activations::Auto) => self.least_opset(model, &config.with_float_activations()),
            (opset, _) => opset,
        }
    }

    /// The opset that all needs which `config` lets run on codes.
    fn least_opset(&self, model: &Model, config: &Config) -> Result<i64, Error> {
        let of_tables = self.all_tables().into_iter().map(|planned| planned.needed_opset()).max();
        let of_layers = self.all_layers().into_iter().map(|layer| layer.highest_opset(config));
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
        own: OwnCodes,
    ) -> Result<Self, Error> {
        let bits = own.bits.unwrap_or(bits);
        let granularity = granularity(&site, own.granularity.unwrap_or(config.granularity), config);
        let wanted = Wanted { config, bits, granularity, is_slow };
        let form = wanted.form(&label, &site)?;
        let (integer_codes, packed_type) = (wanted.byte_codes(&site), wanted.packed_type());
        Ok(Self { label, op_type, site, granularity, bits, own, is_slow, form, integer_codes, packed_type })
    }

    /// The same layer with other bits.
    pub(crate) fn with_bits(&self, config: &Config, bits: u32) -> Result<Self, Error> {
        let own = OwnCodes { bits: None, ..self.own };
        let (label, op_type, site) = (self.label.clone(), self.op_type.clone(), self.site.clone());
        Ok(Self { own: self.own, ..Self::new(config, label, op_type, site, (bits, self.is_slow), own)? })
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

/// Whether scales can lie as the target takes them: along one axis, of which outputs of a ConvTranspose in groups have none.
fn has_axis(site: &Site, config: &Config) -> bool {
    let has_own = site.view.is_dense() || site.view.plain_conv().is_some() || site.view.groups() == 1;
    has_own || config.granularity == Granularity::Tensor || !config.target.takes().is_strict
}

/// Blocks along K mean nothing to a convolution, whose inputs are channels times kernel positions.
fn granularity(site: &Site, wanted: Granularity, config: &Config) -> Granularity {
    let takes = config.target.takes();
    match (site.layer.decoding(), wanted) {
        _ if site.view.is_dense() && !takes.dense_by_channel => Granularity::Tensor,
        (Decoding::Folded, Granularity::Block(_)) => Granularity::Channel,
        (Decoding::Fused, Granularity::Block(size)) if size >= site.view.inputs() => Granularity::Channel,
        _ => wanted,
    }
}
