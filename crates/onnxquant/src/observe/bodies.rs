//! The statistics of layers inside bodies, in the float network.
//!
//! # Problem
//!
//! Engines show values of the main graph. What a layer inside a body reads is handed out of it first
//! ([`onnxquant_passes::expose`]), in a copy of the model that is for this alone.
//!
//! # Method
//!
//! As many values at once as fit the memory. Where that fails, the values of each body by themselves: in a Loop the shapes of
//! one may differ from step to step. ONNX Runtime runs the copy where it is there, else, or where that fails, the engine of
//! the other samples.
//!
//! # Failure
//!
//! Of layers that no engine shows there are no statistics, and the reason instead.

use onnxquant_calib::{Engine, OrtEngine, StatKind, StatRequest, collect, gram_bytes, open_session_for};
use onnxquant_ir::Model;
use onnxquant_ir::onnx::ModelProto;
use onnxquant_passes::expose::{BodyStep, InnerValue, expose};
use onnxquant_quant::GramStats;

use crate::error::Error;
use crate::load::{decoded, without_functions};
use crate::observe::calibration::{Calibration, LayerStats, distinct};
use crate::observe::samples::Samples;
use crate::plan::layers::{PlannedBody, PlannedLayer};
use crate::progress::{Phase, Progress};

/// A layer inside a body.
#[derive(Clone, Debug)]
pub(crate) struct InnerLayer<'a> {
    /// From the main graph to the body.
    pub(crate) path: &'a [BodyStep],
    pub(crate) body: &'a PlannedBody,
    pub(crate) layer: &'a PlannedLayer,
}

/// What is known of the input of such a layer.
pub(crate) enum InnerStats {
    Seen {
        calibration: Vec<GramStats>,
        validation: Option<Vec<GramStats>>,
    },
    /// Why there are no statistics.
    Unseen(String),
}

impl InnerStats {
    /// As the solvers take them.
    pub(crate) fn of_layer(&self) -> Option<LayerStats<'_>> {
        let Self::Seen { calibration, validation } = self else { return None };
        let lacks_validation = validation.as_ref().is_some_and(Vec::is_empty);
        let instead = Some(calibration.as_slice()).filter(|_| lacks_validation);
        let validation = instead.or(validation.as_deref());
        Some(LayerStats { calibration, validation, lacks_validation })
    }
}

/// How the inner layers of a model are observed.
pub(crate) struct BodyObserver<'a> {
    pub(crate) calibration: &'a Calibration,
    pub(crate) runtime: Option<&'a OrtEngine>,
    /// Whether validation samples are gathered apart.
    pub(crate) judged: bool,
    pub(crate) limit_bytes: u64,
    pub(crate) progress: Progress<'a>,
}

impl BodyObserver<'_> {
    /// What is known of every layer of `layers`, which lie in bodies of `model`.
    pub(crate) fn statistics(&self, model: &Model, layers: &[InnerLayer<'_>]) -> Result<Vec<InnerStats>, Error> {
        let float = without_functions(&decoded(model)?)?;
        let mut found = Vec::with_capacity(layers.len());
        let mut start = 0;
        while start < layers.len() {
            let fits = |end: &usize| self.bytes(&layers[start..*end]) <= self.limit_bytes;
            let end = (start + 1..=layers.len()).take_while(fits).last().unwrap_or(start + 1);
            found.extend(self.of_batch(&float, &layers[start..end])?);
            start = end;
        }
        Ok(found)
    }

    fn bytes(&self, layers: &[InnerLayer<'_>]) -> u64 {
        let requests: Vec<StatRequest> = layers.iter().map(|layer| request(layer, String::new())).collect();
        gram_bytes(&requests).saturating_mul(if self.judged { 2 } else { 1 })
    }

    /// All of them at once or, where that fails, body by body.
    fn of_batch(&self, float: &ModelProto, layers: &[InnerLayer<'_>]) -> Result<Vec<InnerStats>, Error> {
        match self.gather(float, layers) {
            Err(Error::Calibration(error)) => {
                let runs: Vec<&[InnerLayer<'_>]> = layers.chunk_by(|a, b| a.path == b.path).collect();
                if let [_] = runs[..] {
                    let why =
                        format!("rounded without data: what it reads inside the body cannot be observed: {error}");
                    return Ok(layers.iter().map(|_| InnerStats::Unseen(why.clone())).collect());
                }
                let parts = runs.into_iter().map(|run| self.of_batch(float, run));
                Ok(parts.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect())
            }
            found => found,
        }
    }

    /// With the first engine that runs it.
    fn gather(&self, float: &ModelProto, layers: &[InnerLayer<'_>]) -> Result<Vec<InnerStats>, Error> {
        let embedded = &*self.calibration.samples.engine;
        let Some(runtime) = self.runtime else { return self.gather_with(embedded, float, layers) };
        match self.gather_with(runtime, float, layers) {
            Err(Error::Calibration(first)) => match self.gather_with(embedded, float, layers) {
                Err(Error::Calibration(_)) => Err(first.into()),
                found => found,
            },
            found => found,
        }
    }

    fn gather_with(
        &self,
        engine: &dyn Engine,
        float: &ModelProto,
        layers: &[InnerLayer<'_>],
    ) -> Result<Vec<InnerStats>, Error> {
        let (wanted, of_layer) = distinct(layers.iter().map(|layer| {
            let graph = layer.body.model.graph();
            Some((layer.path, request(layer, graph.value(layer.layer.site.input).name().to_owned())))
        }));
        let mut model = float.clone();
        let mut requests = Vec::new();
        let mut places = Vec::with_capacity(wanted.len());
        for ((path, request), layer) in wanted.iter().zip(first_of_each(&of_layer, layers)) {
            let value = InnerValue { path, name: &request.value, view: &request.view, dtype: layer.layer.site.dtype };
            places.push(expose(&mut model, value).map(|name| {
                requests.push(StatRequest { value: name, ..request.clone() });
                requests.len() - 1
            }));
        }
        let names: Vec<String> = requests.iter().map(|request| request.value.clone()).collect();
        let Samples { data, split, .. } = &self.calibration.samples;
        let samples = if self.judged { (0..data.len()).collect() } else { split.calibration.clone() };
        let session = open_session_for(engine, &model, &names, data, &samples)?;
        let run = |samples: &[usize]| {
            let report = |state: onnxquant_calib::Progress| (self.progress)(Phase::Calibrate, state.done, state.total);
            collect(&session, data, samples, &requests, &report)
        };
        let calibration = run(&split.calibration)?;
        let validation = if self.judged { Some(run(&split.validation)?) } else { None };
        let stats = of_layer.iter().map(|wanted| {
            let Some(at) = wanted.and_then(|wanted| places[wanted]) else { return unseen("an operator of this kind") };
            match calibration[at].is_empty() {
                true => InnerStats::Unseen("rounded without data: no sample comes here".to_owned()),
                false => InnerStats::Seen {
                    calibration: calibration[at].clone(),
                    validation: validation.as_ref().map(|found| found[at].clone()),
                },
            }
        });
        Ok(stats.collect())
    }
}

fn unseen(what: &str) -> InnerStats {
    InnerStats::Unseen(format!("rounded without data: {what} does not hand out what it reads"))
}

/// The first layer of each request.
fn first_of_each<'a, 'l>(of_layer: &[Option<usize>], layers: &'a [InnerLayer<'l>]) -> Vec<&'a InnerLayer<'l>> {
    let mut found = Vec::new();
    for (place, layer) in of_layer.iter().zip(layers) {
        if *place == Some(found.len()) {
            found.push(layer);
        }
    }
    found
}

fn request(layer: &InnerLayer<'_>, value: String) -> StatRequest {
    StatRequest { value, view: layer.layer.site.view.of_one_output(), kind: StatKind::Gram }
}
