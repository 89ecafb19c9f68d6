//! The float network and the one whose layers are quantized so far, side by side.
//!
//! Each layer is fitted so that the partly quantized network gives at its output what the float network gives there. So
//! both advance over the samples together, from stage to stage: the inputs of a stage's layers are gathered in both, the
//! layers are solved, and their codes join the second network before it goes on. While some samples have rows enough for
//! the layers, as early convolutions of a picture have, the others wait at the inputs.
//!
//! Activations and embeddings that will be codes are rounded in the second network from the start, so that weights make up
//! for that as well. So is what ONNX Runtime rounds inside a layer; there the layer itself is fitted to its input as it is
//! before: fitted to inputs that are rounded for it alone, layers with few rows learn the noise.
//!
//! In the end both give their outputs for held-out samples, by which the model is judged: no network is ever run as a
//! whole, so that only the weights of one stage are in memory as floats.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use onnxquant_calib::{
    CalibError, CalibSet, ComparisonSums, CutShapes, LayerMoments, Network, PairRequest, PartComparison, StatKind,
    Stream, TakePart, collect_pair_parts, collect_pairs, compare_stream_parts, count_parts, gram_bytes,
};
use onnxquant_ir::onnx::ModelProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, ValueId, tensor};
use onnxquant_passes::add_to_bias::add_to_bias;
use onnxquant_passes::sites::{LayerId, Site};
use onnxquant_passes::write_codes::PackedWeight;

use crate::config::{Config, Duty};
use crate::error::Error;
use crate::judge::held_out::Compared;
use crate::load::{decode, without_functions};
use crate::observe::calibration::{Calibration, StageStats, distinct, request};
use crate::plan::assignment::Assignment;
use crate::plan::layers::{Plan, PlannedLayer};
use crate::progress::{Phase, Progress};
use crate::solve::parts::add_comparison;
use crate::solve::selected::selected;
use crate::write::codes::{Codes, QuantizedBody, QuantizedTable};
use crate::write::evaluated::{Arithmetic, round_inside, with_bodies, with_rounded_activations};
use crate::write::tables::decode_tables;

/// Part of the memory limit that one stream may fill, at each of its two ends.
const STREAM_SHARE: u64 = 16;
/// Calibration samples that go from stage to stage where layers are fitted. The others wait until these have too few
/// rows for a layer.
const FIRST_JUDGED: usize = 128;
/// The same where weights are rounded.
const FIRST_ROUNDED: usize = 64;

/// Both networks on their way.
pub(crate) struct Streams<'a> {
    calibration: &'a Calibration,
    model: &'a Model,
    /// Into how many parts the samples are divided, and which of them are run here.
    parts: usize,
    own: Range<usize>,
    float_proto: ModelProto,
    float: Stream,
    quantized_model: Model,
    quantized: Stream,
    /// What layers are fitted to, by name.
    inputs: HashMap<LayerId, String>,
    /// Validation samples have statistics of their own. Without, weights are rounded and not fitted.
    judged: bool,
    /// Layers that are solved.
    settled: Vec<Settled>,
    /// Values that the engine cannot compute.
    behind: HashSet<ValueId>,
    /// Values whose rows data select.
    selected: HashSet<ValueId>,
}

/// A weight that was put into the quantized network.
struct Settled {
    /// The float numbers; absent once the layer has been run on all samples.
    value: ValueId,
    output: String,
    site: Site,
    weight: PackedWeight,
}

impl<'a> Streams<'a> {
    /// At the networks' inputs. Validation samples are gathered apart where results are `judged` on them.
    pub(crate) fn new(
        model: &'a Model,
        assignment: &Assignment,
        plan: &Plan,
        (tables, bodies): (&[QuantizedTable], &[QuantizedBody]),
        calibration: &'a Calibration,
        judged: bool,
        config: &Config,
    ) -> Result<Self, Error> {
        let arithmetic = Arithmetic::of(config, model);
        let inside = Codes { bodies, planned_bodies: &plan.bodies, ..Codes::default() };
        let mut quantized_model = with_rounded_activations(&with_bodies(model, inside, arithmetic)?, assignment)?;
        let input = |layer: &PlannedLayer| {
            let graph = quantized_model.graph();
            let input = graph.node(layer.site.node).input(0)?;
            Some((layer.site.id(), graph.value(input).name().to_owned()))
        };
        let inputs = plan.layers.iter().filter_map(input).collect();
        if arithmetic == Arithmetic::Runtime {
            round_inside(&mut quantized_model, assignment, plan.layers.iter(), &plan.tables);
        }
        decode_tables(quantized_model.graph_mut(), tables, &plan.tables)?;
        decode(&mut quantized_model)?;
        let mut float_model = model.clone();
        decode(&mut float_model)?;
        let (first, waiting) = calibration.samples.divide(if judged { FIRST_JUDGED } else { FIRST_ROUNDED }, judged);
        let limit = usize::try_from(config.memory_limit_bytes / STREAM_SHARE).unwrap_or(usize::MAX);
        let parts = count_parts(first.len());
        let own = match &config.shard {
            Some(shard) if shard.duty() == Duty::Calibrate => shard.parts(parts),
            Some(shard) if shard.duty() == Duty::Solve => 0..0,
            _ => 0..parts,
        };
        let engine = &calibration.samples.engine;
        let stream = || Stream::of_parts(engine.clone(), (&first, &waiting), own.clone(), limit);
        let (float, quantized) = (stream(), stream());
        Ok(Self {
            calibration,
            model,
            parts,
            own,
            float_proto: without_functions(&float_model)?,
            float,
            quantized_model,
            quantized,
            inputs,
            judged,
            settled: Vec::new(),
            behind: calibration.reach.behind(model.graph()).into_keys().collect(),
            selected: selected(model.graph()),
        })
    }

    /// How many parts the samples have, and which of them are run here.
    pub(crate) fn parts(&self) -> (usize, Range<usize>) {
        (self.parts, self.own.clone())
    }

    /// Whether validation samples have statistics of their own.
    pub(crate) fn is_judged(&self) -> bool {
        self.judged
    }

    /// What others have to know of a part that is run here.
    pub(crate) fn cuts(&self, part: usize) -> Vec<CutShapes> {
        [&self.quantized, &self.float].map(|stream| stream.cut_shapes(part)).into()
    }

    /// Takes note of a part that is run elsewhere.
    pub(crate) fn learn(&mut self, part: usize, cuts: Vec<CutShapes>) {
        for (stream, cut) in [&mut self.quantized, &mut self.float].into_iter().zip(cuts) {
            stream.learn(part, cut);
        }
    }

    /// Takes both networks to their outputs and compares these on held-out samples, and on those of `seen`.
    pub(crate) fn finish(mut self, seen: &[usize], progress: Progress<'_>) -> Result<Compared, Error> {
        let mut found = Vec::new();
        self.compare(seen, progress, &mut |part| {
            add_comparison(&mut found, part.sums);
            Ok(())
        })?;
        self.compared(found)
    }

    /// The same of the parts that are run here, each by itself.
    pub(crate) fn compare(
        &mut self,
        seen: &[usize],
        progress: Progress<'_>,
        take: &mut (dyn FnMut(PartComparison) -> Result<(), CalibError> + Send),
    ) -> Result<(), Error> {
        let held_out = &self.calibration.samples.split.held_out;
        let samples = [held_out, seen].concat();
        self.float.narrow(&samples);
        self.quantized.narrow(&samples);
        let quantized_proto = without_functions(&self.quantized_model)?;
        let [quantized, float] = self.outputs();
        let whole = || whole(&self.quantized_model, &self.settled);
        let whole_float = || Ok(self.float_proto.clone());
        let report = |state: onnxquant_calib::Progress| progress(Phase::Compare, state.done, state.total);
        let networks = [
            Network { stream: &mut self.float, model: &self.float_proto, whole: &whole_float, later: &[] },
            Network { stream: &mut self.quantized, model: &quantized_proto, whole: &whole, later: &[] },
        ];
        let slicings = self.calibration.reach.slicings();
        let wanted = ([&float[..], &quantized[..]], &[&held_out[..], seen][..]);
        compare_stream_parts(networks, &self.calibration.samples.data, wanted, &slicings, &report, take)?;
        Ok(())
    }

    /// What sums of all parts say; of none where no sample is compared.
    pub(crate) fn compared(&self, mut sums: Vec<ComparisonSums>) -> Result<Compared, Error> {
        let [_, float] = self.outputs();
        let empty = || ComparisonSums::new(&float, &self.calibration.reach.slicings());
        sums.resize_with(2, empty);
        let found: Vec<_> = sums.into_iter().map(ComparisonSums::finish).collect();
        let [held_out, seen] = found.try_into().map_err(|_| Error::Internal("a set was not compared".to_owned()))?;
        Ok(Compared { held_out, seen })
    }

    /// Takes both networks to the inputs of `layers` and gathers their moments; `later` are the layers to come.
    pub(crate) fn statistics(
        &mut self,
        layers: &[PlannedLayer],
        later: &[PlannedLayer],
        progress: Progress<'_>,
    ) -> Result<StageStats, Error> {
        let (requests, of_layer) = self.requests(layers);
        let sets = self.sets();
        let stats = self.advance(later, progress, |networks, data, report| {
            collect_pairs(networks, data, &sets, &requests, report)
        })?;
        Ok(self.stage_stats(of_layer, stats))
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
        let (requests, _) = self.requests(layers);
        self.advance(later, progress, |networks, data, report| collect_pairs(networks, data, &[], &requests, report))?;
        Ok(())
    }

    /// Takes both networks to the inputs of `layers` and hands over the moments of the parts that are run here.
    pub(crate) fn statistics_of_parts(
        &mut self,
        layers: &[PlannedLayer],
        later: &[PlannedLayer],
        progress: Progress<'_>,
        take: &mut TakePart<'_>,
    ) -> Result<(), Error> {
        let (requests, _) = self.requests(layers);
        let sets = self.sets();
        self.advance(later, progress, |networks, data, report| {
            collect_pair_parts(networks, data, &sets, &requests, report, take)
        })
    }

    /// What is asked of the inputs of layers, and which of it each layer asks.
    pub(crate) fn requests(&self, layers: &[PlannedLayer]) -> (Vec<PairRequest>, Vec<Option<usize>>) {
        distinct(layers.iter().map(|layer| self.request(layer)))
    }

    /// The samples that are gathered apart.
    fn sets(&self) -> Vec<&'a [usize]> {
        let split = &self.calibration.samples.split;
        if self.judged { vec![&split.calibration, &split.validation] } else { vec![&split.calibration] }
    }

    /// The moments of all sets as statistics of a stage.
    pub(crate) fn stage_stats(&self, of_layer: Vec<Option<usize>>, mut stats: Vec<LayerMoments>) -> StageStats {
        let validation = if self.judged { stats.pop() } else { None };
        StageStats { of_layer, calibration: stats.pop().unwrap_or_default(), validation }
    }

    /// Lets `run` take both networks on; `later` are the layers to come.
    fn advance<T>(
        &mut self,
        later: &[PlannedLayer],
        progress: Progress<'_>,
        run: impl FnOnce([Network<'_>; 2], &CalibSet, &dyn Fn(onnxquant_calib::Progress)) -> Result<T, CalibError>,
    ) -> Result<T, Error> {
        let quantized_proto = without_functions(&self.quantized_model)?;
        let [mut later_seen, mut later_float] = self.outputs();
        for request in later.iter().filter_map(|layer| self.request(layer)) {
            later_seen.push(request.seen.value);
            later_float.push(request.reference);
        }
        let whole = || whole(&self.quantized_model, &self.settled);
        let whole_float = || Ok(self.float_proto.clone());
        let report = |state: onnxquant_calib::Progress| progress(Phase::Calibrate, state.done, state.total);
        let networks = [
            Network { stream: &mut self.quantized, model: &quantized_proto, whole: &whole, later: &later_seen },
            Network { stream: &mut self.float, model: &self.float_proto, whole: &whole_float, later: &later_float },
        ];
        let found = run(networks, &self.calibration.samples.data, &report)?;
        self.forget();
        Ok(found)
    }

    /// Drops the weights of layers that have been run on all samples.
    fn forget(&mut self) {
        let nothing = tensor::from_f32_as(DataType::Float, &[0], &[]);
        for settled in self.settled.iter().filter(|settled| self.quantized.has_made(&settled.output)) {
            self.quantized_model.graph_mut().set_tensor(settled.value, nothing.clone());
        }
    }

    /// Puts a solved layer into the quantized network: its weight as the runtime will have it, and what is added to its
    /// bias.
    pub(crate) fn settle(&mut self, layer: &PlannedLayer, weight: &PackedWeight) -> Result<(), Error> {
        if self.behind.contains(&layer.site.input) {
            return Ok(());
        }
        let site = layer.site.clone();
        let graph = self.quantized_model.graph_mut();
        let name = format!("{}_rounded", graph.value(site.weight).name());
        let value = graph.add_constant(&name, weight.decode(&site)?);
        graph.set_input(site.node, 1, Some(value));
        graph.remove_if_unused(site.weight);
        let output =
            graph.node(site.node).output(0).map_or(String::new(), |value| graph.value(value).name().to_owned());
        if weight.correction().iter().any(|&c| c != 0.0) {
            add_to_bias(graph, &site, weight.correction());
        }
        self.settled.push(Settled { value, output, site, weight: weight.clone() });
        Ok(())
    }

    /// What is compared in the end, in the quantized and in the float network.
    fn outputs(&self) -> [Vec<String>; 2] {
        let reach = &self.calibration.reach;
        [reach.names_in(&self.quantized_model), reach.names()]
    }

    /// What is asked of the input of a layer; nothing where the engine cannot compute it.
    fn request(&self, layer: &PlannedLayer) -> Option<PairRequest> {
        if self.behind.contains(&layer.site.input) {
            return None;
        }
        let mut seen = request(self.model, layer);
        let reference = std::mem::take(&mut seen.value);
        if !self.judged {
            seen.kind = StatKind::RoughGram;
        }
        seen.value = self.inputs.get(&layer.site.id()).unwrap_or(&reference).clone();
        Some(PairRequest { seen, reference, is_selected: self.selected.contains(&layer.site.input) })
    }
}

/// The quantized network with all weights, for pieces that have to be run from its inputs.
fn whole(model: &Model, settled: &[Settled]) -> Result<ModelProto, CalibError> {
    let mut whole = model.clone();
    for Settled { value, site, weight, .. } in settled {
        let decoded = weight.decode(site).map_err(|error| CalibError::BadModel(error.to_string()))?;
        whole.graph_mut().set_tensor(*value, decoded);
    }
    without_functions(&whole)
}

/// Divides `layers` into stages: runs of layers that do not depend on each other, whose statistics fit `limit_bytes`.
pub(crate) fn stages(model: &Model, layers: &[PlannedLayer], limit_bytes: u64) -> Vec<Range<usize>> {
    let graph = model.graph();
    let mut behind = HashSet::new();
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
