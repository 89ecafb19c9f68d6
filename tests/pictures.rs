//! Pictures become the tensors that Pillow and Hugging Face's transformers make of them.

use std::path::{Path, PathBuf};

use crate::support::{Chain, Run, check_prepared, folder, onnxquant, python_code, report, write};

/// Fewer would mean that the script was cut short.
const LEAST_CASES: usize = 100;

#[test]
fn pictures_are_prepared_as_pillow_and_transformers_do() {
    let folder = folder();
    let cases = check_prepared("pictures.py", folder.path());
    assert!(cases >= LEAST_CASES, "{cases} cases");
}

/// A model of pictures, and a folder with some and a list of labels.
fn model_and_pictures(folder: &Path) -> (PathBuf, PathBuf) {
    fill(folder, "model.onnx", "pictures")
}

/// The same by other names.
pub(crate) fn fill(folder: &Path, model: &str, pictures: &str) -> (PathBuf, PathBuf) {
    let model = folder.join(model);
    write(&Chain::new(&[1, 3, 16, 16]).conv(&[8, 3, 3, 3], 1).conv(&[8, 8, 3, 3], 1).proto(), &model);
    let pictures = folder.join(pictures);
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
        assert!(found.says(text), "`{text}` is not in {}", found.stdout);
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
