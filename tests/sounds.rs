//! Sounds become the tensors that Hugging Face's transformers makes of them, and archives the samples that they hold.

use crate::support::{Chain, Run, check_prepared, folder, onnxquant, python_code, refused, write};

#[test]
fn sounds_are_prepared_as_transformers_does() {
    let folder = folder();
    assert_eq!(check_prepared("sounds.py", folder.path()), 9);
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
    assert!(of_archive.says("data    24 npy, values -"), "{}", of_archive.stdout);
    run("npz.onnx", "npz", &["--calib-map", "features=x"]).succeeded();
    let bytes = |name: &str| std::fs::read(path(name)).expect("the model was written");
    assert!(bytes("tar.onnx") == bytes("npz.onnx"), "the models differ");
    let unmapped = run("none.onnx", "a.tar", &[]);
    assert_eq!(refused(&unmapped, &["no graph input named `features`", "a.tar/00"]), None);
}
