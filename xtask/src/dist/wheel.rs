//! The wheel that people install: for every Linux with the C library that ONNX Runtime's own wheel asks for, or for those
//! with musl.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::build::{GLIBC, Wanted, finds_zig};
use super::contents::names_in;
use crate::process;
use crate::python::Python;

/// Builds it with the dependencies of the program. maturin checks itself that the library keeps to the tag.
pub(super) fn make(wanted: &Wanted, source: &Path, target_folder: &Path, archives: &Path) -> anyhow::Result<PathBuf> {
    let python = Python::of_dist()?;
    let folder = target_folder.join("dist-wheel");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    let mut maturin = python.command();
    wanted.prepare(&mut maturin, source, target_folder)?;
    maturin.args(["-m", "maturin", "build", "--quiet", "--profile", "dist", "--locked", "--target", wanted.target()]);
    maturin
        .args(["--compression-level", "9", "--compatibility", &tag(wanted)])
        .arg("--manifest-path")
        .arg(source.join("crates/python/Cargo.toml"));
    if wanted.is_foreign()? {
        finds_zig(maturin.arg("--zig"))?;
    }
    maturin.arg("--target-dir").arg(target_folder).arg("--out").arg(&folder);
    maturin.arg("--").args(wanted.last_flags(target_folder)?);
    process::run(&mut maturin)?;
    let names = names_in(&folder)?;
    ensure!(names.len() == 1, "expected one wheel, found {names:?}");
    let file = archives.join(&names[0]);
    std::fs::copy(folder.join(&names[0]), &file).with_context(|| format!("cannot write `{}`", file.display()))?;
    Ok(file)
}

/// `manylinux_2_28` or, with musl, `musllinux_1_2`.
fn tag(wanted: &Wanted) -> String {
    if wanted.target().contains("-musl") {
        "musllinux_1_2".to_owned()
    } else {
        format!("manylinux_{}", GLIBC.replace('.', "_"))
    }
}

/// Installs it in an empty environment and runs its command, where Python is one of its kind.
pub(super) fn check(file: &Path, wanted: &Wanted) -> anyhow::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let tag = tag(wanted);
    ensure!(name.contains(&tag), "`{name}` does not say {tag}");
    if !wanted.runs_here()? {
        println!("not run: this Python has another C library or processor");
        return Ok(());
    }
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let fresh = Python::of_dist()?.fresh(&folder.path().join("venv"))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"];
    process::run(Command::new(&fresh).args(pip).arg(file))?;
    process::run(Command::new(&fresh).args(["-m", "onnxquant", "--version"]))
}
