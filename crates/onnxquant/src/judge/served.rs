//! How exact the written model is where it is served: both models as ONNX Runtime runs them by default, on held-out
//! samples.
//!
//! The float model is the file that was given; the other is the one that will be written, as its file will hold it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use onnxquant_calib::{
    CalibError, CalibSet, ElementType, Measurement, NotMeasured, Original, OrtEngine, OutputComparison, Session,
    Slicing, compare,
};
use onnxquant_ir::onnx::{ModelProto, type_proto};
use onnxquant_ir::{Model, Port};
use onnxquant_passes::cpu::Cpu;
use onnxquant_passes::ort_version::OrtVersion;
use onnxquant_passes::write_caches::{InputTypes, has_codes, open_caches};

use crate::accuracy::{Accuracy, accuracy};
use crate::config::{Config, Target};
use crate::error::Error;
use crate::judge::expected::{MOST_SEEN, expected_db};
use crate::observe::calibration::Calibration;
use crate::observe::slicing::slicings;
use crate::progress::{Phase, Progress};

/// ONNX Runtime with the float file and the samples that were held out.
pub(crate) struct Served {
    runtime: OrtEngine,
    input: PathBuf,
    /// The outputs of the float file, once it was asked for.
    float: OnceLock<FloatOutputs>,
    outputs: Vec<String>,
    /// Of the float model.
    types: InputTypes,
    slicings: Vec<Slicing>,
    data: Arc<CalibSet>,
    held_out: Vec<usize>,
    /// Others, which were used before.
    seen: Vec<usize>,
    /// The file is for it, and for versions up to it.
    is_served: bool,
}

/// What the runtime gives for the float file, or says.
enum FloatOutputs {
    /// On all samples.
    Known(Original<Box<dyn Session>>),
    Fails {
        sample: String,
        said: String,
    },
    NotLoaded(String),
}

/// How exact outputs are there.
#[derive(Clone, Debug)]
pub(crate) struct OnRuntime {
    /// Name and version.
    pub(crate) runtime: String,
    pub(crate) cpu: Cpu,
    pub(crate) samples: usize,
    /// Over all outputs.
    pub(crate) accuracy: Measurement<Accuracy>,
    /// The SQNR that can be expected on new data.
    pub(crate) expected_db: Option<f64>,
    /// Samples that were used before, whose outputs were compared for that.
    pub(crate) seen_samples: usize,
    pub(crate) outputs: Vec<OutputComparison>,
    /// Whether goals hold against it: not where it cannot run the float model, nor where what is written is for others.
    pub(crate) counts: bool,
}

/// The outputs that can be compared: others are strings, sequences or maps.
fn numbers(model: &Model) -> Vec<String> {
    let graph = model.graph();
    let is_number = |port: &&Port| match port.info.r#type.as_ref().and_then(|declared| declared.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => ElementType::from_onnx(tensor.elem_type()).is_some(),
        Some(_) => false,
        None => true,
    };
    graph.outputs().iter().filter(is_number).map(|port| graph.value(port.value).name().to_owned()).collect()
}

/// Samples that were used before and are compared as well; none where a runtime does that.
pub(crate) fn seen(calibration: &Calibration, served: Option<&Served>) -> Vec<usize> {
    if served.is_some() { Vec::new() } else { calibration.samples.split.seen(MOST_SEEN) }
}

impl Served {
    /// The float model is in the file `input`. Nothing where there is no runtime, or no sample.
    pub(crate) fn open(
        input: &Path,
        model: &Model,
        calibration: Option<&Calibration>,
        config: &Config,
    ) -> Result<Option<Self>, Error> {
        let (Some(runtime), Some(calibration)) = (&config.runtime, calibration) else { return Ok(None) };
        let samples = &calibration.samples;
        let outputs = numbers(model);
        Ok(Some(Self {
            runtime: runtime.clone(),
            input: input.to_owned(),
            float: OnceLock::new(),
            slicings: slicings(model, samples, &outputs)?,
            outputs,
            types: InputTypes::of(model.graph()),
            data: samples.data.clone(),
            held_out: samples.split.held_out.clone(),
            seen: samples.split.seen(MOST_SEEN),
            is_served: config.target == Target::OrtCpu
                && runtime.version().parse::<OrtVersion>().is_ok_and(|version| version >= config.ort_min),
        }))
    }

    /// How exact the model is that would be written.
    pub(crate) fn accuracy(&self, written: &Model, progress: Progress<'_>) -> Result<Measurement<Accuracy>, Error> {
        Ok(match self.compare(written, &[], progress)? {
            Ok([held_out, _]) => accuracy(&held_out),
            Err(problem) => Measurement::NotMeasured(NotMeasured::Runtime { problem }),
        })
    }

    /// How exact the model is that will be written.
    pub(crate) fn measure(&self, written: &Model, progress: Progress<'_>) -> Result<OnRuntime, Error> {
        let found = self.compare(written, &self.seen, progress)?;
        let loads = !matches!(self.float.get(), None | Some(FloatOutputs::NotLoaded(_)));
        let counts = found.is_ok() || (self.is_served && loads);
        let (accuracy, expected_db, outputs) = match found {
            Ok([outputs, seen]) => (accuracy(&outputs), expected_db(&outputs, &seen), outputs),
            Err(problem) => (Measurement::NotMeasured(NotMeasured::Runtime { problem }), None, Vec::new()),
        };
        Ok(OnRuntime {
            runtime: format!("ONNX Runtime {}", self.runtime.version()),
            cpu: Cpu::native(),
            samples: self.held_out.len(),
            accuracy,
            expected_db,
            seen_samples: self.seen.len(),
            outputs,
            counts,
        })
    }

    /// By output, on held-out samples and on those of `seen`; or what the runtime says that does not load or run one of
    /// the models.
    fn compare(
        &self,
        written: &Model,
        seen: &[usize],
        progress: Progress<'_>,
    ) -> Result<Result<[Vec<OutputComparison>; 2], String>, Error> {
        let failed = |what: &str, said: &str| format!("ONNX Runtime {} {what}: {said}", self.runtime.version());
        let report = |state: onnxquant_calib::Progress| progress(Phase::Compare, state.done, state.total);
        let fails = |sample: &str, said: &str| failed(&format!("fails on {sample}"), said);
        let float = match self.float.get() {
            Some(known) => known,
            None => {
                let found = self.float_outputs(&report)?;
                self.float.get_or_init(|| found)
            }
        };
        let float = match float {
            FloatOutputs::Known(float) => float,
            FloatOutputs::Fails { sample, said } => return Ok(Err(fails(sample, said))),
            FloatOutputs::NotLoaded(said) => return Ok(Err(failed("does not load the float model", said))),
        };
        let written = match self.runtime.serve(self.with_open_caches(written), &self.outputs) {
            Ok(written) => written,
            Err(said) => return Ok(Err(failed("does not load the quantized model", &said))),
        };
        let on = |samples: &[usize]| compare(float, &written, &self.data, samples, &report);
        match on(&self.held_out).and_then(|held_out| Ok([held_out, on(seen)?])) {
            Err(CalibError::Run { sample, detail }) => Ok(Err(fails(&sample, &detail))),
            found => Ok(Ok(found?)),
        }
    }

    /// What is written, for samples that have floats where it has caches of codes.
    fn with_open_caches(&self, written: &Model) -> ModelProto {
        let mut opened = Cow::Borrowed(written);
        if has_codes(opened.graph()) {
            open_caches(opened.to_mut().graph_mut(), &self.types);
        }
        opened.to_proto()
    }

    /// Runs the float file on all samples. Its session is gone before that of another model is made: large models are
    /// in memory once.
    fn float_outputs(&self, report: &dyn Fn(onnxquant_calib::Progress)) -> Result<FloatOutputs, CalibError> {
        let session = match self.runtime.serve_file(&self.input, &self.outputs) {
            Ok(session) => session,
            Err(said) => return Ok(FloatOutputs::NotLoaded(said)),
        };
        let samples = [&self.held_out[..], &self.seen].concat();
        match Original::with_slicings(session, self.slicings.clone()).recorded(&self.data, &samples, report) {
            Ok(known) => Ok(FloatOutputs::Known(known)),
            Err(CalibError::Run { sample, detail: said }) => Ok(FloatOutputs::Fails { sample, said }),
            Err(error) => Err(error),
        }
    }
}
