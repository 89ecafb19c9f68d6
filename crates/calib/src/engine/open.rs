//! Which engine runs models, and sessions of it.

use onnxquant_proto::onnx::{ModelProto, NodeProto};

use super::contract::{Engine, Given, Session};
use super::tract;
use crate::data::CalibSet;
use crate::error::CalibError;

/// The engine of this build. A build without one reads data all the same, but runs nothing.
pub fn engine() -> &'static dyn Engine {
    tract::engine().unwrap_or(&NoEngine)
}

/// Prepares `model` to be run on the samples of `data`, observing `values`; see [`Engine::open`].
pub fn open_session(
    engine: &dyn Engine,
    model: &ModelProto,
    values: &[String],
    data: &CalibSet,
) -> Result<Box<dyn Session>, CalibError> {
    let all: Vec<usize> = (0..data.len()).collect();
    open_session_for(engine, model, values, data, &all)
}

/// Prepares `model` to be run on some of the samples.
pub fn open_session_for(
    engine: &dyn Engine,
    model: &ModelProto,
    values: &[String],
    data: &CalibSet,
    samples: &[usize],
) -> Result<Box<dyn Session>, CalibError> {
    engine.open(model, values, &Given::inputs(data, samples))
}

/// Stands where a build has no engine.
struct NoEngine;

const NO_ENGINE: &str = "this build has no engine";

impl Engine for NoEngine {
    fn name(&self) -> &str {
        "none"
    }

    fn unknown(&self, _: &NodeProto) -> Option<&'static str> {
        Some(NO_ENGINE)
    }

    fn open(&self, _: &ModelProto, _: &[String], _: &Given) -> Result<Box<dyn Session>, CalibError> {
        Err(CalibError::BadModel(NO_ENGINE.into()))
    }
}
