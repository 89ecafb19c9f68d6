//! Samples of texts that continue behind a past.
//!
//! Every fourth sample of a decoder begins where its first half ends: the float model is run on that half, and the caches
//! that it returns are what the sample is given ([`CalibSet::continue_behind`]). Statistics then cover decoding. Where a
//! graph returns no caches, or the engine does not run what lies behind some, all samples begin at the first token.

use std::sync::Arc;

use onnxquant_calib::{CalibError, CalibSet, Engine, Given, Session, Tensor};
use onnxquant_ir::Model;
use onnxquant_ir::onnx::ModelProto;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Error;
use crate::load::{decoded, without_functions};
use crate::observe::reach::output_names;
use crate::observe::samples::Samples;

/// What samples were made of texts.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TextReport {
    /// How many.
    pub samples: usize,
    /// Tokens of the longest, its past counted.
    pub tokens: usize,
    /// How many of them begin behind a past.
    pub continued: usize,
    /// Why none does, where a decoder has caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// Lets one in four of the samples continue a text; nothing where they are not made of texts.
pub(crate) fn continue_texts(samples: &mut Samples, model: &Model) -> Result<Option<TextReport>, Error> {
    if !samples.data.is_text() {
        return Ok(None);
    }
    let data = &samples.data;
    let tokens = (0..data.len()).filter_map(|sample| data.tokens(sample)).max().unwrap_or(0);
    let mut report = TextReport { samples: data.len(), tokens, continued: 0, because: None };
    let outputs = output_names(model);
    let mut caches = Vec::new();
    for (input, names) in data.caches() {
        match names.into_iter().find(|name| outputs.contains(name)) {
            Some(output) => caches.push((input, output)),
            None => {
                report.because = Some(format!("no output continues the cache `{input}`"));
                return Ok(Some(report));
            }
        }
    }
    if !caches.is_empty() {
        (report.continued, report.because) = continue_behind(samples, model, &caches)?;
    }
    Ok(Some(report))
}

/// Lets the chosen samples begin behind caches, inputs with the outputs that continue them. Says how many do, and what
/// keeps others from it.
fn continue_behind(
    samples: &mut Samples,
    model: &Model,
    caches: &[(String, String)],
) -> Result<(usize, Option<String>), Error> {
    let chosen = samples.data.to_continue();
    let proto = without_functions(&decoded(model)?)?;
    let presents: Vec<String> = caches.iter().map(|(_, output)| output.clone()).collect();
    let session = match samples.engine.open(&proto, &presents, &first_halves(&samples.data, &chosen)?) {
        Ok(session) => session,
        Err(error) => return Ok((0, Some(error.to_string()))),
    };
    let Samples { engine, data, .. } = samples;
    let data = Arc::get_mut(data).ok_or_else(|| Error::Internal("samples are in use already".to_owned()))?;
    let mut continued = 0;
    for sample in chosen {
        let Some(half) = data.first_half(sample)? else { continue };
        let made = match session.run(&half) {
            Ok(made) => made,
            Err(error) => return Ok((continued, Some(error.to_string()))),
        };
        let made: Vec<(String, Tensor)> = caches.iter().map(|(input, _)| input.clone()).zip(made).collect();
        if !data.continue_behind(sample, &made)? {
            return Ok((continued, Some("the caches that the model returns do not fit its inputs".to_owned())));
        }
        if continued == 0
            && let Err(error) = try_one(&**engine, &proto, &presents, data, sample)
        {
            data.start_over(sample)?;
            return Ok((0, Some(error.to_string())));
        }
        continued += 1;
    }
    Ok((continued, None))
}

/// What the first halves of samples give.
fn first_halves(data: &CalibSet, samples: &[usize]) -> Result<Given, Error> {
    let mut given = Given::inputs(data, &[]);
    for &sample in samples {
        let half = data.first_half(sample)?.unwrap_or_default();
        given.shapes.push(half.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect());
    }
    Ok(given)
}

/// Runs one sample.
fn try_one(
    engine: &dyn Engine,
    proto: &ModelProto,
    wanted: &[String],
    data: &CalibSet,
    sample: usize,
) -> Result<(), CalibError> {
    let session = engine.open(proto, wanted, &Given::inputs(data, &[sample]))?;
    session.run(&data.load(sample)?).map(drop)
}
