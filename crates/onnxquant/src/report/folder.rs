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
    /// Models among them, which stay as they were.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_models: Vec<PathBuf>,
}
