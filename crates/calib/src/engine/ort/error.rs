//! Why ONNX Runtime is not used.

use std::path::PathBuf;

/// ONNX Runtime cannot be used, or not for a model.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OrtError {
    /// It is nowhere.
    #[error("no ONNX Runtime found: {}; install one (`pip install onnxruntime`) or name its library with `--ort-lib`", looked.join(", "))]
    NotFound {
        /// Where it was looked for, and what was there.
        looked: Vec<String>,
    },
    /// This program loads no libraries.
    #[error(
        "this program is linked statically and cannot load ONNX Runtime: take the archive without `static` in its name, \
         or the Python package"
    )]
    Static,
    /// A file is not there, or not a library, or another one.
    #[error(
        "cannot load `{}` as ONNX Runtime: {detail}; name another library with `--ort-lib`", path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A library without the functions that are needed.
    #[error("ONNX Runtime {version} in `{}` is too old: 1.17 or newer is needed", path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// It does not load a file.
    #[error("ONNX Runtime {version} does not load `{}`: {detail}", path.display())]
    Load {
        /// Its version.
        version: String,
        /// The model.
        path: PathBuf,
        /// Its message.
        detail: String,
    },
}
