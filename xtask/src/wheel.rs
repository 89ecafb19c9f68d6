//! The Python package: built as it is shipped, and installed in a fresh virtual environment.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::process;
use crate::python::Python;

/// Prints where Python has its packages.
const PACKAGES: &str = "import sysconfig; print(sysconfig.get_path('purelib'))";

/// The package in an environment of its own.
pub struct Wheel {
    file: PathBuf,
    python: PathBuf,
}

impl Wheel {
    /// Builds and installs it. What it works with, such as ONNX Runtime, is that of `python`; nothing is downloaded.
    pub fn set_up(python: &Python) -> anyhow::Result<Self> {
        let target = process::target_folder()?;
        let file = build(python, &target)?;
        let venv = target.join("wheel-venv");
        let fresh = python.fresh(&venv)?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"];
        process::run(Command::new(&fresh).args(pip).arg(&file))?;
        let beside = folder_of_packages(python.path())?.display().to_string();
        let link = folder_of_packages(&fresh)?.join("tests.pth");
        std::fs::write(&link, beside).with_context(|| format!("cannot write `{}`", link.display()))?;
        Ok(Self { file, python: fresh })
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The interpreter that has it.
    pub fn python(&self) -> &Path {
        &self.python
    }
}

/// With the profile and the features of everything else, so that what is built is used again.
fn build(python: &Python, target: &Path) -> anyhow::Result<PathBuf> {
    let folder = target.join("wheels");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    let manifest = process::root().join("crates/python/Cargo.toml");
    let mut maturin = python.command();
    maturin.args(["-m", "maturin", "build", "--quiet", "--release", "--locked", "--compatibility", "linux"]);
    maturin.args(["--compression-level", "9"]);
    maturin.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(target).arg("--out").arg(&folder);
    process::run(&mut maturin)?;
    let files = std::fs::read_dir(&folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let files: Vec<PathBuf> = files.filter_map(Result::ok).map(|entry| entry.path()).collect();
    ensure!(files.len() == 1, "expected one wheel in `{}`, found {files:?}", folder.display());
    files.into_iter().next().context("no wheel was built")
}

fn folder_of_packages(python: &Path) -> anyhow::Result<PathBuf> {
    let output = Command::new(python).args(["-c", PACKAGES]).output().context("cannot start Python")?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(!path.is_empty(), "`{}` does not tell where its packages are", python.display());
    Ok(path.into())
}
