//! Pictures become the tensors that Pillow and Hugging Face's transformers make of them.

use std::path::{Path, PathBuf};

use ndarray::Zip;
use onnxquant::calib::{
    CalibSet, DataOptions, Dim, ElementType, ImageBase, ImageOptions, ImagePreset, InputSpec, read_npy,
};
use serde::Deserialize;

use crate::support::{Chain, Failures, Run, folder, onnxquant, python, python_code, report, write};

/// Fewer would mean that the script was cut short.
const LEAST_CASES: usize = 100;

/// What `tests/python/pictures.py` made.
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

impl Case {
    /// The largest difference from what is expected; an error in words where there is no such tensor.
    fn difference(&self) -> Result<f32, String> {
        let dim = |&length: &usize| if length == 0 { Dim::Unknown } else { Dim::Fixed(length) };
        let dims = Some(self.dims.iter().map(dim).collect());
        let input = InputSpec { name: "image".to_owned(), element: ElementType::F32, dims, optional: false };
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

#[test]
fn pictures_are_prepared_as_pillow_and_transformers_do() {
    let folder = folder();
    let output = python("pictures.py").arg(folder.path()).output().expect("Python can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases: Vec<Case> = serde_json::from_slice(&output.stdout).expect("the script prints cases");
    assert!(cases.len() >= LEAST_CASES, "{} cases", cases.len());
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
}

/// A model of pictures, and a folder with some and a list of labels.
fn model_and_pictures(folder: &Path) -> (PathBuf, PathBuf) {
    let model = folder.join("model.onnx");
    write(&Chain::new(&[1, 3, 16, 16]).conv(&[8, 3, 3, 3], 1).conv(&[8, 8, 3, 3], 1).proto(), &model);
    let pictures = folder.join("pictures");
    std::fs::create_dir(&pictures).expect("a folder can be made");
    std::fs::write(pictures.join("labels.csv"), "a,b").expect("a file can be written");
    let code = format!(
        "import numpy as np; from PIL import Image; random = np.random.default_rng(0); \
         [Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).save(r'{}' + f'/{{i}}.webp') for i in range(12)]",
        pictures.display()
    );
    Run::of(&mut python_code(&code)).succeeded();
    (model, pictures)
}

#[test]
fn what_was_done_to_pictures_is_told() {
    let folder = folder();
    let (model, pictures) = model_and_pictures(folder.path());
    let output = folder.path().join("out.onnx");
    let config = r#"{"size": {"shortest_edge": 16}, "crop_size": 16, "do_center_crop": true, "resample": 3,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
    std::fs::write(folder.path().join("preprocessor_config.json"), config).expect("a file can be written");
    let base = ["--method", "msq", "--scheme", "w8", "--calib"];
    let run = |more: &[&str]| Run::of(onnxquant(&[&model, &output]).args(base).arg(&pictures).args(more)).succeeded();
    let found = run(&[]);
    let done = "data    12 webp -> 16x16 (bicubic, center crop), RGB, scaled 1/255, mean 0.5, std 0.5, after ";
    for text in [done, "preprocessor_config.json, values -", "1 files are no samples: `", "labels.csv`"] {
        assert!(found.stdout.contains(text), "`{text}` is not in {}", found.stdout);
    }
    let found = run(&["--image-preset", "unit", "--mean", "127"]);
    let text = "warning: mean 127 goes with pixels of another range than 0 to 1: was it 0.498 that was meant?";
    assert!(found.stderr.contains(text), "{}", found.stderr);
    let found = report(&model, &output, &["--method", "msq", "--scheme", "w8"], Some(&pictures));
    assert_eq!(found["data"]["samples"], "12 webp");
    assert_eq!(found["data"]["skipped"].as_array().map(Vec::len), Some(1));
}

#[test]
fn samples_that_are_all_alike_are_a_warning() {
    let folder = folder();
    let (model, pictures) = model_and_pictures(folder.path());
    let first = pictures.join("0.webp");
    for number in 1..12 {
        std::fs::copy(&first, pictures.join(format!("{number}.webp"))).expect("a file can be copied");
    }
    let output = folder.path().join("out.onnx");
    let found = report(&model, &output, &["--method", "msq", "--scheme", "w8"], Some(&pictures));
    let warning = found["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("all of 8 samples looked at are equal"), "{warning}");
}
