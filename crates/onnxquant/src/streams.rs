//! The float network and the one whose layers are quantized so far, side by side.
//!
//! Each layer is fitted so that the partly quantized network gives at its output what the float network gives there. So
//! both advance over the samples together, from stage to stage: the inputs of a stage's layers are gathered in both, the
//! layers are solved, and their codes join the second network before it goes on. Activations that will be codes are
//! rounded in it from the start, so that weights make up for that as well.

use std::ops::Range;

use ndarray::{ArrayD, Dimension};
use onnxquant_calib::{Network, PairRequest, Stream, collect_pairs, gram_bytes, inline_functions};
use onnxquant_ir::onnx::ModelProto;
use onnxquant_ir::{Model, ValueId, tensor};
use onnxquant_passes::add_to_bias::add_to_bias;
use onnxquant_quant::GramStats;

use crate::calibration::{Calibration, StageStats, request};
use crate::error::Error;
use crate::integer::IntegerPlan;
use crate::plan::PlannedLayer;
use crate::progress::{Phase, Progress};
use crate::write::with_rounded_activations;

/// Part of the memory limit that one stream may fill, at each of its two ends.
const STREAM_SHARE: u64 = 16;

/// By set of samples, by request, by group.
type Moments = Vec<Vec<Vec<GramStats>>>;

/// Both networks on their way.
pub(crate) struct Streams<'a> {
    calibration: &'a Calibration,
    model: &'a Model,
    float_proto: ModelProto,
    float: Stream,
    quantized_model: Model,
    quantized: Stream,
    /// Held-out samples are run as well.
    judged: bool,
}

impl<'a> Streams<'a> {
    /// At the networks' inputs. Held-out samples are gathered apart where results are `judged` on them.
    pub(crate) fn new(
        model: &'a Model,
        integers: &IntegerPlan,
        calibration: &'a Calibration,
        judged: bool,
        limit_bytes: u64,
    ) -> Result<Self, Error> {
        let mut samples = calibration.split.calibration.clone();
        if judged {
            samples.extend(&calibration.split.held_out);
        }
        samples.sort_unstable();
        samples.dedup();
        let limit = usize::try_from(limit_bytes / STREAM_SHARE).unwrap_or(usize::MAX);
        Ok(Self {
            calibration,
            model,
            float_proto: inline_functions(&model.to_proto())?,
            float: Stream::new(&samples, limit),
            quantized_model: with_rounded_activations(model, integers),
            quantized: Stream::new(&samples, limit),
            judged,
        })
    }

    /// Takes both networks to the inputs of `layers` and gathers their moments; `later` are the layers to come.
    pub(crate) fn statistics(
        &mut self,
        layers: &[PlannedLayer],
        later: &[PlannedLayer],
        progress: Progress<'_>,
    ) -> Result<StageStats, Error> {
        let split = &self.calibration.split;
        let sets = [&split.calibration[..], &split.held_out[..]];
        let (of_layer, mut stats) =
            self.advance(layers, later, if self.judged { &sets } else { &sets[..1] }, progress)?;
        let held_out = if self.judged { stats.pop() } else { None };
        let calibration = stats.pop().unwrap_or_default();
        Ok(StageStats { of_layer, calibration, held_out })
    }

    /// Takes both networks to the inputs of `layers`, which are solved already.
    ///
    /// They stop where they stopped when the layers were solved: the engine then computes the same numbers, bit by bit,
    /// whatever it fuses.
    pub(crate) fn pass(
        &mut self,
        layers: &[PlannedLayer],
        later: &[PlannedLayer],
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        self.advance(layers, later, &[], progress).map(drop)
    }

    /// The request of every layer, and the moments.
    fn advance(
        &mut self,
        layers: &[PlannedLayer],
        later: &[PlannedLayer],
        sets: &[&[usize]],
        progress: Progress<'_>,
    ) -> Result<(Vec<usize>, Moments), Error> {
        let mut requests: Vec<PairRequest> = Vec::new();
        let of_layer = layers.iter().map(|layer| self.request(layer)).collect::<Vec<_>>();
        for request in &of_layer {
            if !requests.contains(request) {
                requests.push(request.clone());
            }
        }
        let index = of_layer.iter().map(|request| requests.iter().position(|found| found == request));
        let index = index.map(|found| found.unwrap_or(0)).collect();
        let quantized_proto = inline_functions(&self.quantized_model.to_proto())?;
        let later: Vec<PairRequest> = later.iter().map(|layer| self.request(layer)).collect();
        let later_seen: Vec<String> = later.iter().map(|request| request.seen.value.clone()).collect();
        let later_float: Vec<String> = later.into_iter().map(|request| request.reference).collect();
        let report = |state: onnxquant_calib::Progress| progress(Phase::Calibrate, state.done, state.total);
        let stats = collect_pairs(
            Network { stream: &mut self.quantized, model: &quantized_proto, later: &later_seen },
            Network { stream: &mut self.float, model: &self.float_proto, later: &later_float },
            &self.calibration.data,
            sets,
            &requests,
            &report,
        )?;
        Ok((index, stats))
    }

    /// Puts a solved layer into the quantized network: its weight as the runtime will have it, and what is added to its
    /// bias.
    pub(crate) fn settle(&mut self, layer: &PlannedLayer, weight: &ArrayD<f32>, correction: &[f32]) {
        let site = &layer.site;
        let graph = self.quantized_model.graph_mut();
        let name = format!("{}_rounded", graph.value(site.weight).name());
        let numbers: Vec<f32> = weight.iter().copied().collect();
        let shape = weight.raw_dim();
        let value = graph.add_constant(&name, tensor::from_f32_as(site.dtype, shape.slice(), &numbers));
        graph.set_input(site.node, 1, Some(value));
        graph.remove_if_unused(site.weight);
        if correction.iter().any(|&c| c != 0.0) {
            add_to_bias(graph, site, correction);
        }
    }

    fn request(&self, layer: &PlannedLayer) -> PairRequest {
        let name = |model: &Model, value: ValueId| model.graph().value(value).name().to_owned();
        let mut seen = request(self.model, layer);
        let reference = std::mem::take(&mut seen.value);
        let node = self.quantized_model.graph().node(layer.site.node);
        seen.value = node.input(0).map_or(reference.clone(), |value| name(&self.quantized_model, value));
        PairRequest { seen, reference }
    }
}

/// Divides `layers` into stages: runs of layers that do not depend on each other, whose statistics fit `limit_bytes`.
pub(crate) fn stages(model: &Model, layers: &[PlannedLayer], limit_bytes: u64) -> Vec<Range<usize>> {
    let graph = model.graph();
    let mut behind = std::collections::HashSet::new();
    let (mut stages, mut start, mut next) = (Vec::new(), 0, 0);
    let mut requests = Vec::new();
    for &id in graph.order() {
        let node = graph.node(id);
        let layer = layers.get(next).filter(|layer| layer.site.node == id);
        if let Some(layer) = layer {
            let request = request(model, layer);
            let depends = node.input(0).is_some_and(|input| behind.contains(&input));
            let is_new = !requests.contains(&request);
            if is_new {
                requests.push(request.clone());
            }
            if start < next && (depends || (is_new && gram_bytes(&requests) > limit_bytes)) {
                stages.push(start..next);
                start = next;
                requests = vec![request];
                behind.clear();
            }
            next += 1;
        }
        let reads = node.inputs().iter().flatten().chain(node.captures());
        if layer.is_some() || reads.into_iter().any(|value| behind.contains(value)) {
            behind.extend(node.outputs().iter().flatten().copied());
        }
    }
    if start < layers.len() {
        stages.push(start..layers.len());
    }
    stages
}
