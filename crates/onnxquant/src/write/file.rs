//! Puts a model into a file.

use std::path::Path;

use onnxquant_ir::{ExternalData, Model, UnnamedModel};

use crate::config::Config;
use crate::error::Error;

/// Metadata entries of a written model.
const SETTINGS_KEY: &str = "onnxquant.settings";
const CERTIFICATES_KEY: &str = "onnxquant.certificates";
const VERSION_KEY: &str = "onnxquant.version";

/// What a written model says of how it was made.
pub(crate) struct Metadata {
    /// Version of this program.
    pub(crate) version: &'static str,
    /// The settings, as JSON.
    pub(crate) settings: String,
    /// What is known of every layer, as JSON.
    pub(crate) certificates: String,
}

impl Metadata {
    /// Puts it into the model.
    pub(crate) fn put_into(&self, model: &mut Model) {
        model.set_metadata(VERSION_KEY, self.version);
        model.set_metadata(SETTINGS_KEY, &self.settings);
        model.set_metadata(CERTIFICATES_KEY, &self.certificates);
    }
}

/// Writes the model.
pub(crate) fn write(model: &Model, path: &Path, config: &Config) -> Result<(), Error> {
    Ok(write_unnamed(model, path, config)?.name()?)
}

/// The same, but the file gets its name later.
pub(crate) fn write_unnamed(model: &Model, path: &Path, config: &Config) -> Result<UnnamedModel, Error> {
    let external = if config.external_data { ExternalData::Always } else { ExternalData::Auto };
    Ok(onnxquant_ir::write_unnamed(model, path, external)?)
}
