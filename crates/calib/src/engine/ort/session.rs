//! Models that ONNX Runtime runs.
//!
//! - Parts of models, to observe values in them: nodes run as they stand, without fusion, so that a value does not depend
//!   on where the model was cut.
//! - Files and models, as they are served.
//!
//! # Numerics
//!
//! Sessions that observe compute every run with one thread, and samples side by side: results do not depend on how many
//! there are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onnxquant_proto::onnx::{ModelProto, NodeProto};

use super::error::OrtError;
use super::ffi::{Library, OrtLevel, RawSession, Setup};
use super::find::{OrtPlaces, find};
use super::model::{OrtGraph, message, ort_graph};
use crate::data::Sample;
use crate::engine::blocked::shorten;
use crate::engine::contract::{Engine, Given, Session};
use crate::engine::observed::{Observed, failed, fed};
use crate::error::CalibError;
use crate::tensor::Tensor;

/// Domains that it has operators of.
const KNOWN_DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Values are freed after their last use; idle threads do not spin.
const OBSERVING: Setup<'static> = Setup {
    level: OrtLevel::None,
    threads: 1,
    arena: false,
    entries: &[("session.intra_op.allow_spinning", "0")],
    optimized: None,
};

/// What a session has where nothing is said, but for the threads: samples are run side by side.
const SERVING: Setup<'static> = Setup { level: OrtLevel::All, threads: 1, arena: true, entries: &[], optimized: None };

/// ONNX Runtime, loaded.
#[derive(Clone)]
pub struct OrtEngine {
    library: Arc<Library>,
    path: PathBuf,
    name: String,
}

impl std::fmt::Debug for OrtEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrtEngine").field("name", &self.name).field("path", &self.path).finish()
    }
}

impl OrtEngine {
    /// Loads the first library in `places`.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub fn find(places: &OrtPlaces) -> Result<Self, OrtError> {
        let (path, library) = find(places)?;
        let name = format!("ONNX Runtime {}", library.version());
        Ok(Self { library: Arc::new(library), path, name })
    }

    /// Its version, for example 1.32.0.
    pub fn version(&self) -> &str {
        self.library.version()
    }

    /// The library.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads a file.
    ///
    /// # Errors
    /// ONNX Runtime does not load it.
    pub fn load(&self, model: &Path, options: &OrtOptions<'_>) -> Result<OrtModel, OrtError> {
        let file = options.optimized.and_then(Path::file_stem).and_then(OsStr::to_str).unwrap_or_default();
        let data = format!("{file}.data");
        let entries = [("session.optimized_model_external_initializers_file_name", data.as_str())];
        let (level, threads) = (options.level, options.threads);
        let entries = if options.optimized.is_some() { &entries[..] } else { &[] };
        let setup = Setup { level, threads, arena: true, entries, optimized: options.optimized };
        let failed = |detail: String| OrtError::Load {
            version: self.version().to_owned(),
            path: model.to_owned(),
            detail: shorten(&detail),
        };
        RawSession::of_file(&self.library, model, &setup).map(OrtModel).map_err(failed)
    }

    /// Prepares a file to be run as it is served, and to give these of its outputs.
    ///
    /// # Errors
    /// The message of ONNX Runtime, which does not load it.
    pub fn serve_file(&self, path: &Path, outputs: &[String]) -> Result<Box<dyn Session>, String> {
        served(RawSession::of_file(&self.library, path, &SERVING), outputs)
    }

    /// The same of a model in memory.
    ///
    /// # Errors
    /// The message of ONNX Runtime, which does not load it.
    pub fn serve(&self, model: ModelProto, outputs: &[String]) -> Result<Box<dyn Session>, String> {
        let (bytes, constants) = message(model);
        served(RawSession::of_bytes(&self.library, &bytes, constants, &SERVING), outputs)
    }
}

impl Engine for OrtEngine {
    fn name(&self) -> &str {
        &self.name
    }

    /// Operators that it lacks are found when it does not load a model that has them.
    fn unknown(&self, node: &NodeProto) -> Option<&'static str> {
        (!KNOWN_DOMAINS.contains(&node.domain())).then_some("it knows no operators of this domain")
    }

    fn open(&self, model: &ModelProto, wanted: &[String], given: &Given) -> Result<Box<dyn Session>, CalibError> {
        let observed = Observed::new(wanted, &given.feeds);
        let OrtGraph { bytes, constants, inputs } = ort_graph(model, observed.computed(), &given.feeds)?;
        let refused = |detail: String| CalibError::Load { place: self.name.clone(), detail: shorten(&detail) };
        let runs = !observed.computed().is_empty();
        let raw = runs.then(|| RawSession::of_bytes(&self.library, &bytes, constants, &OBSERVING)).transpose();
        Ok(Box::new(OrtSession { raw: raw.map_err(refused)?, observed, inputs }))
    }
}

fn served(raw: Result<RawSession, String>, outputs: &[String]) -> Result<Box<dyn Session>, String> {
    let model = raw.map(OrtModel).map_err(|detail| shorten(&detail))?;
    Ok(Box::new(ServedModel { model, outputs: outputs.to_vec() }))
}

/// A model as it is served.
struct ServedModel {
    model: OrtModel,
    outputs: Vec<String>,
}

impl Session for ServedModel {
    fn values(&self) -> &[String] {
        &self.outputs
    }

    fn run(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        self.model.run(sample, &self.outputs).map_err(|detail| {
            let (inputs, shapes): (Vec<String>, _) =
                sample.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).unzip();
            failed(&inputs, &shapes, shorten(&detail))
        })
    }
}

/// Part of a model, with values observed in it.
struct OrtSession {
    /// None where nothing is to be computed.
    raw: Option<RawSession>,
    observed: Observed,
    inputs: Vec<String>,
}

impl OrtSession {
    fn compute(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        let Some(raw) = &self.raw else { return Ok(Vec::new()) };
        let tensors = fed(&self.inputs, sample)?;
        let given: Vec<(&str, &Tensor)> = self.inputs.iter().map(String::as_str).zip(tensors.iter().copied()).collect();
        let values = raw.request(&given, self.observed.computed()).and_then(|request| raw.run(&request)?.tensors());
        values.map_err(|detail| {
            let shapes = tensors.iter().map(|tensor| tensor.shape().to_vec()).collect();
            failed(&self.inputs, &shapes, shorten(&detail))
        })
    }
}

impl Session for OrtSession {
    fn values(&self) -> &[String] {
        self.observed.values()
    }

    fn run(&self, sample: &Sample) -> Result<Vec<Tensor>, CalibError> {
        self.observed.hand_over(sample, self.compute(sample)?)
    }

    fn reads(&self, value: &str) -> bool {
        self.inputs.iter().any(|input| input == value) || self.observed.copies(value)
    }
}

/// How a file is loaded.
#[derive(Debug, Clone, Copy)]
pub struct OrtOptions<'a> {
    /// How far its graph is optimized.
    pub level: OrtLevel,
    /// Threads that one run uses; 0 stands for all.
    pub threads: usize,
    /// Where the optimized model is written.
    pub optimized: Option<&'a Path>,
}

/// What a session has where nothing is said.
impl Default for OrtOptions<'_> {
    fn default() -> Self {
        Self { level: OrtLevel::All, threads: 0, optimized: None }
    }
}

/// A file that ONNX Runtime has loaded.
pub struct OrtModel(RawSession);

impl OrtModel {
    /// Runs a sample, whose values are the graph's inputs; returns the outputs of these names.
    ///
    /// # Errors
    /// The message of ONNX Runtime.
    pub fn run(&self, sample: &Sample, outputs: &[String]) -> Result<Vec<Tensor>, String> {
        let request = self.0.request(&by_name(sample), outputs)?;
        self.0.run(&request)?.tensors()
    }

    /// How long so many runs of a sample take, one after the other.
    ///
    /// # Errors
    /// The message of ONNX Runtime.
    pub fn time(&self, sample: &Sample, outputs: &[String], runs: usize) -> Result<Duration, String> {
        let request = self.0.request(&by_name(sample), outputs)?;
        let start = Instant::now();
        for _ in 0..runs {
            drop(self.0.run(&request)?);
        }
        Ok(start.elapsed())
    }
}

impl std::fmt::Debug for OrtModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OrtModel")
    }
}

fn by_name(sample: &Sample) -> Vec<(&str, &Tensor)> {
    sample.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}
