//! `cargo xtask test`: everything, on a machine with Rust and Python alone.
//!
//! In this order: a virtual environment with ONNX Runtime, the models of the ONNX backend tests and an emulator of other
//! processors (what is not there lies under `target/` and is made once), what is committed against the `onnx` package,
//! the Python package in an environment of its own, `cargo test`, the regression figures.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use onnxquant_passes::cpu::Cpu;

use crate::python::Python;
use crate::qemu::Qemu;
use crate::wheel::Wheel;
use crate::{process, regress};

/// Scripts that, given `--check`, compare something committed with the `onnx` package.
const CHECKS: [&str; 2] = ["tests/python/opset_table.py", "fixtures/make_traps.py"];

#[derive(clap::Args)]
pub struct Args {
    /// Given to `cargo test`, for example a part of a test's name; then only the tests run.
    #[arg(last = true)]
    args: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let python = Python::set_up()?;
    let models = node_models(&python)?;
    let qemu = Qemu::set_up(&python)?;
    println!("{}", classes(qemu.as_ref()));
    if args.args.is_empty() {
        check_committed(&python)?;
    }
    let wheel = Wheel::set_up(&python)?;
    cargo_test(&python, &wheel, &models, qemu.as_ref(), &args.args)?;
    if args.args.is_empty() {
        regress::compare_all(&python)?;
    }
    Ok(())
}

/// The folder with the models of the ONNX backend tests; filled unless it is complete.
fn node_models(python: &Python) -> anyhow::Result<PathBuf> {
    let folder = process::target_folder()?.join("node-models");
    let script = process::root().join("tests/python/make_node_models.py");
    let wanted = python.requirements().to_owned() + &read(&script)?;
    let stamp = folder.join("complete.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(folder);
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    process::run(python.command().arg(&script).arg(&folder))?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write `{}`", stamp.display()))?;
    Ok(folder)
}

fn check_committed(python: &Python) -> anyhow::Result<()> {
    let root = process::root();
    for script in CHECKS {
        process::run_quietly(python.command().arg(root.join(script)).arg("--check"))?;
    }
    let descriptor = process::target_folder()?.join("schema.bin");
    let myself = std::env::current_exe().context("cannot find this program's own file")?;
    process::run_quietly(Command::new(myself).args(["codegen", "--check", "--descriptor"]).arg(&descriptor))?;
    process::run_quietly(python.command().arg(root.join("tests/python/compare_schema.py")).arg(&descriptor))
}

/// The classes of processors on which written files are measured.
fn classes(qemu: Option<&Qemu>) -> String {
    let native = Cpu::native();
    match qemu {
        Some(qemu) => format!("this processor: {native}; avx2: emulated by `{}`", qemu.path().display()),
        None => format!("this processor: {native}; avx2: not tested, it is emulated on Linux on x86-64 only"),
    }
}

fn cargo_test(
    python: &Python,
    wheel: &Wheel,
    models: &Path,
    qemu: Option<&Qemu>,
    args: &[String],
) -> anyhow::Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--release", "--workspace", "--locked", "--no-fail-fast"]).args(args);
    cargo.env("ONNXQUANT_ORT_LIB", python.ort_library()?);
    cargo.env("ONNXQUANT_WHEEL", wheel.file()).env("ONNXQUANT_WHEEL_PYTHON", wheel.python());
    cargo.env("ONNXQUANT_PYTHON", python.path()).env("ONNXQUANT_NODE_MODELS", models);
    if let Some(qemu) = qemu {
        cargo.env("ONNXQUANT_QEMU", qemu.path());
    }
    process::run(&mut cargo)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}
