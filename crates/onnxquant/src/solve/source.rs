//! Where the statistics of layers come from.

use std::ops::Range;

use onnxquant_ir::Model;

use crate::config::Config;
use crate::error::Error;
use crate::observe::calibration::{self, Calibration, StageStats};
use crate::plan::layers::{Plan, PlannedLayer};
use crate::progress::Progress;
use crate::solve::job::{Job, judges};
use crate::solve::streams::{self, Streams};
use crate::write::codes::QuantizedTable;

/// Where the statistics of layers come from.
pub(crate) enum Source<'a> {
    Nowhere,
    /// The float network alone, run once for as many layers as fit the memory.
    Float {
        calibration: &'a Calibration,
        judged: bool,
    },
    /// The float network and the one quantized so far.
    Streams(Box<Streams<'a>>),
}

impl<'a> Source<'a> {
    pub(crate) fn new(job: Job<'a>, plan: &Plan, tables: &[QuantizedTable]) -> Result<Self, Error> {
        let Job { model, config, assignment, calibration, bodies, .. } = job;
        let judged = judges(config);
        let Some(calibration) = calibration.filter(|_| !plan.layers.is_empty()) else { return Ok(Self::Nowhere) };
        if config.one_pass {
            return Ok(Self::float(calibration, judged));
        }
        let streams = Streams::new(model, assignment, plan, (tables, bodies), calibration, judged, config)?;
        Ok(Self::Streams(Box::new(streams)))
    }

    /// The float network; validation samples are gathered apart where results are `judged` on them.
    pub(crate) fn float(calibration: &'a Calibration, judged: bool) -> Self {
        Self::Float { calibration, judged }
    }

    /// Layers that are solved together.
    pub(crate) fn stages(&self, model: &Model, layers: &[PlannedLayer], config: &Config) -> Vec<Range<usize>> {
        let limit = config.memory_limit_bytes;
        match self {
            Self::Nowhere => std::iter::once(0..layers.len()).collect(),
            Self::Float { judged, .. } => calibration::stages(model, layers, limit / if *judged { 2 } else { 1 }),
            Self::Streams(_) => streams::stages(model, layers, limit / 8),
        }
    }

    /// Goes on to the inputs of `layers`, which are solved already.
    pub(crate) fn pass(
        &mut self,
        layers: &[PlannedLayer],
        later: &[PlannedLayer],
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        match self {
            Self::Nowhere | Self::Float { .. } => Ok(()),
            Self::Streams(streams) => streams.pass(layers, later, progress),
        }
    }

    pub(crate) fn statistics(
        &mut self,
        model: &Model,
        layers: &[PlannedLayer],
        later: &[PlannedLayer],
        progress: Progress<'_>,
    ) -> Result<Option<StageStats>, Error> {
        match self {
            Self::Nowhere => Ok(None),
            Self::Float { calibration, judged } => calibration.statistics(model, layers, *judged, progress).map(Some),
            Self::Streams(streams) => streams.statistics(layers, later, progress).map(Some),
        }
    }
}
