//! Scales and zero points of tensors, from the distributions of their values over the calibration samples.

use std::collections::{BTreeSet, HashMap};

use onnxquant_ir::{Graph, Model, ValueId, tensor};
use onnxquant_passes::hard_sigmoid::floor;
use onnxquant_quant::{ActivationParams, Histogram, RangeMethod, choose_range, expected_square_error, signal_power};
use rayon::prelude::*;
use serde::Serialize;

use super::IntegerPlan;
use super::plan::values_of;
use crate::config::Config;
use crate::error::Error;
use crate::observe::Observer;

/// Why a tensor has the range that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The values are known.
    Constant,
    /// The settings name the method.
    Settings,
    /// Of all methods this one, for all tensors, leaves the outputs of held-out samples the least error.
    BestForAll,
    /// This tensor does better with a method of its own, on held-out samples.
    BestForTensor,
}

/// What the codes of a tensor mean, and how that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) params: ActivationParams,
    pub(crate) range: RangeMethod,
    pub(crate) origin: Origin,
}

/// The scales of all tensors that a region may store as codes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scales {
    by_value: HashMap<ValueId, Scale>,
}

impl Scales {
    /// One method for all tensors that the regions of `integers` may store as codes.
    pub(super) fn uniform(
        graph: &Graph,
        integers: &IntegerPlan,
        histograms: &Histograms,
        range: RangeMethod,
        origin: Origin,
        config: &Config,
    ) -> Result<Self, Error> {
        let scale = |value: ValueId| {
            let constant = graph.value(value).constant().is_some();
            let (range, origin) = if constant { (RangeMethod::MinMax, Origin::Constant) } else { (range, origin) };
            let params = histograms.params(graph, integers, value, range, config)?;
            Ok((value, Scale { params, range, origin }))
        };
        // Of several failures the first value's is reported.
        let scales: Vec<Result<(ValueId, Scale), Error>> = touched(integers).into_par_iter().map(scale).collect();
        Ok(Self { by_value: scales.into_iter().collect::<Result<_, Error>>()? })
    }

    /// The same with methods of their own for some tensors.
    pub(super) fn with(
        &self,
        graph: &Graph,
        integers: &IntegerPlan,
        histograms: &Histograms,
        own: &[(ValueId, RangeMethod)],
        config: &Config,
    ) -> Result<Self, Error> {
        let mut scales = self.clone();
        for &(value, range) in own {
            let params = histograms.params(graph, integers, value, range, config)?;
            scales.by_value.insert(value, Scale { params, range, origin: Origin::BestForTensor });
        }
        Ok(scales)
    }

    /// The same with the codes of `values` as `integers` wants them now.
    pub(super) fn again(
        &self,
        graph: &Graph,
        integers: &IntegerPlan,
        values: &BTreeSet<ValueId>,
        config: &Config,
    ) -> Result<Self, Error> {
        let mut scales = self.clone();
        for &value in values {
            let old = *self.of(graph, value)?;
            let params = integers.distributions().params(graph, integers, value, old.range, config)?;
            scales.by_value.insert(value, Scale { params, ..old });
        }
        Ok(scales)
    }

    /// The scale of `value`.
    pub(super) fn of(&self, graph: &Graph, value: ValueId) -> Result<&Scale, Error> {
        self.by_value.get(&value).ok_or_else(|| unobserved(graph, value))
    }
}

fn unobserved(graph: &Graph, value: ValueId) -> Error {
    Error::Internal(format!("`{}` was not observed", graph.value(value).name()))
}

/// The values that the regions read and make.
fn touched(integers: &IntegerPlan) -> BTreeSet<ValueId> {
    integers.regions.units.iter().flat_map(values_of).collect()
}

/// The distributions of tensors over the calibration samples.
#[derive(Debug, Default)]
pub(crate) struct Histograms {
    by_value: HashMap<ValueId, Histogram>,
}

impl Histograms {
    /// Of all tensors that the regions of `integers` read and make, over at most so many samples.
    pub(super) fn observe(
        model: &Model,
        integers: &IntegerPlan,
        observer: &Observer<'_>,
        most_samples: usize,
    ) -> Result<Self, Error> {
        let graph = model.graph();
        let (constants, values): (Vec<ValueId>, Vec<ValueId>) =
            touched(integers).into_iter().partition(|value| graph.value(*value).constant().is_some());
        let mut found = Self::default();
        for value in constants {
            let mut histogram = Histogram::new();
            if let Some(constant) = graph.value(value).constant() {
                histogram.push(&tensor::to_f32(constant)?)?;
            }
            found.by_value.insert(value, histogram);
        }
        let names: Vec<String> = values.iter().map(|value| graph.value(*value).name().to_owned()).collect();
        let histograms = observer.histograms(model, &names, most_samples)?;
        found.by_value.extend(values.into_iter().zip(histograms));
        Ok(found)
    }

    /// Scale and zero point that `range` finds for `value`.
    pub(super) fn params(
        &self,
        graph: &Graph,
        integers: &IntegerPlan,
        value: ValueId,
        range: RangeMethod,
        config: &Config,
    ) -> Result<ActivationParams, Error> {
        let grid = config.activation_grid(integers.is_wide(value));
        let (lower, upper) = choose_range(self.of(graph, value)?, range, grid);
        let lower = floor(graph, value).map_or(lower, |floor| lower.max(floor));
        let params = ActivationParams::from_range(lower, upper, grid);
        let by_softmax = graph.producer(value).is_some_and(|(_, node)| node.is("Softmax"));
        let params = if by_softmax { params.with_whole_reciprocal() } else { params };
        Ok(match integers.ceiling(value) {
            _ if config.power_of_two => params.with_power_of_two(),
            // The runtime drops a Clip only if no code stands for more.
            Some(ceiling) => params.below(ceiling),
            None => params,
        })
    }

    /// The expected squared error of the codes over the mean square of the values.
    pub(super) fn relative_error(&self, graph: &Graph, value: ValueId, params: ActivationParams) -> Result<f64, Error> {
        let histogram = self.of(graph, value)?;
        Ok(expected_square_error(histogram, params) / signal_power(histogram).max(f64::MIN_POSITIVE))
    }

    fn of(&self, graph: &Graph, value: ValueId) -> Result<&Histogram, Error> {
        self.by_value.get(&value).ok_or_else(|| unobserved(graph, value))
    }
}
