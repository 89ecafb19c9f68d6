//! Compares the outputs of two models on data.

use std::path::Path;

use onnxquant_calib::{
    Measurement, Original, OrtEngine, OutputComparison, SATURATE_PAIRS, Session, compare as compare_sessions,
};
use onnxquant_ir::{Model, NodeId};
use onnxquant_passes::cpu::{Cpu, pair_rule};
use onnxquant_passes::saturate_pairs::{can_saturate, saturate_pairs};
use onnxquant_passes::write_caches::{InputTypes, open_caches};
use onnxquant_quant::{MatrixView, PairRule};

use crate::accuracy::{Accuracy, accuracy};
use crate::config::{Config, DataConfig, EngineChoice};
use crate::error::Error;
use crate::judge::tensors::{TensorComparison, Tensors};
use crate::load::{check, decode, prepare, read};
use crate::observe::calibration::Calibration;
use crate::observe::engine::{EngineReport, choose_for_both};
use crate::observe::reach::output_names;
use crate::progress::{Phase, Progress};

/// Two models that are to be compared on data.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    /// The model with which the other one is compared.
    pub first: &'a Path,
    /// The other one.
    pub second: &'a Path,
    /// The samples.
    pub data: &'a DataConfig,
    /// The second model computes what its integer layers give on processors of this class; without one the exact products.
    pub cpu: Option<Cpu>,
    /// What runs both.
    pub engine: EngineChoice,
    /// ONNX Runtime, where it is there.
    pub runtime: Option<OrtEngine>,
    /// Every tensor that both make is compared, too.
    pub tensors: bool,
}

/// How two models differ.
#[derive(Clone, Debug)]
pub struct Compared {
    /// What ran them.
    pub engine: EngineReport,
    /// How exact the outputs of the second are, over all.
    pub accuracy: Measurement<Accuracy>,
    /// Output by output, in the order of the first model.
    pub outputs: Vec<OutputComparison>,
    /// Tensor by tensor, in the order in which the first model makes them; none where that was not asked for.
    pub tensors: Vec<TensorComparison>,
    /// The class of this processor, where the second model does not compute exact products on it and nobody asked for a
    /// class.
    pub saturates_here: Option<Cpu>,
}

/// Runs both models on every sample of `data` and compares output by output, in the order of the first model.
///
/// As [`Comparison::run`] with the embedded engine.
pub fn compare(
    first: &Path,
    second: &Path,
    data: &DataConfig,
    cpu: Option<Cpu>,
    progress: Progress<'_>,
) -> Result<Vec<OutputComparison>, Error> {
    let (engine, runtime) = (EngineChoice::Tract, None);
    let comparison = Comparison { first, second, data, cpu, engine, runtime, tensors: false };
    Ok(comparison.run(progress)?.outputs)
}

impl Comparison<'_> {
    /// Runs both models on every sample.
    ///
    /// Quantized weights are decoded to float first. The models must share the names of their outputs.
    ///
    /// # Errors
    /// A model or the samples cannot be read or run, or the second model lacks an output of the first.
    pub fn run(&self, progress: Progress<'_>) -> Result<Compared, Error> {
        let (mut first, mut second) = (read(self.first)?, read(self.second)?);
        prepare(&mut first)?;
        prepare(&mut second)?;
        // Caches of codes are compared with floats where only one model has such.
        let [of_first, of_second] = [&first, &second].map(|model| InputTypes::of(model.graph()));
        open_caches(second.graph_mut(), &of_first);
        open_caches(first.graph_mut(), &of_second);
        let mut calibration = Calibration::open(&first, &self.data.of_model(self.first))?;
        // The operators that saturate are known to the embedded engine alone.
        let saturates = self.cpu.is_some_and(Cpu::saturates);
        let engine = match self.engine {
            EngineChoice::Ort if saturates => {
                let problem =
                    "`--engine ort` computes exact sums, whatever the processor: leave out --cpu, or the engine";
                return Err(Error::Usage(problem.to_owned()));
            }
            _ if saturates => EngineChoice::Tract,
            engine => engine,
        };
        let config = Config { engine, runtime: self.runtime.clone(), ..Config::default() };
        let engine = choose_for_both(&mut calibration.samples, [&first, &second], &config)?;
        calibration.divide_outputs(&first)?;
        if let Some(missing) = output_names(&first).into_iter().find(|name| !has_output(&second, name)) {
            return Err(Error::Usage(format!("the second model has no output `{missing}`")));
        }
        let rule = |_: NodeId, view: &MatrixView| pair_rule(view, false);
        let here = Some(Cpu::native()).filter(|cpu| self.cpu.is_none() && cpu.saturates());
        let saturates_here = match here {
            Some(_) if can_saturate(second.graph_mut(), &rule)? => here,
            _ => None,
        };
        if saturates {
            saturate(&mut second, &rule)?;
        }
        let samples = (0..calibration.samples.data.len()).collect::<Vec<_>>();
        let reference = Reference::new(first.clone(), &calibration, &samples)?;
        let [outputs] = reference.compare(second.clone(), &calibration, [&samples], progress)?;
        drop(reference);
        let tensors = match self.tensors {
            true => {
                decode(&mut first)?;
                decode(&mut second)?;
                let samples = &calibration.samples;
                Tensors { first: &first, second: &second, samples, progress }.compare()?
            }
            false => Vec::new(),
        };
        Ok(Compared { engine, accuracy: accuracy(&outputs), outputs, tensors, saturates_here })
    }
}

/// A model whose outputs, or what the engine can compute before them, others are compared with.
pub(crate) struct Reference {
    original: Original<Box<dyn Session>>,
}

impl Reference {
    /// For comparisons on `samples`.
    pub(crate) fn new(mut model: Model, calibration: &Calibration, samples: &[usize]) -> Result<Self, Error> {
        decode(&mut model)?;
        let outputs = calibration.reach.names();
        let session = calibration.samples.session(&model, &outputs, samples)?;
        Ok(Self { original: Original::with_slicings(session, calibration.reach.slicings()) })
    }

    /// Compares another model with this one on some sets of the samples.
    pub(crate) fn compare<const SETS: usize>(
        &self,
        mut other: Model,
        calibration: &Calibration,
        sets: [&[usize]; SETS],
        progress: Progress<'_>,
    ) -> Result<[Vec<OutputComparison>; SETS], Error> {
        decode(&mut other)?;
        let session = calibration.samples.session(&other, &calibration.reach.names_in(&other), &sets.concat())?;
        drop(other);
        let report = |state: onnxquant_calib::Progress| progress(Phase::Compare, state.done, state.total);
        let mut found = sets.map(|_| Vec::new());
        for (found, samples) in found.iter_mut().zip(sets) {
            *found = compare_sessions(&self.original, &session, &calibration.samples.data, samples, &report)?;
        }
        Ok(found)
    }
}

fn has_output(model: &Model, name: &str) -> bool {
    model.graph().outputs().iter().any(|port| port.info.name() == name)
}

/// Lets sums of products on codes saturate as on processors without VNNI; `rule` names the pairs of a layer.
fn saturate(model: &mut Model, rule: &dyn Fn(NodeId, &MatrixView) -> Option<PairRule>) -> Result<(), Error> {
    saturate_pairs(model.graph_mut(), SATURATE_PAIRS, rule)?;
    check(model, "letting sums of products saturate")
}
