//! Compares the outputs of two models on data.

use std::path::Path;

use onnxquant_calib::{Original, OutputComparison, SATURATE_PAIRS, Session, compare as compare_sessions};
use onnxquant_ir::{Model, NodeId};
use onnxquant_passes::cpu::{Cpu, pair_rule};
use onnxquant_passes::saturate_pairs::saturate_pairs;
use onnxquant_quant::{MatrixView, PairRule};

use crate::config::DataConfig;
use crate::error::Error;
use crate::load::{check, decode, prepare, read};
use crate::observe::calibration::Calibration;
use crate::observe::reach::output_names;
use crate::progress::{Phase, Progress};

/// Runs both models on every sample of `data` and compares output by output, in the order of the first model.
///
/// Quantized weights are decoded to float first. The models must share the names of their outputs. The second computes
/// what its integer layers give on processors of a class; without one the exact products.
pub fn compare(
    first: &Path,
    second: &Path,
    data: &DataConfig,
    cpu: Option<Cpu>,
    progress: Progress<'_>,
) -> Result<Vec<OutputComparison>, Error> {
    let data = &data.of_model(first);
    let (mut first, mut second) = (read(first)?, read(second)?);
    prepare(&mut first)?;
    prepare(&mut second)?;
    let mut calibration = Calibration::open(&first, data)?;
    calibration.divide_outputs(&first)?;
    if let Some(missing) = output_names(&first).into_iter().find(|name| !has_output(&second, name)) {
        return Err(Error::Usage(format!("the second model has no output `{missing}`")));
    }
    if cpu.is_some_and(Cpu::saturates) {
        saturate(&mut second, &|_, view| pair_rule(view, false))?;
    }
    let samples = (0..calibration.samples.data.len()).collect::<Vec<_>>();
    let [found] = Reference::new(first, &calibration, &samples)?.compare(second, &calibration, [&samples], progress)?;
    Ok(found)
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
