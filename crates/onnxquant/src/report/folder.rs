//! What was made of a folder.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

/// What was made of a folder.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FolderReport {
    /// The model that was quantized, from the folder on.
    pub model: PathBuf,
    /// Files that were copied.
    pub copied: usize,
    /// The other models in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_models: Vec<OtherModel>,
}

/// A model in a folder, beside the one that the settings are about.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OtherModel {
    /// Where it is, from the folder on.
    pub model: PathBuf,
    /// Bytes of the model that was given, external data included.
    pub bytes_before: u64,
    /// What was made of it; absent where it was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantized: Option<OtherQuantized>,
    /// Why it was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// What was made of such a model.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OtherQuantized {
    /// Layers with codes.
    pub layers: usize,
    /// Bytes of the written model, external data included.
    pub bytes_after: u64,
    /// The SQNR in dB that its outputs can be expected to have on new data; absent without samples of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_db: Option<f64>,
    /// What was asked for and was missed, on samples of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
}

impl FolderReport {
    /// What the other models missed.
    pub(crate) fn missed(&self) -> impl Iterator<Item = String> {
        let missed = |other: &OtherModel| {
            let missed = other.quantized.as_ref()?.missed.as_ref()?;
            Some(format!("`{}`: {missed}", other.model.display()))
        };
        self.other_models.iter().filter_map(missed)
    }
}
