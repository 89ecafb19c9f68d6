//! Sounds become the tensors that Hugging Face's transformers makes of them, and archives the samples that they hold.

use std::path::PathBuf;

use ndarray::Zip;
use onnxquant::calib::{CalibSet, DataOptions, Dim, ElementType, InputSpec, read_npy};
use serde::Deserialize;

use crate::support::{Chain, Failures, Run, folder, onnxquant, python, python_code, refused, write};

/// What `tests/python/sounds.py` made.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    folder: PathBuf,
    /// 0 stands for any length.
    dims: Vec<usize>,
    expected: PathBuf,
    tolerance: f32,
}

impl Case {
    /// The largest difference from what is expected; an error in words where there is no such tensor.
    fn difference(&self) -> Result<f32, String> {
        let dim = |&length: &usize| if length == 0 { Dim::Unknown } else { Dim::Fixed(length) };
        let dims = Some(self.dims.iter().map(dim).collect());
        let input = InputSpec { name: "sound".to_owned(), element: ElementType::F32, dims, optional: false };
        let set = CalibSet::open(&self.folder, &[input], &DataOptions::default()).map_err(|error| error.to_string())?;
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
fn sounds_are_prepared_as_transformers_does() {
    let folder = folder();
    let output = python("sounds.py").arg(folder.path()).output().expect("Python can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases: Vec<Case> = serde_json::from_slice(&output.stdout).expect("the script prints cases");
    assert_eq!(cases.len(), 9);
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

#[test]
fn an_archive_of_arrays_gives_the_same_model_as_a_folder() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    write(&Chain::new(&[1, 16]).matmul(16, 32).matmul(32, 8).proto(), &path("model.onnx"));
    let code = format!(
        "import io, os, tarfile; import numpy as np; random = np.random.default_rng(0); root = r'{}'
os.mkdir(root + '/npz')
with tarfile.open(root + '/a.tar', 'w') as archive:
    for number in range(24):
        values = random.normal(size=(1, 16)).astype(np.float32)
        np.savez(root + f'/npz/{{number:02}}.npz', features=values)
        bytes = io.BytesIO()
        np.save(bytes, values)
        for name, data in [('features.npy', bytes.getvalue()), ('cls', b'3')]:
            info = tarfile.TarInfo(f'{{number:02}}.{{name}}')
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))",
        folder.path().display()
    );
    Run::of(&mut python_code(&code)).succeeded();
    let run = |output: &str, calib: &str, more: &[&str]| {
        let mut command = onnxquant(&[&path("model.onnx"), &path(output)]);
        Run::of(command.args(["--scheme", "w4", "--calib"]).arg(path(calib)).args(more))
    };
    let of_archive = run("tar.onnx", "a.tar", &["--calib-map", "features=x"]).succeeded();
    assert!(of_archive.stdout.contains("data    24 npy, values -"), "{}", of_archive.stdout);
    run("npz.onnx", "npz", &["--calib-map", "features=x"]).succeeded();
    let bytes = |name: &str| std::fs::read(path(name)).expect("the model was written");
    assert!(bytes("tar.onnx") == bytes("npz.onnx"), "the models differ");
    let unmapped = run("none.onnx", "a.tar", &[]);
    assert_eq!(refused(&unmapped, &["no graph input named `features`", "a.tar/00"]), None);
}
