//! Calibration samples, and the engine that runs models on them.

use std::collections::HashSet;
use std::sync::Arc;

use onnxquant_calib::{
    CalibSet, InputSpec, Session, SharedEngine, Split, Tensor, engine, open_session_for, run_in_pieces,
};
use onnxquant_ir::Model;

use crate::config::DataConfig;
use crate::error::Error;
use crate::load::without_functions;

/// Bytes of the weights that an engine is given at once where one sample is run.
const PIECE_BYTES: u64 = 256 << 20;

/// The samples, divided by what they are for.
#[derive(Debug)]
pub(crate) struct Samples {
    /// What runs models on them.
    pub(crate) engine: SharedEngine,
    pub(crate) data: Arc<CalibSet>,
    pub(crate) split: Split,
}

impl Samples {
    /// Those of `config` for the inputs of `model`, with the embedded engine.
    pub(crate) fn open(model: &Model, config: &DataConfig) -> Result<Self, Error> {
        let inputs = InputSpec::from_graph(&model.to_proto().graph.unwrap_or_default(), model.ir_version())?;
        let data = CalibSet::open(&config.path, &inputs, &config.options)?;
        let split = data.split();
        Ok(Self { engine: Arc::new(engine()), data: Arc::new(data), split })
    }

    /// All samples: `first` of those to calibrate with, evenly spaced, and those to choose on where layers are `judged`;
    /// the others.
    pub(crate) fn divide(&self, first: usize, judged: bool) -> (Vec<usize>, Vec<usize>) {
        let all = &self.split.calibration;
        let first = first.min(all.len());
        let chosen: HashSet<usize> = (0..first).map(|at| all[at * all.len() / first]).collect();
        let validation: HashSet<usize> = self.split.validation.iter().copied().filter(|_| judged).collect();
        (0..self.data.len()).partition(|sample| chosen.contains(sample) || validation.contains(sample))
    }

    /// Computes `values` of `model` for one sample and hands each to `see`, with its position; of a large model not as a whole.
    pub(crate) fn run_one(
        &self,
        model: &Model,
        values: &[String],
        sample: usize,
        see: &mut (dyn FnMut(usize, &Tensor) + Send),
    ) -> Result<(), Error> {
        let proto = without_functions(model)?;
        Ok(run_in_pieces(&self.engine, &proto, values, (&self.data, sample), PIECE_BYTES, see)?)
    }

    /// What runs `model` on `samples` and observes `values`.
    pub(crate) fn session(
        &self,
        model: &Model,
        values: &[String],
        samples: &[usize],
    ) -> Result<Box<dyn Session>, Error> {
        let proto = without_functions(model)?;
        Ok(open_session_for(&*self.engine, &proto, values, &self.data, samples)?)
    }
}
