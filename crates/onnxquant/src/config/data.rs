//! Where samples come from.

use std::path::{Path, PathBuf};

use onnxquant_calib::DataOptions;
use onnxquant_storage::is_folder;

/// Where calibration samples come from.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// A folder or a file.
    pub path: PathBuf,
    /// How it is read.
    pub options: DataOptions,
    /// A file that keeps statistics of activations from one run to the next.
    pub cache: Option<PathBuf>,
}

impl DataConfig {
    /// The samples of `model`: where the folder has one that is called as the model, without `.onnx`, those in it.
    pub fn of_model(&self, model: &Path) -> Self {
        let own = model.file_stem().map(|stem| self.path.join(stem)).filter(|own| is_folder(own).unwrap_or(false));
        Self { path: own.unwrap_or_else(|| self.path.clone()), ..self.clone() }
    }

    /// Whether there are samples of this model alone.
    pub(crate) fn has_own(&self, model: &Path) -> bool {
        self.of_model(model).path != self.path
    }
}
