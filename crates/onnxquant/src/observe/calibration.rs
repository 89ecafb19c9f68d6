//! The statistics of layer inputs over the samples, as far as the engine reaches.

use std::ops::Range;

use onnxquant_calib::{Session, StatKind, StatRequest, TakePart, collect, collect_parts, gram_bytes};
use onnxquant_ir::Model;
use onnxquant_quant::GramStats;

use crate::config::DataConfig;
use crate::error::Error;
use crate::observe::reach::Reach;
use crate::observe::samples::Samples;
use crate::observe::slicing::slicings;
use crate::plan::layers::PlannedLayer;
use crate::progress::{Phase, Progress};

/// The samples, and what the engine can compute on them.
#[derive(Debug)]
pub(crate) struct Calibration {
    pub(crate) samples: Samples,
    /// What the engine can compute of the model.
    pub(crate) reach: Reach,
}

/// Statistics of one stage: by request, by group; no groups for an input that has no rows.
pub(crate) struct StageStats {
    /// The request of each layer; none for one whose input the engine cannot compute.
    pub(crate) of_layer: Vec<Option<usize>>,
    pub(crate) calibration: Vec<Vec<GramStats>>,
    pub(crate) validation: Option<Vec<Vec<GramStats>>>,
}

/// Calibration and, where wanted, validation statistics of one layer, by group.
pub(crate) struct LayerStats<'a> {
    pub(crate) calibration: &'a [GramStats],
    /// Those of the calibration samples where no validation sample has rows.
    pub(crate) validation: Option<&'a [GramStats]>,
    /// Validation samples were to have statistics of their own and have no rows.
    pub(crate) lacks_validation: bool,
}

impl Calibration {
    pub(crate) fn open(model: &Model, config: &DataConfig) -> Result<Self, Error> {
        Ok(Self { samples: Samples::open(model, config)?, reach: Reach::all(model) })
    }

    /// Finds out which parts of the outputs are judged apart.
    pub(crate) fn divide_outputs(&mut self, model: &Model) -> Result<(), Error> {
        let slicings = slicings(model, &self.samples, &self.reach.names())?;
        self.reach.divide(slicings);
        Ok(())
    }

    /// Runs the samples and gathers what the layers of one stage need.
    pub(crate) fn statistics(
        &self,
        model: &Model,
        layers: &[PlannedLayer],
        validation: bool,
        progress: Progress<'_>,
    ) -> Result<StageStats, Error> {
        let (requests, of_layer) = self.requests(model, layers);
        let session = self.session(model, &requests, validation)?;
        let Samples { data, split, .. } = &self.samples;
        let run = |samples: &[usize]| {
            let report = |state: onnxquant_calib::Progress| progress(Phase::Calibrate, state.done, state.total);
            collect(&session, data, samples, &requests, &report)
        };
        let calibration = run(&split.calibration)?;
        let validation = validation.then(|| run(&split.validation)).transpose()?;
        Ok(StageStats { of_layer, calibration, validation })
    }

    /// The same of some parts of one set of samples, each by itself.
    pub(crate) fn statistics_of_parts(
        &self,
        model: &Model,
        layers: &[PlannedLayer],
        (set, parts, validation): (&[usize], Range<usize>, bool),
        progress: Progress<'_>,
        take: &mut TakePart<'_>,
    ) -> Result<(), Error> {
        let (requests, _) = self.requests(model, layers);
        let session = self.session(model, &requests, validation)?;
        let report = |state: onnxquant_calib::Progress| progress(Phase::Calibrate, state.done, state.total);
        collect_parts(&session, (&self.samples.data, set), &requests, parts, &report, take)?;
        Ok(())
    }

    /// What is asked of the inputs of layers, and which of it each layer asks.
    pub(crate) fn requests(&self, model: &Model, layers: &[PlannedLayer]) -> (Vec<StatRequest>, Vec<Option<usize>>) {
        let behind = self.reach.behind(model.graph());
        distinct(layers.iter().map(|layer| (!behind.contains_key(&layer.site.input)).then(|| request(model, layer))))
    }

    /// Observes what is requested, on all samples that are calibrated with.
    fn session(&self, model: &Model, requests: &[StatRequest], validation: bool) -> Result<Box<dyn Session>, Error> {
        let mut values = requests.iter().map(|request| request.value.clone()).collect::<Vec<_>>();
        values.dedup();
        let Samples { data, split, .. } = &self.samples;
        let samples = if validation { (0..data.len()).collect() } else { split.calibration.clone() };
        self.samples.session(model, &values, &samples)
    }
}

impl StageStats {
    /// Of the layer at this place of the stage, where there are any.
    pub(crate) fn of(&self, layer: usize) -> Option<LayerStats<'_>> {
        let index = self.of_layer[layer]?;
        let calibration = self.calibration[index].as_slice();
        let validation = self.validation.as_ref().map(|stats| stats[index].as_slice());
        let lacks_validation = validation.is_some_and(<[_]>::is_empty);
        let validation = if lacks_validation { Some(calibration) } else { validation };
        (!calibration.is_empty()).then_some(LayerStats { calibration, validation, lacks_validation })
    }
}

/// The requests among these, each once, and where each one is.
pub(crate) fn distinct<R: PartialEq>(wanted: impl Iterator<Item = Option<R>>) -> (Vec<R>, Vec<Option<usize>>) {
    let mut requests: Vec<R> = Vec::new();
    let place = |request: R| {
        requests.iter().position(|found| *found == request).unwrap_or_else(|| {
            requests.push(request);
            requests.len() - 1
        })
    };
    let mut place = place;
    let places = wanted.map(|request| request.map(&mut place)).collect();
    (requests, places)
}

/// Splits `layers` into runs whose statistics fit `limit_bytes`; a layer too large alone stands alone.
pub(crate) fn stages(model: &Model, layers: &[PlannedLayer], limit_bytes: u64) -> Vec<std::ops::Range<usize>> {
    let mut stages = Vec::new();
    let mut start = 0;
    let mut requests: Vec<StatRequest> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let request = request(model, layer);
        if requests.contains(&request) {
            continue;
        }
        requests.push(request.clone());
        if gram_bytes(&requests) > limit_bytes && start < index {
            stages.push(start..index);
            start = index;
            requests = vec![request];
        }
    }
    if start < layers.len() {
        stages.push(start..layers.len());
    }
    stages
}

/// What a layer wants to know of its input; layers that read one value alike get equal requests.
pub(crate) fn request(model: &Model, layer: &PlannedLayer) -> StatRequest {
    let view = layer.site.view.of_one_output();
    StatRequest { value: model.graph().value(layer.site.input).name().to_owned(), view, kind: StatKind::Gram }
}
