//! A copy of ONNX Runtime's Python package that sees no AVX-512, so that a processor which has it computes, at full speed, as one
//! of class `avx2`.
//!
//! The library asks `xgetbv` which registers the system saves, and takes kernels of AVX-512 only where those of AVX-512 are
//! among them. In the copy the answer is 7: x87, SSE and AVX.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::process;
use crate::python::Python;

/// `xor ecx, ecx` and `xgetbv`.
const ASKS: [u8; 5] = [0x31, 0xc9, 0x0f, 0x01, 0xd0];
/// `xor ecx, ecx`, `push 7` and `pop rax`.
const ANSWERS: [u8; 5] = [0x31, 0xc9, 0x6a, 0x07, 0x58];

/// Copies the package into a folder.
const COPY: &str = "\
import pathlib, shutil, sys, onnxruntime
shutil.copytree(pathlib.Path(onnxruntime.__file__).parent, sys.argv[1])";

/// Makes the copy; returns the folder that Python has to look into first.
pub(super) fn make(python: &Python) -> anyhow::Result<PathBuf> {
    let folder = process::target_folder()?.join("without-avx512");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    let package = folder.join("onnxruntime");
    process::run_quietly(python.command().args(["-c", COPY]).arg(&package))?;
    let libraries = std::fs::read_dir(package.join("capi")).context("the package has no libraries")?;
    let mut places = 0;
    for library in libraries {
        let path = library?.path();
        if path.is_file() && path.to_string_lossy().contains(".so") {
            places += answer(&path).with_context(|| format!("cannot change `{}`", path.display()))?;
        }
    }
    ensure!(places > 0, "ONNX Runtime does not ask for AVX-512 as is known");
    Ok(folder)
}

/// Changes every question of a library; returns how many there are.
fn answer(path: &Path) -> anyhow::Result<usize> {
    let mut bytes = std::fs::read(path)?;
    let places: Vec<usize> =
        bytes.windows(ASKS.len()).enumerate().filter(|(_, at)| *at == ASKS).map(|(at, _)| at).collect();
    for &at in &places {
        bytes[at..at + ANSWERS.len()].copy_from_slice(&ANSWERS);
    }
    std::fs::write(path, bytes)?;
    Ok(places.len())
}
