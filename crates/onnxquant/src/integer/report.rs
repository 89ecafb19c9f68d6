//! What was decided about integers, and why.

use onnxquant_ir::{Graph, ValueId};
use onnxquant_passes::integer::kernels::Kernel;

use super::{Form, IntegerPlan};
use crate::config::{Activations, Config};
use crate::plan::Plan;
use crate::report::{CacheReport, IntegerReport, LayerReport, TensorReport};

impl IntegerPlan {
    /// Says of every layer what becomes of its input, and of the model what runs on integers.
    pub(crate) fn report(
        &self,
        graph: &Graph,
        config: &Config,
        plan: &Plan,
        layers: &mut [LayerReport],
        cache: Option<CacheReport>,
    ) -> Option<IntegerReport> {
        if config.activations == Activations::Float {
            return None;
        }
        for (layer, planned) in layers.iter_mut().zip(&plan.layers) {
            layer.activations = match self.form(planned.site.id()) {
                Form::WeightOnly => "float",
                Form::Static { .. } => "static",
                Form::Dynamic => "dynamic",
            };
        }
        let static_layers = self.regions.units.iter().filter(|unit| unit.kernel == Kernel::Linear).count();
        Some(IntegerReport {
            static_layers,
            dynamic_layers: self.dynamic.len(),
            other_operators: self.regions.units.len() - static_layers,
            scales: self.regions.classes.len(),
            relative_time: self.regions.relative_time,
            rescaled: self.rescaled,
            equalized: self.equalized,
            tensors: self.regions.classes.iter().filter_map(|value| self.tensor(graph, *value)).collect(),
            cache,
            wanted_sqnr_db: config.wanted_sqnr_db(),
            max_loss: config.max_loss,
            sensitivity: self.retreat.sensitivity.clone(),
            trade: self.retreat.trade.clone(),
        })
    }
    fn tensor(&self, graph: &Graph, value: ValueId) -> Option<TensorReport> {
        let scale = self.scales().of(graph, value).ok()?;
        let relative_error = self.distributions().relative_error(graph, value, scale.params).ok()?;
        let name = graph.value(value).name().to_owned();
        Some(TensorReport { name, range: scale.range, why: scale.origin, params: scale.params, relative_error })
    }
}
