//! The engines that can be tried here.

use std::path::PathBuf;
use std::sync::LazyLock;

use onnxquant_calib::{Engine, OrtEngine, OrtPlaces, engine};

static ORT: LazyLock<Option<OrtEngine>> = LazyLock::new(|| {
    let library = std::env::var_os("ONNXQUANT_ORT_LIB").map(PathBuf::from)?;
    let places = OrtPlaces { named: Some(library), ..OrtPlaces::default() };
    Some(OrtEngine::find(&places).unwrap_or_else(|error| panic!("{error}")))
});

/// tract, and ONNX Runtime where `cargo xtask test` or somebody else names its library in `ONNXQUANT_ORT_LIB`.
pub fn engines() -> Vec<&'static dyn Engine> {
    let ort = ort().map(|ort| ort as &dyn Engine);
    std::iter::once(engine()).chain(ort).collect()
}

/// ONNX Runtime, where it is named.
pub fn ort() -> Option<&'static OrtEngine> {
    ORT.as_ref()
}

/// Whether it is tract.
pub fn is_tract(engine: &dyn Engine) -> bool {
    engine.name().starts_with("tract ")
}
