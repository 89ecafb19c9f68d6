//! Tensors that a script of Python makes of files, and what the program makes of the same.

use std::path::{Path, PathBuf};

use ndarray::Zip;
use onnxquant::calib::{
    CalibSet, DataOptions, Dim, ElementType, ImageBase, ImageOptions, ImagePreset, InputSpec, read_npy,
};
use serde::Deserialize;

use super::{Failures, python};

/// What the script made.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    folder: PathBuf,
    /// 0 stands for any length.
    dims: Vec<usize>,
    preset: Option<String>,
    expected: PathBuf,
    tolerance: f32,
}

/// Runs a script of `tests/python`, which fills `folder` and prints cases, and holds the program against each; returns how
/// many there were.
pub fn check_prepared(script: &str, folder: &Path) -> usize {
    let output = python(script).arg(folder).output().expect("Python can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases: Vec<Case> = serde_json::from_slice(&output.stdout).expect("the script prints cases");
    let mut failures = Failures::default();
    for case in &cases {
        match case.difference() {
            Ok(found) => failures.check(found <= case.tolerance, || {
                format!("{}: differs by {found}, at most {} allowed", case.name, case.tolerance)
            }),
            Err(why) => failures.check(false, || format!("{}: {why}", case.name)),
        }
    }
    failures.finish();
    cases.len()
}

impl Case {
    /// The largest difference from what is expected; an error in words where there is no such tensor.
    fn difference(&self) -> Result<f32, String> {
        let dim = |&length: &usize| if length == 0 { Dim::Unknown } else { Dim::Fixed(length) };
        let dims = Some(self.dims.iter().map(dim).collect());
        let input = InputSpec { name: "input".to_owned(), element: ElementType::F32, dims, optional: false };
        let preset = self.preset.as_deref().map(|name| ImagePreset::named(name).expect("the preset is known"));
        let image = preset.map(|preset| ImageOptions { base: ImageBase::Preset(preset), ..ImageOptions::default() });
        let options = DataOptions { image, ..DataOptions::default() };
        let set = CalibSet::open(&self.folder, &[input], &options).map_err(|error| error.to_string())?;
        let found = set.load(0).map_err(|error| error.to_string())?.remove(0).1.to_f32().expect("it is float");
        let expected = std::fs::read(&self.expected).expect("the script wrote it");
        let expected = read_npy(&expected, 1 << 30).expect("it is an array").to_f32().expect("it is float");
        if found.shape() != expected.shape() || set.shapes(0)[0] != expected.shape() {
            return Err(format!("shape {:?}, expected {:?}", found.shape(), expected.shape()));
        }
        let mut most = 0.0_f32;
        Zip::from(&found).and(&expected).for_each(|found, expected| most = most.max((found - expected).abs()));
        Ok(most)
    }
}
