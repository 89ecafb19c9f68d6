//! What `genai_config.json`, by which onnxruntime-genai knows a folder, says of the decoder in it.

use std::path::Path;

use serde::Deserialize;

use super::json;
use crate::error::CalibError;

/// The file's name.
pub(crate) const FILE: &str = "genai_config.json";

/// The decoder of a folder, as its `genai_config.json` describes it; everything may be missing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GenaiDecoder {
    /// The file of its graph.
    pub filename: Option<String>,
    /// Values of a head.
    pub head_size: Option<usize>,
    /// Heads of its caches.
    pub num_key_value_heads: Option<usize>,
    /// The most tokens that it takes.
    #[serde(skip)]
    pub context_length: Option<usize>,
    pub(crate) inputs: Inputs,
    pub(crate) outputs: Outputs,
}

/// Names of inputs; those of caches hold `%d` for the layer's number.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Inputs {
    pub(crate) input_ids: Option<String>,
    pub(crate) attention_mask: Option<String>,
    pub(crate) position_ids: Option<String>,
    past_key_names: Option<String>,
    past_value_names: Option<String>,
    past_names: Option<String>,
}

/// Names of outputs, likewise.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Outputs {
    present_key_names: Option<String>,
    present_value_names: Option<String>,
    present_names: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    model: Model,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Model {
    context_length: Option<usize>,
    decoder: GenaiDecoder,
}

impl GenaiDecoder {
    /// Reads the configuration in `folder`; nothing where there is none.
    pub fn read(folder: &Path) -> Result<Option<Self>, CalibError> {
        let path = folder.join(FILE);
        match json::read::<File>(&path) {
            Ok(File { model }) => Ok(Some(Self { context_length: model.context_length, ..model.decoder })),
            Err(CalibError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an input of this name is a cache.
    pub(crate) fn is_cache(&self, input: &str) -> bool {
        input.starts_with("past") || self.pairs().any(|(past, _)| layer(past, input).is_some())
    }

    /// The names that the output may have that continues the cache `input`, the likeliest first.
    pub fn continued(&self, input: &str) -> Vec<String> {
        let told = self.pairs().filter_map(|(past, present)| Some(present?.replacen("%d", layer(past, input)?, 1)));
        let usual = [("past_key_values", "present"), ("past", "present")];
        told.chain(usual.map(|(past, present)| input.replacen(past, present, 1))).collect()
    }

    /// Names of caches, and of the outputs that continue them.
    fn pairs(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let Self { inputs, outputs, .. } = self;
        let pairs = [
            (&inputs.past_key_names, &outputs.present_key_names),
            (&inputs.past_value_names, &outputs.present_value_names),
            (&inputs.past_names, &outputs.present_names),
        ];
        pairs.into_iter().filter_map(|(past, present)| Some((past.as_deref()?, present.as_deref())))
    }
}

/// What stands in `name` for the `%d` of `pattern`, where all else is the same.
fn layer<'a>(pattern: &str, name: &'a str) -> Option<&'a str> {
    let (head, tail) = pattern.split_once("%d")?;
    let number = name.strip_prefix(head)?.strip_suffix(tail)?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_caches_lead_to_those_of_outputs() {
        let folder = tempfile::tempdir().unwrap();
        assert!(GenaiDecoder::read(folder.path()).unwrap().is_none());
        let text = r#"{"model": {"context_length": 64, "type": "llama", "decoder": {"filename": "d.onnx", "head_size": 8,
            "inputs": {"input_ids": "ids", "past_key_names": "kv.%d.k"}, "outputs": {"present_key_names": "new.%d.k"}}}}"#;
        std::fs::write(folder.path().join(FILE), text).unwrap();
        let found = GenaiDecoder::read(folder.path()).unwrap().unwrap();
        assert_eq!((found.context_length, found.filename.as_deref()), (Some(64), Some("d.onnx")));
        assert!(found.is_cache("kv.12.k") && found.is_cache("past_3") && !found.is_cache("kv.x.k"));
        assert_eq!(found.continued("kv.12.k")[0], "new.12.k");
        let usual = GenaiDecoder::default();
        assert_eq!(usual.continued("past_key_values.0.value")[0], "present.0.value");
        assert!(usual.continued("past_0").contains(&"present_0".to_owned()));
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let message = GenaiDecoder::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains(FILE), "{message}");
    }
}
