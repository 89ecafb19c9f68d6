//! Calibration samples, and the engine that runs models on them.

use std::collections::HashSet;
use std::sync::Arc;

use onnxquant_calib::{CalibSet, InputSpec, Session, SharedEngine, Split, engine, open_session_for};
use onnxquant_ir::Model;

use crate::config::DataConfig;
use crate::error::Error;
use crate::load::without_functions;

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
