//! Layers that read one weight and can have one set of codes.
//!
//! # Problem
//!
//! Some networks use a weight many times: ALBERT one block twelve times, a filter bank one kernel at every octave. Were
//! each reader solved for itself, the file would hold a set of codes a reader, where it held one float weight.
//!
//! # Method
//!
//! Readers are tied where their matrices, their specs and the forms in which they are written are the same; strides and
//! padding may differ. Their codes are those for the rows of all of them together: the second moments of the inputs in
//! the float network are summed over the readers, weighted by rows. In the network that is quantized so far each reader
//! takes these codes, with a bias correction and a certificate of its own, from what it sees there.
//!
//! # Guarantee
//!
//! Of the error of all readers' outputs together, in the float network, what the method guarantees for one layer. The
//! certificate of a single reader claims no bound that rests on the sum.
//!
//! # Cost
//!
//! One more run of the float network, or as many as the memory limit makes of the statistics; none without tied layers.

use std::collections::HashMap;
use std::mem::discriminant;

use ndarray::Array3;
use onnxquant_ir::Graph;
use onnxquant_passes::add_to_bias::has_bias;
use onnxquant_passes::constant_chain::{same_numbers, source};
use onnxquant_passes::sites::Site;
use onnxquant_quant::{GramStats, QuantError};

use crate::error::Error;
use crate::observe::calibration::LayerStats;
use crate::plan::layers::PlannedLayer;
use crate::solve::job::{Job, layer_spec};
use crate::solve::source::Source;
use crate::solve::weights::{failed, weights};

/// Tied layers, by their places in the plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tied {
    /// Of two or more layers each, in the order of the plan.
    groups: Vec<Vec<usize>>,
    /// By layer.
    group: HashMap<usize, usize>,
}

/// What is gathered of one group.
pub(super) struct Sum {
    calibration: Vec<GramStats>,
    validation: Option<Vec<GramStats>>,
    /// Validation samples were to have statistics of their own, and no reader has rows in them.
    lacks_validation: bool,
}

impl Tied {
    /// The tied layers of a plan.
    pub(crate) fn find(job: Job<'_>, layers: &[PlannedLayer]) -> Result<Self, Error> {
        let graph = job.model.graph();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut by_source = HashMap::new();
        for (index, layer) in layers.iter().enumerate() {
            let known: &mut Vec<usize> = by_source.entry(source(graph, layer.site.weight)).or_default();
            let mut own = None;
            for &group in known.iter() {
                if alike(job, &layers[groups[group][0]], layer)? {
                    own = Some(group);
                    break;
                }
            }
            match own {
                Some(group) => groups[group].push(index),
                None => {
                    known.push(groups.len());
                    groups.push(vec![index]);
                }
            }
        }
        groups.retain(|group| group.len() > 1);
        let places = groups.iter().enumerate();
        let group = places.flat_map(|(place, group)| group.iter().map(move |&layer| (layer, place))).collect();
        Ok(Self { groups, group })
    }

    /// The layers that share codes with `layer`, itself among them.
    pub(crate) fn with(&self, layer: usize) -> Option<&[usize]> {
        self.group.get(&layer).map(|&group| self.groups[group].as_slice())
    }

    /// Whether the weight of a layer counts: of tied layers that of the first.
    pub(crate) fn is_first(&self, layer: usize) -> bool {
        self.with(layer).is_none_or(|group| group.first() == Some(&layer))
    }

    /// Tied layers together, the others of `layers` alone, in the order of the first of each.
    pub(crate) fn units(&self, layers: usize) -> Vec<Vec<usize>> {
        let unit = |layer: usize| match self.with(layer) {
            Some(group) => (group[0] == layer).then(|| group.to_vec()),
            None => Some(vec![layer]),
        };
        (0..layers).filter_map(unit).collect()
    }

    /// Every group with a reader at `from` or behind it goes through `solve`, with the weight and the statistics of all
    /// readers; the results come by the first layer of each.
    pub(crate) fn solve<T>(
        &self,
        job: Job<'_>,
        layers: &[PlannedLayer],
        from: usize,
        judged: bool,
        solve: impl Fn(&PlannedLayer, &Array3<f32>, Option<LayerStats<'_>>) -> Result<T, Error>,
    ) -> Result<HashMap<usize, T>, Error> {
        let Job { model, config, calibration, progress, .. } = job;
        let groups: Vec<&[usize]> = self
            .groups
            .iter()
            .map(Vec::as_slice)
            .filter(|group| group.last().is_some_and(|&last| last >= from))
            .collect();
        let readers: Vec<usize> = groups.concat();
        let planned: Vec<PlannedLayer> = readers.iter().map(|&reader| layers[reader].clone()).collect();
        let mut source = calibration.map_or(Source::Nowhere, |calibration| Source::float(calibration, judged));
        let mut ends = groups.iter().map(|group| group[group.len() - 1]);
        let (mut found, mut sum, mut end) = (HashMap::new(), None, ends.next());
        for stage in source.stages(model, &planned, config) {
            let stats = source.statistics(model, &planned[stage.clone()], &[], progress)?;
            for (at, place) in stage.enumerate() {
                let reader = readers[place];
                // Some layers have inputs that the engine cannot compute.
                if let Some(stats) = stats.as_ref().and_then(|stats| stats.of(at)) {
                    let added = Sum::with(sum.take(), &stats);
                    sum = Some(added.map_err(|error| failed(model, &planned[place], error))?);
                }
                if Some(reader) == end {
                    let group = self.with(reader).unwrap_or_default();
                    let layer = representative(model.graph(), layers, group).unwrap_or(&planned[place]);
                    let sum = sum.take();
                    let stats = sum.as_ref().map(Sum::stats);
                    found.insert(group[0], solve(layer, &weights(model, layer)?, stats)?);
                    end = ends.next();
                }
            }
        }
        Ok(found)
    }
}

impl Sum {
    pub(super) fn with(sum: Option<Self>, stats: &LayerStats<'_>) -> Result<Self, QuantError> {
        let others = stats.validation.filter(|_| !stats.lacks_validation);
        let Some(Self { calibration, validation, lacks_validation }) = sum else {
            let (calibration, validation) = (stats.calibration.to_vec(), others.map(<[_]>::to_vec));
            return Ok(Self { calibration, validation, lacks_validation: stats.lacks_validation });
        };
        let add = |sums: Vec<GramStats>, others: &[GramStats]| {
            sums.into_iter().zip(others).map(|(sum, other)| sum.with(other)).collect::<Result<Vec<_>, _>>()
        };
        // Some readers may have no validation rows.
        let validation = match (validation, others) {
            (Some(sums), Some(others)) => Some(add(sums, others)?),
            (sums, others) => sums.or_else(|| others.map(<[_]>::to_vec)),
        };
        let lacks_validation = lacks_validation && stats.lacks_validation;
        Ok(Self { calibration: add(calibration, stats.calibration)?, validation, lacks_validation })
    }

    pub(super) fn stats(&self) -> LayerStats<'_> {
        let instead = Some(self.calibration.as_slice()).filter(|_| self.lacks_validation);
        let validation = self.validation.as_deref().or(instead);
        LayerStats { calibration: &self.calibration, validation, lacks_validation: self.lacks_validation }
    }
}

/// The layer that stands for the group: one whose mean error no bias can make up for, if there is one.
fn representative<'a>(graph: &Graph, layers: &'a [PlannedLayer], group: &[usize]) -> Option<&'a PlannedLayer> {
    let mut readers = group.iter().map(|&reader| &layers[reader]);
    readers.clone().find(|layer| !has_bias(graph, &layer.site)).or_else(|| readers.next())
}

/// Whether two layers whose weights have one source can have the same codes.
fn alike(job: Job<'_>, a: &PlannedLayer, b: &PlannedLayer) -> Result<bool, Error> {
    let scheme = |layer: &PlannedLayer| discriminant(&job.assignment.form(layer.site.id()));
    let spec = |layer: &PlannedLayer| layer_spec(job, layer).map_err(|error| failed(job.model, layer, error));
    let form = |layer: &PlannedLayer| (layer.form, layer.integer_codes, layer.packed_type, layer.granularity);
    let same_form = scheme(a) == scheme(b) && form(a) == form(b) && spec(a)? == spec(b)?;
    Ok(same_form && same_matrix(job.model.graph(), &a.site, &b.site))
}

fn same_matrix(graph: &Graph, a: &Site, b: &Site) -> bool {
    let same_operator = a.layer.op_type() == b.layer.op_type();
    let same_view =
        if a.view.is_dense() { a.view == b.view } else { same_operator && a.view.groups() == b.view.groups() };
    same_view && a.view.weight_shape() == b.view.weight_shape() && same_numbers(graph, a.weight, b.weight)
}
