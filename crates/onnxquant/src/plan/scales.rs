//! Scales and zero points of tensors, from the distributions of their values over the calibration samples.

use std::collections::{BTreeSet, HashMap, HashSet};

use onnxquant_ir::{Graph, ValueId};
use onnxquant_passes::hard_sigmoid::floor;
use onnxquant_quant::{ActivationParams, Histogram, RangeMethod, choose_range, expected_square_error, signal_power};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Config;
use crate::error::Error;
use crate::plan::candidates::Candidates;
use crate::plan::exposed::unclipped;

/// Why a tensor has the range that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The values are known.
    Constant,
    /// The settings name the method.
    Settings,
    /// Of all methods this one, for all tensors, leaves the outputs of validation samples the least error.
    BestForAll,
    /// This tensor does better with a method of its own, on validation samples.
    BestForTensor,
    /// The tensor makes an output without a layer in between: its largest values are kept.
    MakesOutput,
}

/// What the codes of a tensor mean, and how that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) params: ActivationParams,
    pub(crate) range: RangeMethod,
    pub(crate) origin: Origin,
}

/// What the codes of tensors must obey.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) candidates: &'a Candidates,
    /// Tensors whose codes have 16 bits where those of others have 8.
    pub(crate) wide: &'a HashSet<ValueId>,
    pub(crate) config: &'a Config,
}

/// The scales of all tensors that a region may store as codes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scales {
    by_value: HashMap<ValueId, Scale>,
}

impl Scales {
    /// One method for all of `values`.
    pub(crate) fn uniform(
        rules: Rules<'_>,
        values: BTreeSet<ValueId>,
        histograms: &Histograms,
        range: RangeMethod,
        origin: Origin,
    ) -> Result<Self, Error> {
        let scale = |value: ValueId| {
            let constant = rules.graph.value(value).constant().is_some();
            let (range, origin) = if constant { (RangeMethod::MinMax, Origin::Constant) } else { (range, origin) };
            Ok((value, histograms.scale(rules, value, (range, origin))?))
        };
        // Of several failures the first value's is reported.
        let scales: Vec<Result<(ValueId, Scale), Error>> = values.into_par_iter().map(scale).collect();
        Ok(Self { by_value: scales.into_iter().collect::<Result<_, Error>>()? })
    }

    /// The same with methods of their own for some tensors.
    pub(crate) fn with(
        &self,
        rules: Rules<'_>,
        histograms: &Histograms,
        own: &[(ValueId, RangeMethod)],
    ) -> Result<Self, Error> {
        let mut scales = self.clone();
        for &(value, range) in own {
            scales.by_value.insert(value, histograms.scale(rules, value, (range, Origin::BestForTensor))?);
        }
        Ok(scales)
    }

    /// The same with the codes of `values` as `rules` want them now.
    pub(crate) fn again(
        &self,
        rules: Rules<'_>,
        histograms: &Histograms,
        values: &BTreeSet<ValueId>,
    ) -> Result<Self, Error> {
        let mut scales = self.clone();
        for &value in values {
            let old = *self.of(rules.graph, value)?;
            let params = histograms.params(rules, value, old.range)?;
            scales.by_value.insert(value, Scale { params, ..old });
        }
        Ok(scales)
    }

    /// The scale of `value`.
    pub(crate) fn of(&self, graph: &Graph, value: ValueId) -> Result<&Scale, Error> {
        self.by_value.get(&value).ok_or_else(|| unobserved(graph, value))
    }
}

fn unobserved(graph: &Graph, value: ValueId) -> Error {
    Error::Internal(format!("`{}` was not observed", graph.value(value).name()))
}

/// The distributions of tensors over the calibration samples.
#[derive(Debug, Default)]
pub(crate) struct Histograms {
    by_value: HashMap<ValueId, Histogram>,
}

impl FromIterator<(ValueId, Histogram)> for Histograms {
    fn from_iter<I: IntoIterator<Item = (ValueId, Histogram)>>(found: I) -> Self {
        Self { by_value: found.into_iter().collect() }
    }
}

impl Histograms {
    /// The scale that a method finds for `value`, or another one that clips nothing where nothing may be clipped.
    fn scale(&self, rules: Rules<'_>, value: ValueId, (range, origin): (RangeMethod, Origin)) -> Result<Scale, Error> {
        let keeps_all = rules.candidates.is_exposed(value) && rules.config.range.is_none();
        let allowed = if keeps_all { unclipped(range) } else { range };
        let origin = if allowed == range { origin } else { Origin::MakesOutput };
        Ok(Scale { params: self.params(rules, value, allowed)?, range: allowed, origin })
    }

    /// Scale and zero point that `range` finds for `value`.
    pub(crate) fn params(
        &self,
        rules: Rules<'_>,
        value: ValueId,
        range: RangeMethod,
    ) -> Result<ActivationParams, Error> {
        let Rules { graph, candidates, wide, config } = rules;
        let grid = config.activation_grid(wide.contains(&value));
        let (lower, upper) = choose_range(self.of(graph, value)?, range, grid);
        let lower = floor(graph, value).map_or(lower, |floor| lower.max(floor));
        let params = ActivationParams::from_range(lower, upper, grid);
        let by_softmax = graph.producer(value).is_some_and(|(_, node)| node.is("Softmax"));
        let params = if by_softmax { params.with_whole_reciprocal() } else { params };
        Ok(match candidates.ceiling(value) {
            _ if config.power_of_two => params.with_power_of_two(),
            // The runtime drops a Clip only if no code stands for more.
            Some(ceiling) => params.below(ceiling),
            None => params,
        })
    }

    /// The expected squared error of the codes over the mean square of the values.
    pub(crate) fn relative_error(&self, graph: &Graph, value: ValueId, params: ActivationParams) -> Result<f64, Error> {
        let histogram = self.of(graph, value)?;
        Ok(expected_square_error(histogram, params) / signal_power(histogram).max(f64::MIN_POSITIVE))
    }

    /// The distribution of `value`.
    pub(crate) fn of(&self, graph: &Graph, value: ValueId) -> Result<&Histogram, Error> {
        self.by_value.get(&value).ok_or_else(|| unobserved(graph, value))
    }
}
